"""What the descriptors of motion and appearance share: cells, histograms of orientation, scales.

Shape letters: N pictures, H and W pixels (each a multiple of CELLS), C cells down and across, B
bins. Planes of values are float32 (N, H, W).
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

CELLS = 4
BINS = 8
SCALES = 100.0  # full scale over the value at which `squash` turns from linear to logarithmic


def squash(values: npt.NDArray[np.floating], full: float) -> Floats:
    """log(1 + SCALES * v / full) / log(1 + SCALES): 0 at 0, 1 at `full`, not bounded above.

    Strength survives over three decades, and no row is normalised by its own.
    """
    return np.asarray(np.log1p(SCALES / full * values) / np.log1p(SCALES), np.float32)


def cell_means(values: Floats) -> Floats:
    """(N, C, C) means over the pixels of each cell."""
    return np.asarray(_cells(values).mean(axis=(2, 4)), np.float32)


def cell_moments(values: Floats) -> tuple[Floats, Floats]:
    """(C, C) means and deviations over pictures and pixels."""
    cells = _cells(values).astype(np.float64)
    return (
        np.asarray(cells.mean(axis=(0, 2, 4)), np.float32),
        np.asarray(cells.std(axis=(0, 2, 4)), np.float32),
    )


def orientations(x: Floats, y: Floats, *, bins: int = BINS, signed: bool) -> Floats:
    """(C, C, B) mean length of vectors by direction: the bins of a cell sum to its mean length.

    Bin b lies at b / B of a turn (signed) or half a turn, clockwise from the right in a picture;
    a vector is shared by the two bins next to it (Dalal and Triggs, CVPR 2005).
    """
    import cv2

    count, height, width = x.shape
    if not count:
        return np.zeros((CELLS, CELLS, bins), np.float32)
    flat = (count * height, width)
    length, angle = cv2.cartToPolar(
        np.ascontiguousarray(x, np.float32).reshape(flat),
        np.ascontiguousarray(y, np.float32).reshape(flat),
    )
    place = angle * np.float32(bins / ((2 if signed else 1) * np.pi))
    lower = place.astype(np.intp)  # no angle is negative
    of_upper = (place - lower.astype(np.float32)) * length
    cell = np.tile(_cell_of(height, width) * bins, (count, 1))
    votes = np.bincount((cell + lower % bins).ravel(), (length - of_upper).ravel(), CELLS**2 * bins)
    lower += 1
    votes += np.bincount((cell + lower % bins).ravel(), of_upper.ravel(), CELLS**2 * bins)
    pixels = count * height * width / CELLS**2
    return np.asarray(votes / pixels, np.float32).reshape(CELLS, CELLS, bins)


def shares(bin_of: npt.NDArray[np.int64], bins: int, weights: Floats | None = None) -> Floats:
    """(C, C, B) share of a cell's pixels (or of their weight, a pixel at most 1) in each bin."""
    height, width = bin_of.shape
    index = (_cell_of(height, width) * bins + bin_of).ravel()
    weights = None if weights is None else weights.ravel()
    votes = np.bincount(index, weights, minlength=CELLS**2 * bins)
    pixels = height * width / CELLS**2
    return np.asarray(votes / pixels, np.float32).reshape(CELLS, CELLS, bins)


def slopes(values: Floats) -> tuple[Floats, Floats]:
    """Central differences along x and y, a pixel apart; one-sided at the border."""
    along_y, along_x = np.gradient(values, axis=(1, 2))
    return np.asarray(along_x, np.float32), np.asarray(along_y, np.float32)


def _cells(values: Floats) -> Floats:
    count, height, width = values.shape
    return values.reshape(count, CELLS, height // CELLS, CELLS, width // CELLS)


def _cell_of(height: int, width: int) -> npt.NDArray[np.int64]:
    down = np.arange(height) * CELLS // height
    across = np.arange(width) * CELLS // width
    return down[:, None] * CELLS + across
