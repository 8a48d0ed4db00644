"""A file's frames of sound as one row of mono samples, each piece with its place in time."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from crosswatch.data.media import open_media, reason
from crosswatch.errors import ADVICE, BadBatchError

LEAST_HZ = 2_000  # a slower recording hears the hum alone, and a forged one would fill the disk
RATE_TOLERANCE_SHARE = 0.01
JOIN_S = 0.005  # stamps of some containers are rounded to milliseconds
LONGEST_HOLES_S = 600.0
OVERLAP_S = 0.1  # joined recordings may repeat a codec's frame or two
ANNOUNCING = ("flac", "mov,mp4,m4a,3gp,3g2,mj2")  # their headers state a length, others guess it
UNKNOWN_BYTES = (0, 0xFFFFFFFF)  # what a recorder that writes into a pipe puts for the length
Samples = npt.NDArray[np.int16]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioClip:
    """The track of one of many clips; what lies outside of its span is not taken."""

    path: Path
    start_s: float  # the file's zero on the clock
    span_s: tuple[float, float]  # on the clock


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawAudio:
    """A sound as it arrived: a file of its own, the track of a video, or those of many clips."""

    path: Path  # the file, or what names `clips` in errors
    rate_hz: float | None  # as declared; None where nobody did
    clock: str = "camera"
    start_s: float = 0.0  # the file's zero on this clock
    clips: tuple[AudioClip, ...] = ()  # instead of a file, in order of their spans


class Sound(Protocol):
    """Where samples come from, and what went wrong with it; read once."""

    name: str
    rate_hz: int  # as it arrived
    announced_s: float  # 0 where nothing states it
    longest_holes_s: float  # all together, unless there is more sound than that
    lost_packets: int  # could not be decoded

    def pieces(self, rate_hz: int) -> Iterator[tuple[int, Samples]]:
        """Each piece at this rate, and the sample from the clock's zero with which it begins."""
        ...

    def check_whole(self, heard_s: float, *, max_bad_share: float) -> None:
        """
        Raises:
            BadBatchError: more than this share of it could not be had.
        """
        ...


class AudioSource:
    """The first sound track of a file, and what went wrong with it.

    A file of sound alone begins with its first sample; a video's track when the video says.
    """

    longest_holes_s = LONGEST_HOLES_S

    def __init__(self, path: Path, *, declared_hz: float | None = None) -> None:
        self.name = path.name
        self._path = path
        self._declared_hz = declared_hz
        self._container = open_media(path, "audio")
        self._stream = self._container.streams.audio[0]
        if self._stream.codec_context is None:
            self._container.close()
            raise BadBatchError(f"{path.name}: its sound is of no known codec. {ADVICE}")
        self.rate_hz = int(self._stream.codec_context.sample_rate or 0)
        length, exact = self._stream.duration, self._container.format.name in ANNOUNCING
        self.announced_s = float(length * self._stream.time_base) if exact and length else 0.0
        self.packets = 0
        self.lost_packets = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def pieces(self, rate_hz: int) -> Iterator[tuple[int, Samples]]:
        """Counted from the file's zero.

        Frames that follow each other go through one resampler; after a hole a new one begins.
        """
        _check_rate(self.name, self.rate_hz, declared_hz=self._declared_hz)
        run: _Run | None = None
        for frame, at_s in self._frames():
            if run is not None and run.is_followed_by(frame, at_s):
                yield from run.add(frame)
                continue
            begins_s = at_s or 0.0
            if run is not None:
                yield from run.end()
                begins_s = run.end_s if at_s is None else at_s
                _check_order(self.name, run.end_s, begins_s)
            run = _Run(frame, begins_s, rate_hz, self.name)
            yield from run.add(frame)
        if run is not None:
            yield from run.end()

    def give_up(self) -> None:
        """Count what was not read, and the packet that was read last, as lost."""
        self.lost_packets += 1 + sum(packet.size > 0 for packet in self._packets())

    def check_whole(self, heard_s: float, *, max_bad_share: float) -> None:
        check_riff(self._path, max_bad_share=max_bad_share)
        allowed = max(1, int(max_bad_share * self.packets))
        if self.lost_packets > allowed:
            raise BadBatchError(
                f"{self.name}: {self.lost_packets} of {self.packets} packets of sound cannot be "
                f"decoded; allowed {allowed}. {ADVICE}"
            )
        if heard_s < (1 - max_bad_share) * self.announced_s:
            told = f"{heard_s:.2f} of the {self.announced_s:.2f} s"
            raise truncated(self.name, told, max_bad_share)

    def _frames(self) -> Iterator[tuple[Any, float | None]]:
        """Frames and their times in s; None where the file does not say."""
        import av

        zero_s = self._zero_s()
        for packet in self._packets():
            self.packets += packet.size > 0
            try:
                frames = packet.decode()
            except av.FFmpegError:  # what is lost shows as a hole
                self.lost_packets += 1
                continue
            for frame in frames:
                _check_numbers(frame, self.name)
                known = frame.pts is not None
                yield frame, float(frame.pts * frame.time_base) - zero_s if known else None

    def _packets(self) -> Iterator[Any]:
        """The packets up to the first that cannot be read; the caller judges what is missing."""
        import av

        with contextlib.suppress(av.FFmpegError):
            yield from self._container.demux(self._stream)

    def _zero_s(self) -> float:
        from av.stream import Disposition

        covers = (s.disposition & Disposition.attached_pic for s in self._container.streams.video)
        alone = all(covers)  # music files hold a picture of their cover
        start = self._stream.start_time
        return max(0.0, float(start * self._stream.time_base)) if alone and start else 0.0


