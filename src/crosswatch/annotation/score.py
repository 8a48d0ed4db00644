"""How good propagated boxes are, judged by the expert's own keyframes.

Each keyframe that has a neighbour on both sides is left out once; the box propagated to its instant
from the others is held against what the expert drew there.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crosswatch.annotation.propagate import assign, interpolate
from crosswatch.records import Event, Keyframe


def mask_iou(first: npt.NDArray[np.uint8], second: npt.NDArray[np.uint8]) -> float:
    """Intersection over union of two masks (non-zero is inside); NaN where both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else float("nan")


def box_iou(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> float:
    """Intersection over union of two boxes x1, y1, x2, y2."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    shared = float(np.prod(np.maximum(sides, 0.0)))
    areas = [float(np.prod(np.maximum(box[2:] - box[:2], 0.0))) for box in (first, second)]
    union = sum(areas) - shared
    return shared / union if union > 0 else float("nan")


def held_out_iou(events: Sequence[Event], keyframes: Sequence[Keyframe]) -> list[float]:
    """IoU of propagated and drawn box at every keyframe that stands between two others."""
    found = []
    for group in assign(events, keyframes)[1]:
        for at in range(1, len(group) - 1):
            times = np.array([group[at].time_s])
            guessed = interpolate(times, group[:at] + group[at + 1 :])[0]
            found.append(box_iou(guessed, interpolate(times, [group[at]])[0]))
    return found
