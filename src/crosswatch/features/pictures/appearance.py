"""How a picture looks in 512 numbers, without weights.

The picture is shrunk to a longer side of 128 pixels and cut into 4 by 4 cells (down, across), of
32 numbers each:

 0- 7  colour: mean chroma by hue, number b at b / 8 of the circle from red over yellow (the hue
       histogram of van de Weijer and Schmid, ECCV 2006); square roots
 8-11  brightness: share of pixels that are black, dark grey, light grey, white, shared between
       neighbours; square roots
12-19  HOG: mean gradient by orientation, b / 8 of a half turn (Dalal and Triggs, CVPR 2005), on
       the scale of `histograms.squash`; 1 at 10 per longer side
20-29  texture: share of pixels by local binary pattern, rotation-invariant and uniform: so many
       brighter neighbours in one run, or more runs (Ojala et al., PAMI 2002); square roots
30     share of pixels on an edge: a gradient of a tenth of the full range a pixel
31     deviation of the brightness, twice, so that half black and half white give 1

Square roots make the distance of two histograms that of Hellinger (Arandjelovic and Zisserman,
CVPR 2012). No number is normalised by the picture, and nearly all lie in 0 to 1.
"""

import numpy as np
import numpy.typing as npt

from crosswatch.features.pictures.histograms import (
    Floats,
    cell_means,
    cell_moments,
    orientations,
    shares,
    slopes,
    squash,
)
from crosswatch.features.pictures.thumbnails import Bytes

LONGER_PX = 128
WIDTH = 512
LEVELS = 4
PATTERNS = 10
FULL_GRADIENT = 10.0  # of brightness 0 to 1, per longer side
EDGE = 0.1  # of brightness 0 to 1, per pixel
AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


def describe(picture: Bytes) -> Floats:
    """(512,) of an RGB picture (H, W, 3) of LONGER_PX."""
    import cv2

    grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    bright = grey[None].astype(np.float32) / np.float32(255)
    along_x, along_y = slopes(bright)
    on_edge = (np.hypot(along_x, along_y) > EDGE).astype(np.float32)
    gradients = orientations(along_x, along_y, signed=False) * np.float32(max(grey.shape))
    parts = (
        np.sqrt(_hues(picture)),
        np.sqrt(_levels(bright[0])),
        squash(gradients, FULL_GRADIENT),
        np.sqrt(shares(patterns(grey), PATTERNS)),
        cell_means(on_edge)[0][..., None],
        2 * cell_moments(bright)[1][..., None],
    )
    vector = np.concatenate(parts, axis=2).ravel()
    assert vector.shape == (WIDTH,), "4 x 4 cells of 32"
    return np.asarray(vector, np.float32)


def patterns(grey: Bytes) -> npt.NDArray[np.int64]:
    """(H, W): how many of the eight neighbours are as bright, if they form one run; otherwise 9."""
    height, width = grey.shape
    padded = np.pad(grey, 1, mode="edge")
    brighter = np.stack(
        [padded[1 + y : 1 + y + height, 1 + x : 1 + x + width] >= grey for y, x in AROUND]
    )
    borders = (brighter != np.roll(brighter, 1, axis=0)).sum(axis=0)
    return np.where(borders <= 2, brighter.sum(axis=0), PATTERNS - 1)


def _hues(picture: Bytes) -> Floats:
    """Red, green and blue pull a third of a turn apart; grey stays in the middle."""
    red, green, blue = np.moveaxis(picture.astype(np.float32) / np.float32(255), 2, 0)
    x, y = red - (green + blue) / 2, (green - blue) * np.float32(np.sqrt(0.75))
    return orientations(x[None], y[None], signed=True)


def _levels(bright: Floats) -> Floats:
    place = bright * (LEVELS - 1)
    lower = np.minimum(place.astype(np.int64), LEVELS - 2)
    upper_share = np.asarray(place - lower, np.float32)
    return shares(lower, LEVELS, 1 - upper_share) + shares(lower + 1, LEVELS, upper_share)