class _Run:
    """Frames without a hole between them."""

    def __init__(self, frame: Any, begins_s: float, rate_hz: int, name: str) -> None:
        import av

        self._kind = _kind(frame)
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=rate_hz)
        self._begins_s = begins_s
        self._at = round(begins_s * rate_hz)
        self._heard = 0
        self._name = name

    @property
    def end_s(self) -> float:
        return self._begins_s + self._heard / self._kind[0]

    def is_followed_by(self, frame: Any, at_s: float | None) -> bool:
        on_time = at_s is None or abs(at_s - self.end_s) <= JOIN_S
        return on_time and _kind(frame) == self._kind

    def add(self, frame: Any) -> Iterator[tuple[int, Samples]]:
        self._heard += frame.samples
        frame.pts = None  # the run counts for itself
        return self._resampled(frame)

    def end(self) -> Iterator[tuple[int, Samples]]:
        return self._resampled(None)

    def _resampled(self, frame: Any) -> Iterator[tuple[int, Samples]]:
        import av

        try:
            pieces = self._resampler.resample(frame)
        except (av.FFmpegError, ValueError) as error:
            kind = "{} Hz, {}, {}".format(*self._kind)
            raise BadBatchError(
                f"{self._name}: its sound ({kind}) cannot be mixed to one channel: "
                f"{reason(error)}. Deliver it as mono WAV."
            ) from error
        for piece in pieces:
            samples = piece.to_ndarray()[0]
            yield self._at, samples
            self._at += samples.size


def _kind(frame: Any) -> tuple[int, str, str]:
    return frame.sample_rate, frame.format.name, frame.layout.name


def check_riff(path: Path, *, max_bad_share: float) -> None:
    """Hold a WAV file to the length in its header, which FFmpeg corrects without a word.

    Raises:
        BadBatchError: more than the allowed share of it is missing.
    """
    with path.open("rb") as stream:
        if stream.read(4) != b"RIFF":
            return
        stream.seek(12)
        while len(head := stream.read(8)) == 8:
            size = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                there = path.stat().st_size - stream.tell()
                if size not in UNKNOWN_BYTES and there < (1 - max_bad_share) * size:
                    raise truncated(path.name, f"{there} of the {size} bytes", max_bad_share)
                return
            stream.seek(size + size % 2, 1)


def truncated(name: str, told: str, max_bad_share: float) -> BadBatchError:
    return BadBatchError(
        f"{name}: is truncated or damaged: {told} that it announces are there; "
        f"{1 - max_bad_share:.0%} are needed. {ADVICE}"
    )


def _check_rate(name: str, found_hz: int, *, declared_hz: float | None) -> None:
    if found_hz < LEAST_HZ:
        raise BadBatchError(
            f"{name}: is sampled at {found_hz} Hz; at least {LEAST_HZ} Hz are needed. "
            "Record it faster, or deliver no sound."
        )
    if declared_hz is not None and abs(found_hz / declared_hz - 1.0) > RATE_TOLERANCE_SHARE:
        raise BadBatchError(
            f"{name}: is sampled at {found_hz} Hz, batch.json declares {declared_hz:g} "
            f"Hz; {RATE_TOLERANCE_SHARE:.0%} of difference is allowed. Correct rate_hz in "
            "batch.json."
        )


def _check_numbers(frame: Any, name: str) -> None:
    if frame.format.name.rstrip("p") not in ("flt", "dbl"):
        return
    wrong = int((~np.isfinite(frame.to_ndarray())).sum())
    if wrong:
        raise BadBatchError(
            f"{name}: {wrong} of the {frame.samples} samples from {frame.time or 0.0:.3f} s on "
            f"are NaN or infinite; none may be. {ADVICE}"
        )


def _check_order(name: str, end_s: float, begins_s: float) -> None:
    if begins_s < end_s - OVERLAP_S:
        raise BadBatchError(
            f"{name}: time runs backwards: {end_s:.3f} s, then {begins_s:.3f} s; {OVERLAP_S:g} s "
            "are allowed. Split the delivery where the recorder was reset."
        )
