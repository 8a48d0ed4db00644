"""Glowing spots on the shell: where each shines at an instant, and what its truth mask is."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from crosswatch.synthetic import difficulty
from crosswatch.synthetic.noise import FloatArray, power_law_field
from crosswatch.synthetic.schedule import Distractor, Event

MASK_SHARE = 0.5
"""A pixel belongs to a spot where it shines at least this share of the spot's present peak."""
VISIBLE_LEVELS = 4.0
"""... and adds at least this many red grey levels, before mist; below that nothing can be seen."""


@dataclass(frozen=True, kw_only=True)
class Glow:
    """A light on the shell that rises, fades, grows and creeps."""

    start_s: float
    apex_s: float
    end_s: float
    peak_levels: float
    start_level: float
    """Brightness at its first and last instant, relative to the apex."""
    shape_px: FloatArray
    """Light at the apex, shape (height, width, 3); its red channel peaks at 1."""
    centre_px: tuple[float, float]
    smallest_scale: float
    """Size at its first and last instant, relative to the apex."""
    creep_px_per_s: tuple[float, float]

    def shines_at(self, time_s: float) -> bool:
        """Whether the glow is there at all."""
        return self.start_s <= time_s <= self.end_s

    def light_at(self, time_s: float) -> FloatArray:
        """Grey levels that it adds at this instant: (height, width, 3)."""
        course = self._course(time_s)
        scale = self.smallest_scale + (1.0 - self.smallest_scale) * course
        level = self.peak_levels * (self.start_level + (1.0 - self.start_level) * course)
        return self._moved(time_s, scale) * np.float32(level)

    def mask_at(
        self, time_s: float, *, visible_levels: float = VISIBLE_LEVELS
    ) -> NDArray[np.bool_]:
        """Truth mask at this instant (height, width); mist does not change it."""
        red = self.light_at(time_s)[..., 0]
        return np.asarray(red >= max(MASK_SHARE * float(red.max()), visible_levels))

    def _course(self, time_s: float) -> float:
        """0 at the first and last instant, 1 at the apex; fast at first, slow near the apex."""
        rising = (time_s - self.start_s) / (self.apex_s - self.start_s)
        fading = (self.end_s - time_s) / (self.end_s - self.apex_s)
        position = float(np.clip(min(rising, fading), 0.0, 1.0))
        return float(np.sin(np.pi / 2 * position))

    def _moved(self, time_s: float, scale: float) -> FloatArray:
        since_s = time_s - self.apex_s
        x_px, y_px = self.centre_px
        creep_x_px, creep_y_px = (speed * since_s for speed in self.creep_px_per_s)
        move = np.array(
            [
                [scale, 0.0, x_px * (1.0 - scale) + creep_x_px],
                [0.0, scale, y_px * (1.0 - scale) + creep_y_px],
            ]
        )
        height, width = self.shape_px.shape[:2]
        return np.asarray(cv2.warpAffine(self.shape_px, move, (width, height)), dtype=np.float32)


def anomaly_glow(rng: np.random.Generator, event: Event, *, frame_px: int) -> Glow:
    """A semi-molten spot: a ragged, elongated patch that grows and creeps down."""
    shape = _ragged_patch(rng, event.centre_share, frame_px)
    return Glow(
        start_s=event.onset_s,
        apex_s=event.apex_s,
        end_s=event.offset_s,
        peak_levels=event.peak_levels,
        start_level=difficulty.SPOT_START,
        shape_px=_molten(shape),
        centre_px=_centre(event.centre_share, frame_px),
        smallest_scale=0.6,
        creep_px_per_s=(rng.normal(0.0, 0.001) * frame_px, rng.uniform(0.0, 0.005) * frame_px),
    )


def distractor_glow(rng: np.random.Generator, distractor: Distractor, *, frame_px: int) -> Glow:
    """A harmless glow: a round, soft patch that comes and goes without growing."""
    x, y = _grid(distractor.centre_share, frame_px)
    radius = rng.uniform(0.03, 0.075)
    shape = np.exp(-((x / radius) ** 2) - (y / (radius * rng.uniform(0.7, 1.3))) ** 2)
    return Glow(
        start_s=distractor.start_s,
        apex_s=(distractor.start_s + distractor.end_s) / 2,
        end_s=distractor.end_s,
        peak_levels=distractor.peak_levels,
        start_level=0.0,
        shape_px=_molten(shape) if distractor.lookalike else _glare(shape),
        centre_px=_centre(distractor.centre_share, frame_px),
        smallest_scale=0.9,
        creep_px_per_s=(0.0, 0.0),
    )


def _ragged_patch(
    rng: np.random.Generator, centre_share: tuple[float, float], frame_px: int
) -> FloatArray:
    """Three overlapping soft lobes along a bent line, roughened by noise; peaks at 1."""
    x, y = _grid(centre_share, frame_px)
    heading = rng.uniform(0.0, np.pi)
    length = rng.uniform(0.07, 0.118)
    patch = np.zeros_like(x)
    for along in (-0.8, 0.0, 0.8):
        turn = heading + rng.uniform(-0.7, 0.7)
        middle_x = along * length * np.cos(turn)
        middle_y = along * length * np.sin(turn)
        cos, sin = np.cos(turn), np.sin(turn)
        forward = ((x - middle_x) * cos + (y - middle_y) * sin) / (length * rng.uniform(0.7, 1.1))
        across = ((y - middle_y) * cos - (x - middle_x) * sin) / (length * rng.uniform(0.55, 0.9))
        lobe = rng.uniform(0.75, 1.0) * np.exp(-(np.hypot(forward, across) ** 4))
        patch = np.maximum(patch, lobe)
    rough = power_law_field(rng, (frame_px, frame_px), exponent=2.5)
    patch = patch * np.clip(1.0 + 0.12 * rough, 0.6, 1.4)
    return np.asarray(patch / patch.max(), dtype=np.float32)


def _grid(centre_share: tuple[float, float], frame_px: int) -> tuple[FloatArray, FloatArray]:
    """Distance from a centre in frame widths: x and y, each (frame_px, frame_px)."""
    axis = (np.arange(frame_px, dtype=np.float32) + 0.5) / frame_px
    x, y = np.meshgrid(axis - centre_share[0], axis - centre_share[1])
    return x.astype(np.float32), y.astype(np.float32)


def _centre(centre_share: tuple[float, float], frame_px: int) -> tuple[float, float]:
    return centre_share[0] * frame_px - 0.5, centre_share[1] * frame_px - 0.5


def _molten(shape: FloatArray) -> FloatArray:
    """Red, towards orange where it is hottest."""
    hot = shape * shape
    return np.stack([shape, 0.34 * shape + 0.22 * hot, 0.08 * shape + 0.10 * hot], axis=-1)


def _glare(shape: FloatArray) -> FloatArray:
    """The flame mirrored on wet steel: yellowish white."""
    return np.stack([shape, 0.9 * shape, 0.65 * shape], axis=-1)
