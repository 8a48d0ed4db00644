"""Turn a coarse box into a mask that follows the picture's edges.

A weighted median filter moves the border of the box to where the grey frame changes (Zhang, Xu and
Jia, "100+ Times Faster Weighted Median Filter", CVPR 2014; used so by the FmFormer benchmark, which
gives no parameters). Weights are exp(-(g_p - g_q)^2 / (2 sigma^2)).
"""

import dataclasses
import math
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from crosswatch.data.video.masks import (
    UNKNOWN as UNKNOWN,  # also: a pixel of an event without a box
)
from crosswatch.errors import UserError

SIGMA = 25.5  # grey levels; OpenCV 5.0 takes any other value and uses this one all the same

Mask = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefineConfig:
    masks: Literal["window_ends", "all", "none"] = "window_ends"
    radius_share: float = 0.11  # of the shorter side: 7 px at 64 px
    iterations: int = 1
    leak_scale: float = 1.25  # the mask stays inside the box grown by this factor

    def __post_init__(self) -> None:
        if not 0 < self.radius_share < 0.5 or self.leak_scale < 1:
            raise UserError(
                f"radius_share {self.radius_share} lies in (0, 0.5), "
                f"leak_scale {self.leak_scale} at 1 or above"
            )
        if not 0 <= self.iterations <= 10:
            raise UserError(f"iterations is {self.iterations}; allowed 0 to 10")


def box_mask(corners: npt.NDArray[np.float32], height: int, width: int) -> Mask:
    """1 inside the box (pixel centres), 0 outside."""
    x1, y1, x2, y2 = (float(side) for side in corners)
    columns, rows = np.arange(width) + 0.5, np.arange(height) + 0.5
    inside = ((rows >= y1) & (rows <= y2))[:, None] & ((columns >= x1) & (columns <= x2))
    return inside.astype(np.uint8)


def bounds_of(masks: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Corners (T, 4) of what is marked in each of masks (T, H, W); NaN where nothing is."""
    corners = np.full((len(masks), 4), np.nan, np.float32)
    for at, mask in enumerate(masks):
        marked = (mask != 0) & (mask != UNKNOWN)
        columns, rows = np.flatnonzero(marked.any(axis=0)), np.flatnonzero(marked.any(axis=1))
        if columns.size:
            corners[at] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return corners


def refine_mask(
    frame: npt.NDArray[np.uint8], corners: npt.NDArray[np.float32], config: RefineConfig
) -> Mask:
    """The refined mask (H, W) of 0 and 1 for an RGB frame (H, W, 3) and a box x1, y1, x2, y2."""
    height, width = frame.shape[:2]
    radius = max(1, round(config.radius_share * min(height, width)))
    grown = _grow(corners, config.leak_scale)
    top, bottom = _clip(grown[1] - radius, grown[3] + radius, height)
    left, right = _clip(grown[0] - radius, grown[2] + radius, width)
    if top >= bottom or left >= right:
        return np.zeros((height, width), np.uint8)
    grey = cv2.cvtColor(np.ascontiguousarray(frame[top:bottom, left:right]), cv2.COLOR_RGB2GRAY)
    label = box_mask(corners, height, width)[top:bottom, left:right] * 255
    for _ in range(config.iterations):
        label = cv2.ximgproc.weightedMedianFilter(grey, label, radius, SIGMA)
    mask = np.zeros((height, width), np.uint8)
    mask[top:bottom, left:right] = label > 127
    return mask * box_mask(grown, height, width)


def _grow(corners: npt.NDArray[np.float32], scale: float) -> npt.NDArray[np.float32]:
    centre = (corners[:2] + corners[2:]) / 2
    half = (corners[2:] - corners[:2]) / 2 * scale
    return np.concatenate([centre - half, centre + half])


def _clip(low: float, high: float, size: int) -> tuple[int, int]:
    return max(0, math.floor(low)), min(size, math.ceil(high))
