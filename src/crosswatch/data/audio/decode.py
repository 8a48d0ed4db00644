"""Sound: from any file PyAV reads to one even row of samples, in memory that does not grow.

A sample's index is its time: what a recorder left out is filled with silence and noted, what comes
before the clock's zero (a codec's priming) is dropped.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosswatch.data.audio.clips import ClipSource
from crosswatch.data.audio.loudness import FLOOR_DB, LoudnessMeter
from crosswatch.data.audio.source import JOIN_S, AudioSource, RawAudio, Samples, Sound
from crosswatch.data.frames import RowWriter
from crosswatch.errors import ADVICE, BadBatchError

__all__ = ["DecodedAudio", "RawAudio", "decode_audio"]

LOUD = 32_700  # a sample from here to full scale is as good as clipped
BLOCK = 1 << 16
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodedAudio:
    """What decoding found out beside the samples that it wrote."""

    rate_hz: int
    samples: int
    start_s: float  # of the first sample, on the stream's clock; sample k is k / rate_hz later
    loudness: npt.NDArray[np.float32]  # (M, BANDS) dB of full scale
    loudness_s: npt.NDArray[np.float64]  # (M,) middle of each window, on the stream's clock
    holes: tuple[tuple[float, float], ...]  # filled with silence; no loudness is told of them
    lost_packets: int  # could not be decoded
    clipped_share: float  # of the samples
    silent_share: float  # of the windows: digital zero, filled holes included
    file_rate_hz: int


def decode_audio(
    raw: RawAudio,
    out: Path,
    *,
    rate_hz: int,
    max_bad_share: float,
    progress: Progress = lambda done, total: None,
) -> DecodedAudio:
    """Write the sound as mono int16 (N,) at `rate_hz`.

    Raises:
        BadBatchError: there is no sound; a file holds less than it announces, another rate than
            declared, or numbers that are none.
    """
    with _open(raw) as sound, RowWriter(out, (), np.int16) as writer:
        announced = round(sound.announced_s * rate_hz)
        track = _Track(writer, rate_hz, sound.name, longest_holes_s=sound.longest_holes_s)
        for at, samples in sound.pieces(rate_hz):
            track.put(at, samples)
            progress(track.done, max(track.done, announced))
        track.finish()
        # holes are no pauses in a file that states its length
        sound.check_whole(track.heard / rate_hz, max_bad_share=max_bad_share)
        if not track.done:
            raise BadBatchError(f"{sound.name}: holds no sound (0 samples). {ADVICE}")
        return track.described(sound, raw.start_s)


@contextlib.contextmanager
def _open(raw: RawAudio) -> Iterator[Sound]:
    if raw.clips:
        yield ClipSource(raw)
        return
    with AudioSource(raw.path, declared_hz=raw.rate_hz) as source:
        yield source


class _Track:
    """Puts samples where their time wants them, a block at a time."""

    def __init__(
        self, writer: RowWriter, rate_hz: int, name: str, *, longest_holes_s: float
    ) -> None:
        self._writer = writer
        self._meter = LoudnessMeter(rate_hz)
        self._rate_hz = rate_hz
        self._name = name
        self._longest_holes_s = longest_holes_s
        self._waiting: list[Samples] = []
        self._waiting_count = 0
        self._first = 0
        self._holes: list[tuple[int, int]] = []  # from the first sample
        self._clipped = 0
        self.done = 0  # samples put, holes included
        self.heard = 0

    def put(self, at: int, samples: Samples) -> None:
        """`at` counts from the clock's zero."""
        if not self.done:
            self._first = max(at, 0)
        at -= self._first
        if at > self.done:
            self._fill(at)
        samples = samples[self.done - at :]
        self.heard += samples.size
        self._append(samples)

    def finish(self) -> None:
        """Write what waits for a block to be full."""
        block = np.concatenate([np.zeros(0, np.int16), *self._waiting])
        self._waiting, self._waiting_count = [], 0
        self._clipped += int(((block >= LOUD) | (block <= -LOUD)).sum())
        self._writer.extend(block)
        self._meter.feed(block)

    def described(self, sound: Sound, zero_s: float) -> DecodedAudio:
        start_s = zero_s + self._first / self._rate_hz
        levels_db, first = self._meter.levels_db(), self._meter.first_samples()
        begun, ended = np.array([*self._holes, (self.done, self.done)]).T
        next_hole = np.minimum(np.searchsorted(ended, first, side="right"), len(self._holes))
        whole = first + self._meter.window <= begun[next_hole]
        silent = (levels_db <= FLOOR_DB).all(axis=1)
        return DecodedAudio(
            rate_hz=self._rate_hz,
            samples=self.done,
            start_s=start_s,
            loudness=levels_db[whole],
            loudness_s=start_s + (first[whole] + self._meter.window / 2) / self._rate_hz,
            holes=tuple(
                (start_s + first_lost / self._rate_hz, start_s + first_heard / self._rate_hz)
                for first_lost, first_heard in self._holes
            ),
            lost_packets=sound.lost_packets,
            clipped_share=self._clipped / self.done,
            silent_share=float(silent.mean()) if silent.size else 0.0,
            file_rate_hz=sound.rate_hz,
        )

    def _fill(self, until: int) -> None:
        if until - self.done > JOIN_S * self._rate_hz:
            self._holes.append((self.done, until))
        missing = until - self.heard
        if missing > max(self.heard, self._longest_holes_s * self._rate_hz):
            raise BadBatchError(
                f"{self._name}: holes of {missing / self._rate_hz:.0f} s in "
                f"{self.heard / self._rate_hz:.1f} s of sound; {self._longest_holes_s:.0f} s, or "
                "as much as there is sound, are allowed. Split the delivery where the recording "
                "paused."
            )
        while self.done < until:
            self._append(np.zeros(min(BLOCK, until - self.done), np.int16))

    def _append(self, samples: Samples) -> None:
        self._waiting.append(samples)
        self._waiting_count += samples.size
        self.done += samples.size
        if self._waiting_count >= BLOCK:
            self.finish()
