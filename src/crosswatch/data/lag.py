"""Brightness against current, made comparable: what is evidence about the clocks and what is not.

Shapes: (N,) instants of an even grid, (S,) samples, (K,) cells of the picture, (L,) lags.
"""

import dataclasses
import math

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
LAG_STEP_S = 0.02
COARSE_S = 0.1  # step of the first search, and the shortest time over which readings are averaged
SILENT_S = 1.0  # a stream that said nothing for longer is no evidence there
CLIP = 3.0  # robust standard deviations; what exceeds them (steps, glare, feeding) says no more


def current_of(
    signal_s: FloatArray, signal: npt.NDArray[np.floating], period_s: float, slower_than_s: float
) -> tuple[FloatArray, FloatArray]:
    """When (S,) and how much (S,) the arc draws, no faster than the first search's steps.

    The flame follows the arc's power, which goes with the sum of the squared currents.
    """
    power = np.square(signal, dtype=np.float64).sum(axis=1)[:, None]
    if np.median(np.diff(signal_s)) < COARSE_S:
        at_s = np.arange(signal_s[0] + period_s, signal_s[-1] - period_s, period_s)
        heard = ~_silent(at_s, signal_s)
        signal_s, power = at_s[heard], _box_mean(signal_s, power, at_s[heard], period_s)
    return signal_s, standard(_without_slow(power, period_s, slower_than_s))[:, 0]


def lights_of(
    camera_s: FloatArray,
    brightness: npt.NDArray[np.floating],
    period_s: float,
    slower_than_s: float,
    *,
    step_s: float,
) -> tuple[FloatArray, FloatArray]:
    """Even instants (N,) and every cell's brightness (N, K), averaged as a meter averages."""
    at_s = np.asarray(np.arange(camera_s[0], camera_s[-1], step_s), np.float64)
    even = _box_mean(camera_s, brightness, at_s, period_s)
    values = standard(_without_slow(even, step_s, slower_than_s))
    values[_silent(at_s, camera_s)] = 0.0
    return at_s, values


def flame_of(
    camera_s: FloatArray,
    brightness: npt.NDArray[np.floating],
    weights: FloatArray,
    period_s: float,
    slower_than_s: float,
) -> tuple[FloatArray, FloatArray]:
    """Fine instants (N,) and the weighted cells' light (N,), cell by cell to spare memory."""
    total: FloatArray | float = 0.0
    at_s = camera_s
    for cell in np.flatnonzero(weights > 0.01 * weights.max()):
        one = brightness[:, [cell]]
        at_s, light = lights_of(camera_s, one, period_s, slower_than_s, step_s=LAG_STEP_S)
        total = total + weights[cell] * light[:, 0]
    return at_s, standard(np.asarray(total))


def _box_mean(
    times_s: FloatArray, values: npt.NDArray[np.floating], at_s: FloatArray, width_s: float
) -> FloatArray:
    """Mean over `width_s` around each instant, for readings joined by straight lines."""
    steps_s = np.diff(times_s, prepend=times_s[0])
    low, high = at_s - width_s / 2, at_s + width_s / 2
    low, high = np.maximum(low, times_s[0]), np.minimum(high, times_s[-1])
    means = np.empty((at_s.size, values.shape[1]))
    for column in range(values.shape[1]):
        series = values[:, column].astype(np.float64)
        area = np.cumsum(steps_s * (series + np.roll(series, 1)) / 2)
        means[:, column] = np.interp(high, times_s, area) - np.interp(low, times_s, area)
    return np.asarray(means / (high - low)[:, None])


def _silent(at_s: FloatArray, times_s: FloatArray) -> npt.NDArray[np.bool_]:
    after = np.clip(np.searchsorted(times_s, at_s), 1, times_s.size - 1)
    return np.asarray(times_s[after] - times_s[after - 1] > SILENT_S)


def _without_slow(values: FloatArray, step_s: float, slower_than_s: float) -> FloatArray:
    """Subtract a running median: steps of the ambient light vanish with it, unlike with a mean."""
    from scipy.ndimage import median_filter

    every = max(1, round(0.2 / step_s))
    coarse = values[::every]
    size = int(slower_than_s / (every * step_s)) | 1
    slow = median_filter(coarse, size=(size, 1), mode="nearest")
    at, coarse_at = np.arange(len(values)), np.arange(0, len(values), every)
    for column in range(values.shape[1]):
        values[:, column] -= np.interp(at, coarse_at, slow[:, column])
    return values


