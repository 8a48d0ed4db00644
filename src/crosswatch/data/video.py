"""Decoding: from any file PyAV reads to small frames on disk, in memory that does not grow."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.data.frames import FrameWriter
from crosswatch.errors import BadBatchError

CELLS = 8
"""Brightness is kept on this many by this many cells of the whole picture, for the clocks."""
ADVICE = "Deliver the batch again."
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawVideo:
    """A video as it arrived; without a times file its own presentation times count."""

    path: Path
    times_s: npt.NDArray[np.float64] | None
    rate_hz: float
    clock: str = "camera"
    times_name: str = "video times"  # for errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Which pictures of the file become frames, known before the first is decoded."""

    pts: npt.NDArray[np.int64]  # presentation times in the file's units; empty where it has none
    times_s: npt.NDArray[np.float64]  # of every picture, on the camera's clock
    kept: npt.NDArray[np.bool_]
    missing: int  # times without a picture at the end of the file

    @property
    def doubled(self) -> int:
        return int((~self.kept).sum())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoded:
    """What decoding found out beside the frames that it wrote."""

    times_s: npt.NDArray[np.float64]  # of the frames written, on the camera's clock
    brightness: npt.NDArray[np.float32]  # (T, CELLS * CELLS) grey levels
    repaired: int
    size_px: tuple[int, int]  # width and height of the original pictures


def plan_frames(raw: RawVideo, *, max_bad_share: float) -> Plan:
    """Match the pictures with their times, and leave out the doubled ones.

    A camera that delivers a picture twice stamps it (nearly) twice with one time: a frame within
    a quarter of a period of the last says nothing new.

    Raises:
        BadBatchError: the file cannot be read, or is shorter or longer than its times by too much.
    """
    pts, unit_s = _presentation_times(raw.path)
    known = [at for at in pts if at is not None]
    ordered = np.array(sorted(known) if len(known) == len(pts) else [], np.int64)
    if raw.times_s is None:
        if not ordered.size:
            raise BadBatchError(
                f"{raw.path.name}: has no presentation times. Deliver a times file."
            )
        times_s = np.asarray(ordered * unit_s, np.float64)
    else:
        _check_length(raw, len(pts), max_bad_share=max_bad_share)
        times_s = raw.times_s[: len(pts)]
        ordered = ordered[: times_s.size]
    if times_s.size < 2:
        raise BadBatchError(f"{raw.path.name}: holds {times_s.size} frames; at least 2 are needed.")
    return Plan(
        pts=ordered,
        times_s=times_s,
        kept=_advancing(times_s, least_s=0.25 / raw.rate_hz),
        missing=0 if raw.times_s is None else max(0, raw.times_s.size - len(pts)),
    )


def decode(
    raw: RawVideo,
    plan: Plan,
    out: Path,
    *,
    frame_px: int,
    crop_xywh_px: tuple[int, ...] | None,
    max_bad_share: float,
    progress: Progress,
) -> Decoded:
    """Write the kept frames; a picture that cannot be decoded repeats the one before it.

    Raises:
        BadBatchError: too many pictures cannot be decoded, or the crop lies outside of them.
    """
    total = plan.times_s.size
    size_px: tuple[int, int] | None = None
    with FrameWriter(out, (frame_px, frame_px, 3)) as writer:
        track = _Track(writer, plan)
        for at, picture in _pictures(raw.path, plan):
            size_px = size_px or _size(picture, crop_xywh_px, raw.path.name)
            track.put(at, *_shrink(picture, frame_px, crop_xywh_px))
            progress(track.done, total)
        track.finish()
    _check_bad(raw.path.name, track.repaired, total, max_bad_share=max_bad_share)
    assert size_px is not None, "_check_bad refuses a video without a single picture"
    return Decoded(
        times_s=plan.times_s[plan.kept],
        brightness=track.brightness[plan.kept],
        repaired=track.repaired,
        size_px=size_px,
    )


class _Track:
    """Fills the positions of a plan in order; one that is skipped repeats its predecessor."""

    def __init__(self, writer: FrameWriter, plan: Plan) -> None:
        self._writer = writer
        self._kept = plan.kept
        self._last: tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]] | None = None
        self.brightness = np.zeros((plan.times_s.size, CELLS * CELLS), np.float32)
        self.done = 0
        self.repaired = 0

    def put(self, at: int, frame: npt.NDArray[np.uint8], cells: npt.NDArray[np.float32]) -> None:
        self._repeat(at, *(self._last or (frame, cells)))  # nothing precedes the first picture
        self._store(frame, cells)
        self._last = frame, cells

    def finish(self) -> None:
        if self._last is None:
            self.repaired = len(self._kept)
        else:
            self._repeat(len(self._kept), *self._last)

    def _repeat(
        self, until: int, frame: npt.NDArray[np.uint8], cells: npt.NDArray[np.float32]
    ) -> None:
        self.repaired += until - self.done
        while self.done < until:
            self._store(frame, cells)

    def _store(self, frame: npt.NDArray[np.uint8], cells: npt.NDArray[np.float32]) -> None:
        self.brightness[self.done] = cells
        if self._kept[self.done]:
            self._writer.append(frame)
        self.done += 1


