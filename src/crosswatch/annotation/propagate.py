"""Carry an expert's keyframe boxes to every frame of an event.

The paper (FmFormer, section on the benchmark) says only that boxes are propagated between adjacent
keyframes; here corners move linearly, and the nearest box holds before the first and after the last
keyframe of an event. No box ever crosses from one event into another.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crosswatch.records import Event, Keyframe

EXPERT_TOLERANCE_S = 0.5  # a keyframe may lie this far outside its event's noted span


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameBoxes:
    """A box and a class per frame.

    Attributes:
        corners: float32 (T, 4) as x1, y1, x2, y2 in pixels; NaN where there is no box.
        classes: uint8 (T,), index into the class names; 0 is normal.
        boxless_events: events whose span holds no keyframe: a class without a place.
    """

    corners: npt.NDArray[np.float32]
    classes: npt.NDArray[np.uint8]
    boxless_events: int


def propagate(
    times: npt.NDArray[np.float64],
    events: Sequence[Event],
    keyframes: Sequence[Keyframe],
    classes: Sequence[str],
) -> FrameBoxes:
    """Boxes at `times` (s). Where events overlap, the one that began last is shown."""
    corners = np.full((len(times), 4), np.nan, np.float32)
    labels = np.zeros(len(times), np.uint8)
    boxless = 0
    for event, mine in zip(*assign(events, keyframes), strict=True):
        inside = (times >= event.onset_s) & (times <= event.offset_s)
        labels[inside] = classes.index(event.class_name)
        corners[inside] = np.nan
        if mine:
            corners[inside] = interpolate(times[inside], mine)
        else:
            boxless += 1
    return FrameBoxes(corners=corners, classes=labels, boxless_events=boxless)


def assign(
    events: Sequence[Event], keyframes: Sequence[Keyframe]
) -> tuple[list[Event], list[list[Keyframe]]]:
    """Events by onset, and the keyframes of each; a keyframe serves the one event nearest to it."""
    ordered = sorted(events, key=lambda event: event.onset_s)
    groups: list[list[Keyframe]] = [[] for _ in ordered]
    for keyframe in sorted(keyframes, key=lambda frame: frame.time_s):
        distances = [_distance_s(event, keyframe) for event in ordered]
        if distances and min(distances) <= EXPERT_TOLERANCE_S:
            groups[distances.index(min(distances))].append(keyframe)
    return ordered, groups


def interpolate(
    times: npt.NDArray[np.float64], keyframes: Sequence[Keyframe]
) -> npt.NDArray[np.float32]:
    """Corners (T, 4) at `times` between keyframes sorted by time."""
    known_s = np.array([frame.time_s for frame in keyframes])
    known = np.array([_corners(frame) for frame in keyframes])
    sides = [np.interp(times, known_s, known[:, side]) for side in range(4)]
    return np.stack(sides, axis=1).astype(np.float32)


def _distance_s(event: Event, keyframe: Keyframe) -> float:
    if event.class_name != keyframe.class_name:
        return float("inf")
    return max(event.onset_s - keyframe.time_s, keyframe.time_s - event.offset_s, 0.0)


def _corners(keyframe: Keyframe) -> tuple[float, float, float, float]:
    x, y, width, height = keyframe.box_xywh_px
    return x, y, x + width, y + height