def standard(values: FloatArray) -> FloatArray:
    """Robust unit variance, outliers clipped."""
    scale = 1.4826 * np.median(np.abs(values), axis=0)
    return np.asarray(np.clip(values / np.maximum(scale, 1e-9), -CLIP, CLIP))


def cells_that_follow(
    sample_s: FloatArray,
    current: FloatArray,
    light_s: FloatArray,
    lights: FloatArray,  # (N, K) at steps of COARSE_S
    *,
    max_offset_s: float,
    unrelated_s: float,
) -> tuple[FloatArray, float]:
    """Weights of the cells (K,), and what chance reaches, as a share of the best agreement.

    One Fourier transform gives the correlation at every lag there is: those within reach of the
    clocks say where the flame is; those more than `unrelated_s` beyond it cannot be true and say
    what chance can do.
    """
    at_s = np.arange(max(sample_s[0], light_s[0]), min(sample_s[-1], light_s[-1]), COARSE_S)
    rows = np.clip(np.rint((at_s - light_s[0]) / COARSE_S).astype(int), 0, len(light_s) - 1)
    even, seen = np.interp(at_s, sample_s, current), lights[rows]
    spectrum = np.fft.rfft(even)[:, None] * np.fft.rfft(seen, axis=0).conj()
    size = np.sqrt((even**2).sum() * (seen**2).sum(axis=0))
    agreement = np.fft.irfft(spectrum, n=at_s.size, axis=0) / np.maximum(size, 1e-9)  # (L, K)
    score = (np.maximum(agreement, 0.0) ** 4).sum(axis=1)  # few cells show the flame: let them lead
    lags_s = COARSE_S * np.fft.fftfreq(at_s.size, 1 / at_s.size)
    best = int(np.argmax(np.where(np.abs(lags_s) <= max_offset_s, score, -1.0)))
    beyond = score[np.abs(lags_s) > max_offset_s + unrelated_s]
    if not score[best] > 0.0:  # one of the streams never changes
        return np.zeros(lights.shape[1]), 1.0
    chance = (beyond.max(initial=0.0) / score[best]) ** 0.25
    return np.asarray(np.maximum(agreement[best], 0.0) ** 3), float(chance)


@dataclasses.dataclass(frozen=True)
class BlockSums:
    """Products of both series per block and lag; the correlation of any set of blocks follows."""

    lags_s: FloatArray  # (L,)
    mid_s: FloatArray  # (B,) middle of each block
    cross: FloatArray
    light: FloatArray
    current: FloatArray


def sum_blocks(
    sample_s: FloatArray,
    current: FloatArray,
    light_s: FloatArray,
    light: FloatArray,
    *,
    max_offset_s: float,
    blocks: int,
) -> BlockSums:
    """Cut the samples into blocks of equal length and sum over each."""
    reach = math.ceil(max_offset_s / LAG_STEP_S) + 1
    lags_s = np.asarray(LAG_STEP_S * np.arange(-reach, reach + 1), np.float64)
    inside = (sample_s >= light_s[0]) & (sample_s <= light_s[-1])
    sample_s, current = sample_s[inside], current[inside]
    edges_s = np.linspace(sample_s[0], sample_s[-1], blocks + 1)
    block_of = np.clip(np.searchsorted(edges_s, sample_s, side="right") - 1, 0, blocks - 1)
    rows = [
        _products(sample_s[block_of == block], current[block_of == block], light_s, light, lags_s)
        for block in range(blocks)
    ]
    return BlockSums(
        lags_s=lags_s,
        mid_s=(edges_s[:-1] + edges_s[1:]) / 2,
        cross=np.stack([cross for cross, _, _ in rows]),
        light=np.stack([light for _, light, _ in rows]),
        current=np.array([current for _, _, current in rows]),
    )


def _products(
    sample_s: FloatArray,
    current: FloatArray,
    light_s: FloatArray,
    light: FloatArray,
    lags_s: FloatArray,
) -> tuple[FloatArray, FloatArray, float]:
    """Sums over one block: current by light and light by light per lag, current by current."""
    seen = np.interp(sample_s[:, None] - lags_s, light_s, light, left=0.0, right=0.0)
    return current @ seen, (seen**2).sum(axis=0), float(current @ current)
