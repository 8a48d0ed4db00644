"""Pictures to small frames on disk, in order of time and in memory that does not grow."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from crosswatch.data.frames import Rows
from crosswatch.data.sync.evidence import VideoFeature
from crosswatch.data.video.container import Contents, read_contents, read_pictures
from crosswatch.data.video.shrink import Array, Shrinker
from crosswatch.errors import ADVICE, BadBatchError

Progress = Callable[[int, int], None]


class Pictures(Protocol):
    """Pictures that come from no video file: stills in a folder, an array, many clips in a row."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """Position and RGB (H, W, 3) in order; a picture that cannot be read is left out."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawVideo:
    """A video as it arrived; without a times file its own presentation times count."""

    path: Path  # the file, or what names `pictures` in errors
    times_s: npt.NDArray[np.float64] | None
    rate_hz: float
    clock: str = "camera"
    times_name: str = "video times"  # for errors
    pictures: Pictures | None = None  # instead of a file; needs times_s
    pieces: npt.NDArray[np.int64] | None = None  # resets of the clock before each picture
    triggers_s: npt.NDArray[np.float64] | None = None  # pulses seen by this clock
    reordered: int = 0  # rows that came out of order
    rollovers: int = 0  # of the counter that its clock is


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Which pictures become frames and in which order, known before the first is decoded.

    Pictures are counted in order of presentation, frames in order of time: piece by piece of a
    clock that was reset, and within a piece as the stamps say.
    """

    contents: Contents
    sources: npt.NDArray[np.int64]  # (T,) the picture that each frame shows
    times_s: npt.NDArray[np.float64]  # (T,) on the camera's clock
    pieces: npt.NDArray[np.int64]  # (T,) resets of the clock before each frame
    stamped: int  # pictures that have a time
    missing: int  # times without a picture at the end of the file

    @property
    def doubled(self) -> int:
        return self.stamped - self.sources.size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoded:
    """What decoding found out beside the frames that it wrote."""

    times_s: npt.NDArray[np.float64]  # (T,) of the frames written, on the camera's clock
    pieces: npt.NDArray[np.int64]  # (T,) resets of that clock before each frame
    sources: npt.NDArray[np.int64]  # (T,) the picture that each frame shows
    series: npt.NDArray[np.float32] | None  # (T, K) what the feature saw in them; lies on disk
    repaired: int
    size_px: tuple[int, int]  # width and height of the original pictures


def plan_frames(raw: RawVideo, *, max_bad_share: float) -> Plan:
    """Match the pictures with their times, put them in order, and leave out the doubled ones.

    A camera that delivers a picture twice stamps it (nearly) twice with one time: a frame within
    a quarter of a period of the last says nothing new.

    Raises:
        BadBatchError: the file cannot be read, or is shorter or longer than its times by too much.
    """
    contents = read_contents(raw.path) if raw.pictures is None else _counted(raw)
    if raw.times_s is None:
        if contents.unstamped:
            raise BadBatchError(
                f"{raw.path.name}: {contents.unstamped} of {contents.count} frames have no "
                "presentation time; each needs one. Deliver a times file."
            )
        times_s = contents.times_s()
        pieces = contents.pieces() if contents.joints else None
    else:
        _check_length(raw, contents.count, max_bad_share=max_bad_share)
        times_s = raw.times_s[: contents.count]
        pieces = None if raw.pieces is None else raw.pieces[: contents.count]
    if times_s.size < 2:
        raise BadBatchError(f"{raw.path.name}: holds {times_s.size} frames; at least 2 are needed.")
    if pieces is None:
        pieces = np.broadcast_to(np.int64(0), times_s.shape)  # takes no memory
    sources = _in_order(times_s, pieces, least_s=0.25 / raw.rate_hz)
    return Plan(
        contents=contents,
        sources=sources,
        times_s=times_s[sources],
        pieces=pieces[sources] if pieces.strides[0] else pieces[: sources.size],
        stamped=times_s.size,
        missing=0 if raw.times_s is None else max(0, raw.times_s.size - contents.count),
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
    feature: VideoFeature | None = None,
) -> Decoded:
    """Write the planned frames; one that cannot be decoded repeats the frame before it.

    Raises:
        BadBatchError: too many pictures cannot be decoded, or the crop lies outside of them.
    """
    shrinker = Shrinker(frame_px=frame_px, crop_xywh_px=crop_xywh_px, name=raw.path.name)
    done = 0
    size_px: tuple[int, int] | None = None
    with out.open("w+b") as stream, tempfile.TemporaryFile(dir=out.parent) as nameless:
        track = _Track(plan, stream, nameless, frame_px)
        for at, picture in _pictures(raw, plan):
            done += 1
            size_px = size_px or _size(picture)
            if (frame := track.place_of(at)) is not None:
                small, grey = shrinker(picture, grey=feature is not None)
                track.put(frame, small)
                if feature is not None and grey is not None:
                    track.put_seen(frame, feature.see(grey))
            progress(done, plan.stamped)
        repaired = plan.stamped - done
        bad = repaired if track.begun else plan.stamped
        _check_bad(raw.path.name, bad, plan.stamped, max_bad_share=max_bad_share)
        sources = track.filled()
        series = track.series
    assert size_px is not None, "_check_bad refuses a video without a single picture"
    return Decoded(
        times_s=plan.times_s,
        pieces=plan.pieces,
        sources=sources,
        series=series,
        repaired=repaired,
        size_px=size_px,
    )


class _Track:
    """Puts frames and their features where the plan wants them, and fills what stayed empty."""

    def __init__(self, plan: Plan, stream: IO[bytes], nameless: IO[bytes], frame_px: int) -> None:
        count = plan.sources.size
        self._sources = plan.sources
        self._place = np.full(plan.stamped, -1, np.int32)
        self._place[plan.sources] = np.arange(count, dtype=np.int32)
        self._there = np.zeros(count, np.bool_)
        self._frames = Rows(stream, (count, frame_px, frame_px, 3), np.uint8)
        self._nameless = nameless
        self._series: Rows | None = None

    def place_of(self, at: int) -> int | None:
        """The frame that shows this picture; None for a doubled one."""
        frame = int(self._place[at])
        return None if frame < 0 else frame

    def put(self, frame: int, small: Array) -> None:
        self._frames.put(frame, small)
        self._there[frame] = True

    def put_seen(self, frame: int, numbers: npt.NDArray[np.float32]) -> None:
        if self._series is None:
            shape = (self._there.size, *numbers.shape)
            self._series = Rows(self._nameless, shape, np.float32)
        self._series.put(frame, numbers)

    @property
    def begun(self) -> bool:
        return bool(self._there.any())

    def filled(self) -> npt.NDArray[np.int64]:
        """The picture that each frame shows, now that none is missing."""
        if self._there.all():
            return self._sources
        shown = np.maximum.accumulate(np.where(self._there, np.arange(self._there.size), -1))
        shown[shown < 0] = np.argmax(self._there)  # nothing precedes the first picture
        for frame in np.flatnonzero(~self._there):
            for rows in filter(None, (self._frames, self._series)):
                rows.repeat(int(frame), int(shown[frame]))
        return self._sources[shown]

    @property
    def series(self) -> npt.NDArray[np.float32] | None:
        return None if self._series is None else self._series.mapped()


def _counted(raw: RawVideo) -> Contents:
    assert raw.pictures is not None
    assert raw.times_s is not None, "pictures do not say when they were taken"
    return Contents(count=len(raw.pictures))


def _pictures(raw: RawVideo, plan: Plan) -> Iterator[tuple[int, Any]]:
    """Each picture that has a time, once: a decoded frame, or RGB where there is no file."""
    if raw.pictures is None:
        for at, picture in read_pictures(raw.path, plan.contents):
            if at < plan.stamped:
                yield at, picture
        return
    last = -1
    for at, picture in raw.pictures:
        assert last < at < plan.contents.count, "pictures come in order, each once"
        assert picture.ndim == 3, "pictures are RGB"
        last = at
        if at < plan.stamped:
            yield at, picture


def _size(picture: Any) -> tuple[int, int]:
    if isinstance(picture, np.ndarray):
        return picture.shape[1], picture.shape[0]
    return picture.width, picture.height


def _in_order(
    times_s: npt.NDArray[np.float64], pieces: npt.NDArray[np.int64], *, least_s: float
) -> npt.NDArray[np.int64]:
    """The pictures piece by piece and by time, without those that come too soon after another."""
    order = np.lexsort((times_s, pieces))
    advance = np.diff(times_s[order], prepend=-np.inf) >= least_s
    advance |= np.diff(pieces[order], prepend=-1) > 0
    return np.asarray(order[advance], np.int64)


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
