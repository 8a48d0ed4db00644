"""What stands before the camera: shell, flame, mist and the sensor's noise, precomputed."""

from dataclasses import dataclass

import cv2
import numpy as np

from crosswatch.synthetic import difficulty
from crosswatch.synthetic.noise import FloatArray, power_law_field

FLAME_ROWS_SHARE = 0.36
"""The flame is drawn in this upper part of the frame."""
TILE_PX = 256
NOISE_FRAMES = 48
MIST_LEVELS = (150.0, 156.0, 162.0)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Pictures and textures that do not change during a batch."""

    shell: FloatArray
    """The shell under ambient light (px, px, 3)."""
    flame_lit: FloatArray
    """What a flame of brightness 1 adds on the shell (px, px, 3)."""
    flame_shape: FloatArray
    """Where the flame burns (rows, px)."""
    flame_tiles: tuple[FloatArray, FloatArray]
    mist_tiles: tuple[FloatArray, FloatArray]
    mist_reach: FloatArray
    """How thick mist is where, at half the frame's resolution (px / 2, px / 2)."""
    sensor_noise: FloatArray
    """(NOISE_FRAMES, px, px, 3) grey levels."""


def build_scene(rng: np.random.Generator, *, frame_px: int) -> Scene:
    """Build one furnace; every batch has its own texture."""
    shell = _shell(rng, frame_px)
    rows = round(FLAME_ROWS_SHARE * frame_px)
    half_px = frame_px // 2
    return Scene(
        shell=shell,
        flame_lit=_flame_lit(shell, frame_px),
        flame_shape=_flame_shape(frame_px)[:rows],
        flame_tiles=(
            _tile(rng, 3.0, (rows, frame_px), stretch=0.6, coarsest=7.0),
            _tile(rng, 2.6, (rows, frame_px), stretch=0.6, coarsest=10.0),
        ),
        mist_tiles=(
            _tile(rng, 3.6, (half_px, half_px)),
            _tile(rng, 3.2, (half_px, half_px)),
        ),
        mist_reach=np.repeat(
            np.interp(np.linspace(0, 1, half_px), [0, 0.3, 0.5, 1], [0.25, 0.5, 1.0, 1.0])[:, None],
            half_px,
            axis=1,
        ).astype(np.float32),
        sensor_noise=_sensor_noise(rng, frame_px),
    )


def window(tile: FloatArray, shape: tuple[int, int], *, x_px: float, y_px: float) -> FloatArray:
    """Cut a window out of a wrapping tile at a fractional position."""
    height, width = shape
    x_px, y_px = x_px % TILE_PX, y_px % TILE_PX
    centre = (x_px + (width - 1) / 2, y_px + (height - 1) / 2)
    return np.asarray(cv2.getRectSubPix(tile, (width, height), centre), dtype=np.float32)


def _axes(frame_px: int) -> tuple[FloatArray, FloatArray]:
    axis = ((np.arange(frame_px) + 0.5) / frame_px).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


def _shell(rng: np.random.Generator, frame_px: int) -> FloatArray:
    """A riveted, rusty steel drum before a dark hall."""
    x, y = _axes(frame_px)
    round_light = np.sqrt(np.clip(1.0 - ((x - 0.5) / 0.42) ** 2, 0.0, 1.0))
    on_shell = cv2.GaussianBlur(
        ((round_light > 0) & (y > 0.30 + 0.05 * round_light)).astype(np.float32), (0, 0), 1.0
    )
    size = (frame_px, frame_px)
    grain = power_law_field(rng, size, exponent=1.6)
    streaks = power_law_field(rng, size, exponent=2.2, stretch=4.0)
    rust = np.clip(power_law_field(rng, size, exponent=2.8), 0.0, 2.5)
    bent_y = y - 0.05 * round_light
    bands = sum(np.exp(-(((bent_y - at) / 0.012) ** 2)) for at in (0.42, 0.66, 0.90))
    light = (0.45 + 0.55 * round_light) * (1.0 + 0.07 * grain + 0.08 * streaks + 0.25 * bands)
    steel = np.stack([62.0 + 12.0 * rust, 57.0 + 3.0 * rust, 55.0 - 2.0 * rust], axis=-1)
    hall = np.stack([20.0 + 2.0 * grain, 20.0 + 2.0 * grain, 24.0 + 2.0 * grain], axis=-1)
    shell = hall + on_shell[..., None] * (steel * light[..., None] - hall)
    return np.ascontiguousarray(np.clip(shell, 2.0, 255.0), dtype=np.float32)


def _flame_lit(shell: FloatArray, frame_px: int) -> FloatArray:
    x, y = _axes(frame_px)
    near = np.exp(-np.hypot(x - 0.5, y - 0.28) / 0.28)
    return np.ascontiguousarray(
        shell * near[..., None] * np.array([1.3, 0.8, 0.35], np.float32), dtype=np.float32
    )


def _flame_shape(frame_px: int) -> FloatArray:
    """Wide at the mouth (y = 0.33), narrow and thin towards the top."""
    x, y = _axes(frame_px)
    height = np.clip((0.335 - y) / 0.335, 0.0, 1.0)
    width = 0.25 * (1.0 - 0.65 * height)
    body = np.exp(-(np.abs((x - 0.5) / width) ** 2.5)) * (1.0 - 0.75 * height)
    mouth = 1.0 / (1.0 + np.exp((y - 0.335) / 0.008))
    return np.asarray(body * mouth, dtype=np.float32)


def _tile(
    rng: np.random.Generator,
    exponent: float,
    shape: tuple[int, int],
    *,
    stretch: float = 1.0,
    coarsest: float = 0.0,
) -> FloatArray:
    """A wrapping texture, padded so that any window of `shape` lies inside."""
    field = power_law_field(
        rng, (TILE_PX, TILE_PX), exponent=exponent, stretch=stretch, coarsest=coarsest
    )
    return np.pad(field, ((0, shape[0] + 2), (0, shape[1] + 2)), mode="wrap")


def _sensor_noise(rng: np.random.Generator, frame_px: int) -> FloatArray:
    """Mostly grey noise with some colour in it, as a demosaiced sensor has."""
    size = (NOISE_FRAMES, frame_px, frame_px)
    grey = rng.standard_normal((*size, 1), dtype=np.float32)
    colour = rng.standard_normal((*size, 3), dtype=np.float32)
    return np.float32(difficulty.SENSOR_NOISE_LEVELS) * (0.8 * grey + 0.6 * colour)
