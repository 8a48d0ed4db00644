"""Clips: spans of a batch that are decided about as a whole.

Of batches that were recorded in one go a clip is a stretch of a given length; of batches that are
collections of recordings it is a recording.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from crosswatch.data.batches import Batch, BatchSet
from crosswatch.errors import UserError
from crosswatch.records import Block

TIMING_S = 1e-6  # rounding of times


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipsConfig:
    """How a batch is cut into clips; models of windows do not look at it."""

    length_s: float = 10.0  # 0: every recording as a whole
    step_s: float = 5.0  # between beginnings, for training; otherwise clips lie end to end
    least_event_s: float = 1.0  # an event counts where so much of it, or all, lies in the clip
    crops: Literal["all", "first"] = "all"  # of cropped pictures, in training; else the first

    def __post_init__(self) -> None:
        if self.length_s < 0 or self.step_s <= 0 or self.least_event_s < 0:
            raise UserError(
                f"length_s {self.length_s} and least_event_s {self.least_event_s} may not be "
                f"negative, and step_s {self.step_s} has to be above 0"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipTable:
    """N clips of one batch.

    Attributes:
        start_s, stop_s: from and until when, float64 (N,), reference clock; start <= t < stop.
        segment: which recording, or stretch without a hole, a clip lies in (N,).
        lasts_NK: how many seconds of each class lie in it (N, K), float64; of normal (0): what
            nothing else fills.
        occurs_NK: which classes count (N, K), bool; normal where no other does.
    """

    start_s: npt.NDArray[np.float64]
    stop_s: npt.NDArray[np.float64]
    segment: npt.NDArray[np.int64]
    lasts_NK: npt.NDArray[np.float64]
    occurs_NK: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.start_s)

    @property
    def class_of(self) -> npt.NDArray[np.int64]:
        """The class (N,) that lasts longest of those that count."""
        found: npt.NDArray[np.int64] = np.where(self.occurs_NK, self.lasts_NK, -1.0).argmax(axis=1)
        return found


def clip_table(batch: Batch, batch_set: BatchSet, clips: ClipsConfig, block: Block) -> ClipTable:
    """The clips of one block of the split, none of which reaches out of it.

    Raises:
        UserError: an event is of a class that the batch set does not know.
    """
    step_s = clips.step_s if block == "train" else clips.length_s
    spans = [
        (start_s, stop_s, number)
        for item in batch_set.ranges_of(batch)
        if item.block == block
        for number, segment in enumerate(batch.segments)
        for start_s, stop_s in _cut(segment, (item.start_s, item.stop_s), clips.length_s, step_s)
    ]
    table = np.array(spans, np.float64).reshape(-1, 3)
    start_s, stop_s = table[:, 0], table[:, 1]
    lasts_NK, occurs_NK = _events_in(batch, batch_set.classes, start_s, stop_s, clips)
    return ClipTable(
        start_s=start_s,
        stop_s=stop_s,
        segment=table[:, 2].astype(np.int64),
        lasts_NK=lasts_NK,
        occurs_NK=occurs_NK,
    )


def _cut(
    segment: tuple[float, float], block: tuple[float, float], length_s: float, step_s: float
) -> list[tuple[float, float]]:
    start_s, stop_s = max(segment[0], block[0]), min(segment[1], block[1])
    if length_s == 0:
        # A recording is in one block or in none; its last instant counts.
        whole = block[0] - TIMING_S <= segment[0] and segment[1] <= block[1] + TIMING_S
        return [(segment[0], segment[1] + TIMING_S)] if whole else []
    count = max(int(np.floor((stop_s - start_s - length_s) / step_s + 1e-9)) + 1, 0)
    begin_s = [start_s + n * step_s for n in range(count + 1)]
    if step_s == length_s:  # end to end: to the last bit
        return list(itertools.pairwise(begin_s))
    return [(begun_s, begun_s + length_s) for begun_s in begin_s[:count]]


def _events_in(
    batch: Batch,
    classes: Sequence[str],
    start_s: npt.NDArray[np.float64],
    stop_s: npt.NDArray[np.float64],
    clips: ClipsConfig,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    def inside_s(onset_s: float, offset_s: float) -> npt.NDArray[np.float64]:
        found: npt.NDArray[np.float64] = np.minimum(stop_s, offset_s) - np.maximum(start_s, onset_s)
        return np.maximum(found, 0.0)

    lasts_NK = np.zeros((len(start_s), len(classes)))
    occurs_NK = np.zeros((len(start_s), len(classes)), bool)
    filled_s = np.zeros(len(start_s))
    until_s = np.full(len(classes), -np.inf)  # of each class counted so far: what overlaps is once
    for event in sorted(batch.events, key=lambda event: event.onset_s):
        if event.class_name not in classes:
            raise UserError(
                f"batch {batch.id}: has an event of class {event.class_name!r}; known are "
                f"{', '.join(classes)}. Add it to ingest.classes."
            )
        k = classes.index(event.class_name)
        whole_s = inside_s(event.onset_s, event.offset_s)
        least_s = min(clips.least_event_s, event.offset_s - event.onset_s)
        occurs_NK[:, k] |= (whole_s >= least_s - TIMING_S) & (whole_s > 0)
        lasts_NK[:, k] += inside_s(max(event.onset_s, until_s[k]), event.offset_s)
        if k:
            filled_s += inside_s(max(event.onset_s, until_s[1:].max()), event.offset_s)
        until_s[k] = max(until_s[k], event.offset_s)
    occurs_NK[:, 0] = ~occurs_NK[:, 1:].any(axis=1)
    lasts_NK[:, 0] = np.maximum(stop_s - start_s - filled_s, 0.0)
    return lasts_NK, occurs_NK
