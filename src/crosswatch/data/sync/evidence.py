"""What of a stream tells the time: a few numbers a picture, a number a sample, a band of sound.

Two streams can be aligned when something in the one follows something in the other. What that is
depends on the process: a flame is brighter when the arc draws more, a camera on a vehicle sees the
world pass by when it steers. So both sides are chosen by name (`sync.video`, `sync.signal`).

A video feature sees successive grey pictures, at most `GREY_PX` on their longer side, of the whole
picture also where a crop is stored. Shapes: (K,) numbers a picture, (S, C) samples.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from crosswatch.errors import BadBatchError

Grey = npt.NDArray[np.uint8]
Cells = npt.NDArray[np.float32]
Series = npt.NDArray[np.float64]

GREY_PX = 160
CELLS = 8  # brightness is kept on this many by this many cells
BANDS = 4  # motion is measured in this many horizontal bands: the ground moves otherwise than walls
REACH_SHARE = 0.15  # of the picture's width: motion between two pictures is sought this far
BLUR_SHARE = 0.05  # of the width: what is wider is light and shade, no edge that can be followed


class VideoFeature(Protocol):
    """Sees the pictures of one video in order; always as many numbers as for the first."""

    def see(self, grey: Grey) -> Cells: ...


class Brightness:
    """Mean grey level of CELLS x CELLS cells."""

    def see(self, grey: Grey) -> Cells:
        import cv2

        cells = cv2.resize(grey.astype(np.float32), (CELLS, CELLS), interpolation=cv2.INTER_AREA)
        return np.asarray(cells, np.float32).reshape(-1)


class Motion:
    """How far each band moved sideways since the last picture, in pixels; right is positive.

    Bands are reduced to the profile of their columns: shifts of a profile survive noise and
    blocks of the codec that mislead a correlation of pixels.
    """

    def __init__(self) -> None:
        self._last: Series | None = None

    def see(self, grey: Grey) -> Cells:
        profiles = _edges(grey)
        last, self._last = self._last, profiles
        if last is None or last.shape != profiles.shape:
            return np.zeros(BANDS, np.float32)
        return _shifts(last, profiles).astype(np.float32)


VIDEO_FEATURES: dict[str, Callable[[], VideoFeature]] = {"brightness": Brightness, "motion": Motion}


TOGETHER = {"brightness", "loudness", "power"}
"""They rise and fall together; what moves, or a column, may go either way."""


def signs_of(one: str, other: str) -> tuple[int, ...]:
    """How two features may follow each other: with +1 alone, or also with -1."""
    return (1,) if {one, other} <= TOGETHER else (1, -1)


def power(values: npt.NDArray[np.floating]) -> Series:
    """The flame follows the arc's power, which goes with the sum of the squared currents."""
    return np.asarray(np.square(values, dtype=np.float64).sum(axis=1))


def is_signal_feature(name: str) -> bool:
    kind, _, column = name.partition(":")
    return name == "power" or (kind in ("column", "change") and bool(column))


def signal_series(
    name: str,
    values: npt.NDArray[np.floating],
    times_s: Series,
    columns: tuple[str, ...],
) -> Series:
    """The feature of a control system's samples (S,): `power`, `column:NAME` or `change:NAME`.

    Raises:
        BadBatchError: there is no such column.
    """
    if name == "power":
        return power(values)
    kind, _, column = name.partition(":")
    if column not in columns:
        raise BadBatchError(
            f"sync.signal is {name[:60]!r}; the signal has no such column, it has "
            f"{', '.join(columns)[:200]}. Name one of them."
        )
    series = np.asarray(values[:, columns.index(column)], np.float64)
    return series if kind == "column" else np.asarray(np.gradient(series, times_s))


def _edges(grey: Grey) -> Series:
    """Column profiles of the bands (BANDS, w), without what is broader than an edge."""
    bands = np.array_split(grey, BANDS)
    profiles = np.stack([band.mean(axis=0) for band in bands])
    reach = max(1, round(BLUR_SHARE * profiles.shape[1]))
    padded = np.pad(profiles, ((0, 0), (reach + 1, reach)), mode="edge")
    area = padded.cumsum(axis=1)
    return np.asarray(
        profiles - (area[:, 2 * reach + 1 :] - area[:, : -2 * reach - 1]) / (2 * reach + 1)
    )


def _shifts(before: Series, after: Series) -> Series:
    """Shift (BANDS,) at which the profiles differ least, refined between pixels."""
    width = before.shape[1]
    reach = max(2, round(REACH_SHARE * width))
    steps = np.arange(-reach, reach + 1)
    differences = np.stack(
        [
            np.abs(
                before[:, max(0, -step) : width - max(0, step)]
                - after[:, max(0, step) : width + min(0, step)]
            ).mean(axis=1)
            for step in steps
        ],
        axis=1,
    )
    at = np.clip(differences.argmin(axis=1), 1, len(steps) - 2)
    row = np.arange(len(at))
    left, least, right = (differences[row, at + step] for step in (-1, 0, 1))
    bend = left - 2 * least + right
    between = np.where(bend > 0, 0.5 * (left - right) / np.maximum(bend, 1e-12), 0.0)
    return np.asarray(steps[at] + np.clip(between, -0.5, 0.5))
