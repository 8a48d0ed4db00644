"""Which of the stored frames are looked at, and how long each of them stands for."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from crosswatch.data.batches import Batch
from crosswatch.data.windows import nearest
from crosswatch.features.encoder import Spans
from crosswatch.features.pictures.frames import recordings
from crosswatch.features.settings import SelectionConfig
from crosswatch.features.source import Source

Frames = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

BLOCK_BYTES = 16 << 20  # frames in memory at once
LEVELS = 16
"""Of each colour. A pixel between two counts for both by its distance: were it counted for the
nearer alone, noise could move a flat picture from one to the other as a whole."""
THUMBNAIL_PX = 16


def choose_frames(source: Source, config: SelectionConfig) -> Frames:
    """Indices of stored frames, rising; none without video.

    The first of every recording is always among them, so that each instant has one. Apart from it,
    times are kept to within half a frame:

    - uniform: the nearest to every `every_s`, counted from the recording's first;
    - keyframe: those that the codec coded on their own, at least `every_s` apart;
    - scene: those whose colours moved by `scene_change` since the last one chosen (half the sum of
      the differences between two histograms, 0 to 1), at least `every_s` apart.

    Of these, one that is nearly the same as the last one kept is left out.

    Raises:
        BadBatchError: keyframe, and the original is gone or was changed.
        UserError: keyframe, and the original is no video file.
    """
    if config not in source.found_out:
        source.found_out[config] = _choose(source, config)
    return np.asarray(source.found_out[config], np.int64)


def spans_of(source: Source, frames: Frames) -> Spans:
    """(N, 2): from each frame's time until the next one's in its recording, or the recording's end.

    Args:
        frames: rising indices of stored frames that lie in a recording.
    """
    if not frames.size:
        return np.empty((0, 2), np.float64)
    times_s, bounds = _times(source.batch), recordings(source.batch)
    behind = np.array([behind for _, behind in bounds])
    inside = np.searchsorted(behind, frames, side="right")
    until_s = np.array([stop_s for _, stop_s in source.batch.segments])[inside]
    goes_on = inside[1:] == inside[:-1]
    until_s[:-1][goes_on] = times_s[frames[1:][goes_on]]
    return np.column_stack([times_s[frames], until_s])


def _choose(source: Source, config: SelectionConfig) -> Frames:
    batch = source.batch
    if batch.frames is None:
        return np.empty(0, np.int64)
    keyframes = _stored_keyframes(source) if config.by == "keyframe" else np.empty(0, np.int64)
    chosen: list[Frames] = []
    for first, behind in recordings(batch):
        if first == behind:
            continue
        if config.by == "uniform":
            found = _evenly(_times(batch)[first:behind], config.every_s) + first
        elif config.by == "keyframe":
            inside = keyframes[(keyframes > first) & (keyframes < behind)]
            found = _apart(batch, np.append(first, inside), config.every_s)
        else:
            found = _scenes(batch, first, behind, config)
        chosen.append(_without_duplicates(batch, found, config.duplicate))
    return np.concatenate([np.empty(0, np.int64), *chosen])


def _times(batch: Batch) -> npt.NDArray[np.float64]:
    assert batch.frame_times is not None, "frames have times"
    return np.asarray(batch.frame_times)


def _evenly(times_s: npt.NDArray[np.float64], every_s: float) -> Frames:
    if times_s.size == 1:
        return np.zeros(1, np.int64)
    count = int((times_s[-1] - times_s[0]) / every_s + 1e-6) + 1
    return np.unique(nearest(times_s, times_s[0] + every_s * np.arange(count)))


def _stored_keyframes(source: Source) -> Frames:
    sources = np.load(source.batch.folder / "frame_sources.npy", allow_pickle=False)
    return np.flatnonzero(np.isin(sources, source.original.keyframes()))


def _least_s(batch: Batch, every_s: float) -> float:
    """Another clock's seconds differ a little: what is every_s apart there has to be so here."""
    return every_s - 0.5 / batch.video_rate_hz


def _apart(batch: Batch, frames: Frames, every_s: float) -> Frames:
    times_s, least_s = _times(batch)[frames], _least_s(batch, every_s)
    taken = [0]
    while True:
        at = max(taken[-1] + 1, int(np.searchsorted(times_s, times_s[taken[-1]] + least_s)))
        if at >= frames.size:
            return frames[taken]
        taken.append(at)


def _scenes(batch: Batch, first: int, behind: int, config: SelectionConfig) -> Frames:
    times_s, least_s = _times(batch), _least_s(batch, config.every_s)
    taken, last = [first], np.empty(0, np.float32)
    for start, pictures in _blocks(batch, np.arange(first, behind)):
        colours = np.stack([_colours(picture) for picture in pictures])
        if start == 0:
            last = colours[0]
        at = 1 if start == 0 else 0
        while at < len(colours):
            here = first + start
            soonest = int(np.searchsorted(times_s, times_s[taken[-1]] + least_s)) - here
            at = max(at, soonest)
            moved = 0.5 * np.abs(colours[at:] - last).sum(axis=1) > config.scene_change
            if not moved.any():
                break
            at += int(np.argmax(moved))
            taken.append(here + at)
            last = colours[at]
            at += 1
    return np.array(taken, np.int64)


def _colours(picture: npt.NDArray[np.uint8]) -> Floats:
    """Histogram of all three colours one behind the other; sums to 1."""
    import cv2

    counts = [cv2.calcHist([picture], [colour], None, [256], [0, 256]) for colour in range(3)]
    shares = np.concatenate([_SHARED @ count.ravel() for count in counts])
    return np.asarray(shares / shares.sum(), np.float32)


def _shared_levels() -> Floats:
    """(LEVELS, 256): how much a value counts for each level."""
    centres = np.linspace(0, 255, LEVELS)[:, None]
    off = np.abs(np.arange(256) - centres) / (centres[1, 0] - centres[0, 0])
    return np.asarray(np.clip(1 - off, 0, 1), np.float32)


_SHARED = _shared_levels()


def _without_duplicates(batch: Batch, frames: Frames, least: float) -> Frames:
    """The first, and each that differs from the last one kept by `least` of the range of grey."""
    if least == 0:
        return frames
    kept, last = [0], np.empty(0, np.float32)
    for start, pictures in _blocks(batch, frames):
        for at, picture in enumerate(pictures, start=start):
            seen = _thumbnail(picture)
            if at == 0:
                last = seen
            elif np.abs(seen - last).mean() >= least:
                kept.append(at)
                last = seen
    return frames[kept]


def _thumbnail(picture: npt.NDArray[np.uint8]) -> Floats:
    """Grey in [0, 1], small enough that noise is gone."""
    import cv2

    height, width = (min(THUMBNAIL_PX, side) for side in picture.shape[:2])
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small / 255, np.float32)


def _blocks(batch: Batch, frames: Frames) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """Which of the frames a block begins with, and its pictures."""
    assert batch.frames is not None
    count = max(1, BLOCK_BYTES // int(np.prod(batch.frames.shape[1:])))
    for start in range(0, frames.size, count):
        yield start, np.asarray(batch.frames[frames[start : start + count]])