def _open(path: Path) -> Any:
    import av

    if path.stat().st_size == 0:
        raise BadBatchError(f"{path.name}: is empty (0 bytes). {ADVICE}")
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise BadBatchError(
            f"{path.name}: cannot be opened as a video: {_reason(error)}. The file is truncated or "
            f"no video ({path.stat().st_size} bytes). {ADVICE}"
        ) from error
    if not container.streams.video:
        container.close()
        raise BadBatchError(f"{path.name}: holds no video stream. {ADVICE}")
    return container


def _presentation_times(path: Path) -> tuple[list[int | None], float]:
    """One entry a picture, without decoding; None where the file does not say."""
    with _open(path) as container:
        stream = container.streams.video[0]
        packets = [
            (packet.pts, packet.is_discard) for packet in _packets(container, stream) if packet.size
        ]
        expected = int(stream.frames)
        unit_s = float(stream.time_base or 0)
    pts = [at for at, cut_away in packets if not cut_away]  # an edit list hides some
    if not pts:
        raise BadBatchError(f"{path.name}: holds no frames. {ADVICE}")
    if len(packets) < 0.99 * expected:
        raise BadBatchError(
            f"{path.name}: is truncated: {len(packets)} of the {expected} frames that it announces "
            f"are there; 99 % are needed. {ADVICE}"
        )
    return pts, unit_s


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets up to the first that cannot be read; the caller counts what is missing."""
    import av

    with contextlib.suppress(av.FFmpegError):
        yield from container.demux(stream)


def _pictures(path: Path, plan: Plan) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Position and RGB of every picture that can be decoded, in order of presentation."""
    import av

    last = -1
    with _open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for packet in _packets(container, stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:  # what is lost shows as a position that is never reached
                continue
            for frame in frames:
                at = last + 1
                if plan.pts.size and frame.pts is not None:
                    at = int(np.searchsorted(plan.pts, frame.pts))
                if last < at < plan.times_s.size and not frame.is_corrupt:
                    # one thread: handing out small pictures to more costs more than it brings
                    yield at, frame.to_ndarray(format="rgb24", threads=1)
                    last = at


def _shrink(
    picture: npt.NDArray[np.uint8], frame_px: int, crop_xywh_px: tuple[int, ...] | None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """The stored frame, and the brightness of the whole picture's cells."""
    import cv2

    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    cells = cv2.resize(grey, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    if crop_xywh_px is not None:
        x, y, width, height = crop_xywh_px
        picture = picture[y : y + height, x : x + width]
    frame = cv2.resize(picture, (frame_px, frame_px), interpolation=cv2.INTER_AREA)
    return np.asarray(frame, np.uint8), np.asarray(cells, np.float32).reshape(-1)


def _size(
    picture: npt.NDArray[np.uint8], crop_xywh_px: tuple[int, ...] | None, name: str
) -> tuple[int, int]:
    height, width = picture.shape[:2]
    if crop_xywh_px is not None:
        x, y, wide, high = crop_xywh_px
        if x + wide > width or y + high > height:
            raise BadBatchError(
                f"{name}: ingest.crop_xywh_px {list(crop_xywh_px)} reaches {x + wide}x{y + high}; "
                f"the pictures are {width}x{height}. Choose a crop inside them."
            )
    return width, height


def _advancing(times_s: npt.NDArray[np.float64], *, least_s: float) -> npt.NDArray[np.bool_]:
    return np.concatenate([[True], np.diff(times_s) >= least_s])


def _check_length(raw: RawVideo, pictures: int, *, max_bad_share: float) -> None:
    assert raw.times_s is not None
    rows = raw.times_s.size
    allowed = max(1, int(max_bad_share * rows))
    if abs(pictures - rows) > allowed:
        relation = "shorter" if pictures < rows else "longer"
        raise BadBatchError(
            f"{raw.path.name}: is {relation} than its times file: {pictures} frames, {rows} times; "
            f"a difference of {allowed} is allowed. {ADVICE}"
        )


def _check_bad(name: str, bad: int, total: int, *, max_bad_share: float) -> None:
    allowed = max(1, int(max_bad_share * total))
    if bad > allowed or bad >= total:
        raise BadBatchError(
            f"{name}: {bad} of {total} frames cannot be decoded; allowed {allowed}. {ADVICE}"
        )


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
