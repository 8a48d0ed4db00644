"""Masks that came with a delivery, cut and resized as its pictures are, and never mixed."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosswatch.data.frames import Rows
from crosswatch.data.video.decode import Pictures, Plan
from crosswatch.errors import BadBatchError

UNKNOWN = 255
"""A pixel of which nobody says what it shows."""
Mask = npt.NDArray[np.uint8]


def write_masks(
    masks: Pictures,
    plan: Plan,
    out: Path,
    *,
    size_px: tuple[int, int],
    frame_px: int,
    crop_xywh_px: tuple[int, ...] | None,
    classes: int,
) -> None:
    """One mask for each planned frame; where one is missing, nothing is known.

    Raises:
        BadBatchError: a mask is not as large as its picture, or names a class that there is not.
    """
    x, y, width, height = crop_xywh_px or (0, 0, *size_px)
    empty = {int(at): frame for frame, at in enumerate(plan.sources)}
    with out.open("w+b") as stream:
        rows = Rows(stream, (len(empty), frame_px, frame_px), np.uint8)
        for at, mask in masks:
            _check(mask, at, size_px=size_px, classes=classes)
            if (frame := empty.pop(at, None)) is not None:
                rows.put(frame, _resized(mask[y : y + height, x : x + width], frame_px))
        for frame in empty.values():
            rows.put(frame, np.full((frame_px, frame_px), UNKNOWN, np.uint8))


def _resized(mask: Mask, frame_px: int) -> Mask:
    """The nearest pixel: a mean of two classes is neither."""
    import cv2

    size = (frame_px, frame_px)
    return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


def _check(mask: Mask, at: int, *, size_px: tuple[int, int], classes: int) -> None:
    height, width = mask.shape
    if (width, height) != size_px:
        raise BadBatchError(
            f"masks: the mask of frame {at} is {width}x{height}, its picture "
            f"{size_px[0]}x{size_px[1]}. Deliver masks as large as the pictures."
        )
    strange = mask[(mask >= classes) & (mask != UNKNOWN)]
    if strange.size:
        raise BadBatchError(
            f"masks: the mask of frame {at} holds class {strange[0]}; ingest.classes are "
            f"{classes}, counted from 0, and {UNKNOWN} is unknown. Correct the masks."
        )
