"""Motion and appearance of a snippet in 512 numbers, without weights.

A snippet is `snippet_frames` successive stored frames of one recording, looked at in the pictures
of the original: in grey with a longer side of `size_px`, and in colour with 32 by 32 pixels. The
vector is four blocks of 4 by 4 cells (down, across) of 8 numbers, in this order:

HOF   histogram of oriented flow (Laptev et al., CVPR 2008): mean speed in the cell by direction,
      signed; number b is motion towards b / 8 of a turn, clockwise from the right. In longer sides
      of the picture per second; 1 at 0.5.
MBH   motion boundary histograms (Dalal, Triggs and Schmid, ECCV 2006): the same of the gradient of
      the flow, by orientation (a half turn), 4 numbers for its part to the right and 4 for its
      part downwards. What moves with the camera cancels. In 1/s; 1 at 5.
HOG   histogram of oriented gradients (Dalal and Triggs, CVPR 2005): mean gradient of the brightness
      (0 to 1) by orientation, over all pictures. Per longer side; 1 at 10.
rest  mean and deviation over pictures and pixels of L / 100, a / 64 and b / 64 (CIELAB); mean
      change of the brightness in 1/s, 1 at 5; mean speed as in HOF.

Everything but the colours is a strength, put on the scale of `histograms.squash`. Nothing is
normalised by the row itself: how much moves is what anomalies differ in. Speeds are taken per
second and per picture, so that they depend on neither the frame rate nor the resolution. A pair
of pictures counts as much as any other; a snippet of one picture has appearance and no motion.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.features.encoder import Encoded, Failed, Identity, Input, Rows, Spans, Vector
from crosswatch.features.pictures.flow import Flow
from crosswatch.features.pictures.frames import fresh_frames, shown_by
from crosswatch.features.pictures.histograms import (
    CELLS,
    Floats,
    cell_means,
    cell_moments,
    orientations,
    slopes,
    squash,
)
from crosswatch.features.pictures.snippets import grouped, snippets_of
from crosswatch.features.pictures.thumbnails import Bytes, Thumbnails, resized
from crosswatch.features.settings import MotionConfig
from crosswatch.features.source import Source
from crosswatch.features.versions import version_of

NAME = "motion"
WIDTH = 512
COLOUR_PX = 32
FULL_SPEED = 0.5  # longer sides per second
FULL_BOUNDARY = 5.0  # 1/s
FULL_GRADIENT = 10.0  # of brightness 0 to 1, per longer side
FULL_CHANGE = 5.0  # of brightness 0 to 1, per second
PACKAGES = ("opencv-contrib-python-headless", "av", "numpy")


@dataclasses.dataclass(frozen=True)
class MotionEncoder:
    """Modality "motion": (512,) a snippet."""

    config: MotionConfig

    @property
    def identity(self) -> Identity:
        return Identity(
            name=NAME,
            weights="",
            preprocessing=dataclasses.asdict(self.config),
            version=version_of(__name__, packages=PACKAGES),
        )

    def spans_s(self, source: Source) -> Spans:
        """A snippet lasts until the next begins, or for a period after its last frame."""
        return snippets_of(source.batch, self.config.snippet_frames).spans_s

    def inputs(self, source: Source, rows: Rows) -> Iterator[Input | Failed]:
        batch = source.batch
        assert batch.frame_times is not None, "a batch without video has no rows"
        found = snippets_of(batch, self.config.snippet_frames)
        firsts, behind = found.first[rows], found.behind[rows]
        shown, fresh = shown_by(source), fresh_frames(source)
        frames = [
            np.flatnonzero(fresh[first:stop]) + first
            for first, stop in zip(firsts, behind, strict=True)
        ]
        wanted = [np.asarray(shown[each]) for each in frames]
        pictures = source.original.pictures(
            np.concatenate([np.empty(0, np.int64), *wanted]), convert=_Small(self.config.size_px)
        )
        for at, came in grouped(pictures, wanted):
            there = np.array([position in came for position in wanted[at]], np.bool_)
            kept = frames[at][there]
            yield _input(
                int(rows[at]),
                [came[int(position)] for position in wanted[at][there]],
                place=kept - firsts[at],
                times_s=np.asarray(batch.frame_times[kept]),
                frames=int(behind[at] - firsts[at]),
            )

    def load(self, device: str) -> "MotionModel":
        """It computes on the CPU whatever the device."""
        return MotionModel()


class MotionModel:
    def __init__(self) -> None:
        self._flow = Flow()

    def __call__(self, inputs: Sequence[Mapping[str, Any]]) -> Sequence[Encoded]:
        return [
            {NAME: Vector(values=describe(self._flow, **values), valid=np.ones((), np.bool_))}
            for values in inputs
        ]


class _Small:
    """Grey (H, W) and RGB (32, 32, 3) of a picture."""

    def __init__(self, size_px: int) -> None:
        self._grey = Thumbnails("gray", longer_px=size_px)
        self._colour = Thumbnails("rgb24", size=(COLOUR_PX, COLOUR_PX))

    def __call__(self, picture: Any) -> tuple[Bytes, Bytes]:
        return self._grey(picture), self._colour(picture)


def describe(
    flow: Flow,
    *,
    grey: Bytes,
    colour: Bytes,
    place: npt.NDArray[np.int64],
    times_s: npt.NDArray[np.float64],
) -> Floats:
    """The vector (512,) of the module's docstring.

    Args:
        grey: (N, H, W).
        colour: (N, 32, 32, 3) RGB.
        place: (N,) of the pictures among the snippet's frames; only neighbours are compared.
        times_s: (N,) when they were taken.
    """
    bright = grey.astype(np.float32) / np.float32(255)
    pairs = np.flatnonzero(np.diff(place) == 1)
    steps_s = np.diff(times_s)[pairs]
    velocity = flow.velocities(grey, pairs, steps_s)
    right, down = velocity[..., 0], velocity[..., 1]
    change = np.abs(bright[pairs + 1] - bright[pairs]) / steps_s[:, None, None]
    speed = np.hypot(right, down)
    longer_px = np.float32(max(grey.shape[1:]))
    boundaries = [
        orientations(*slopes(part), bins=4, signed=False) * (longer_px / 2)
        for part in (right, down)
    ]
    edges = orientations(*slopes(bright), signed=False) * longer_px
    rest = [
        *_colours(colour),
        squash(_mean_over(np.asarray(change, np.float32)), FULL_CHANGE),
        squash(_mean_over(np.asarray(speed, np.float32)), FULL_SPEED),
    ]
    blocks = (
        squash(orientations(right, down, signed=True), FULL_SPEED),
        squash(np.concatenate(boundaries, axis=2), FULL_BOUNDARY),
        squash(edges, FULL_GRADIENT),
        np.stack(rest, axis=2),
    )
    vector = np.concatenate([block.ravel() for block in blocks])
    assert vector.shape == (WIDTH,), "four blocks of 4 x 4 x 8"
    return np.asarray(vector, np.float32)


def _input(
    row: int,
    pictures: Sequence[tuple[Bytes, Bytes]],
    *,
    place: npt.NDArray[np.int64],
    times_s: npt.NDArray[np.float64],
    frames: int,
) -> Input | Failed:
    if 2 * len(pictures) < frames:
        said = f"{len(pictures)} of its {frames} pictures can be decoded; half of them are needed"
        return Failed(row=row, reason=said)
    shapes = [grey.shape for grey, _ in pictures]
    reshaped = [one != other for one, other in itertools.pairwise(shapes)]
    place = place + np.cumsum([False, *reshaped])  # no neighbours: stretching is no motion
    if frames > 1 and not (np.diff(place) == 1).any():
        said = f"no two successive pictures of its {frames} can be compared; one pair is needed"
        return Failed(row=row, reason=said)
    height, width = shapes[0]
    values = {
        "grey": np.stack([resized(grey, (width, height)) for grey, _ in pictures]),
        "colour": np.stack([colour for _, colour in pictures]),
        "place": place,
        "times_s": times_s,
    }
    return Input(row=row, values=values)


def _mean_over(values: Floats) -> Floats:
    """(C, C) over pairs; 0 without a pair."""
    if not len(values):
        return np.zeros((CELLS, CELLS), np.float32)
    return np.asarray(cell_means(values).mean(axis=0), np.float32)


def _colours(colour: Bytes) -> list[Floats]:
    """Six planes (C, C): mean and deviation of L, a and b."""
    import cv2

    count = len(colour)
    flat = colour.reshape(count * COLOUR_PX, COLOUR_PX, 3).astype(np.float32) / 255
    lab = cv2.cvtColor(flat, cv2.COLOR_RGB2LAB).reshape(colour.shape) / (100, 64, 64)
    moments = [cell_moments(np.asarray(lab[..., channel], np.float32)) for channel in range(3)]
    return [plane for pair in moments for plane in pair]
