"""Two streams made comparable: what in them is evidence about their clocks and what is not.

A *series* is one number a sample of the reference stream; *cells* are several numbers a picture or
a slice of sound of the stream whose clock is sought, some of which follow the series.

Shapes: (N,) instants of an even grid, (S,) samples, (K,) cells, (L,) lags, (B,) blocks.
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


def lively_series(
    times_s: FloatArray,
    values: npt.NDArray[np.floating],
    period_s: float,
    slower_than_s: float,
) -> tuple[FloatArray, FloatArray]:
    """When (S,) and how much (S,) the series moves, no faster than the first search's steps."""
    column = np.array(values, np.float64)[:, None]
    if np.median(np.diff(times_s)) < COARSE_S:
        at_s = np.arange(times_s[0] + period_s, times_s[-1] - period_s, period_s)
        heard = ~_silent(at_s, times_s)
        times_s, column = at_s[heard], _box_mean(times_s, column, at_s[heard], period_s)
    return times_s, standard(_without_slow(column, period_s, slower_than_s))[:, 0]


def lively_cells(
    times_s: FloatArray,
    cells: npt.NDArray[np.floating],
    period_s: float,
    slower_than_s: float,
    *,
    step_s: float,
) -> tuple[FloatArray, FloatArray]:
    """Even instants (N,) and every cell (N, K), averaged as the reference averages."""
    at_s = np.asarray(np.arange(times_s[0], times_s[-1], step_s), np.float64)
    even = _box_mean(times_s, cells, at_s, period_s)
    values = standard(_without_slow(even, step_s, slower_than_s))
    values[_silent(at_s, times_s)] = 0.0
    return at_s, values


def weighted(
    times_s: FloatArray,
    cells: npt.NDArray[np.floating],
    weights: FloatArray,
    period_s: float,
    slower_than_s: float,
) -> tuple[FloatArray, FloatArray]:
    """Fine instants (N,) and the weighted sum of the cells (N,), one by one to spare memory."""
    total: FloatArray | float = 0.0
    at_s = times_s
    strength = np.abs(weights)
    for cell in np.flatnonzero(strength >= 0.01 * strength.max()):
        one = cells[:, [cell]]
        at_s, moved = lively_cells(times_s, one, period_s, slower_than_s, step_s=LAG_STEP_S)
        total = total + weights[cell] * moved[:, 0]
    return at_s, standard(np.asarray(total))


def shared_s(moving_s: FloatArray, sample_s: FloatArray) -> float:
    """For how long the reference has samples while the other stream is not silent."""
    inside = (sample_s >= moving_s[0]) & (sample_s <= moving_s[-1]) & ~_silent(sample_s, moving_s)
    steps = max(0, int(inside.sum()) - 1)
    return float(steps * np.median(np.diff(sample_s))) if steps else 0.0


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Following:
    """Which cells follow the series, how far apart in time, and what chance reaches."""

    weights: FloatArray  # (K,), negative where a cell falls as the series rises
    lag_s: float
    chance: float  # of what agrees at lags that cannot be true, as a share of the best agreement

    @property
    def sign(self) -> int:
        return -1 if self.weights.sum() < 0 else 1


def cells_that_follow(
    sample_s: FloatArray,
    series: FloatArray,
    cell_s: FloatArray,
    cells: FloatArray,  # (N, K) at steps of COARSE_S
    *,
    reach_s: float,
    unrelated_s: float,
    signs: tuple[int, ...],
) -> Following:
    """The best lag within reach, and the cells that agree there.

    One Fourier transform gives the correlation at every lag there is: those within reach of the
    clocks say which cells follow; those more than `unrelated_s` beyond it, or from the best, cannot
    be true too and say what chance can do.
    """
    at_s = np.arange(sample_s[0], sample_s[-1], COARSE_S)
    rows = np.rint((at_s - cell_s[0]) / COARSE_S).astype(int)
    inside = (rows >= 0) & (rows < len(cell_s))
    even = np.interp(at_s, sample_s, series)
    seen = np.where(inside[:, None], cells[np.clip(rows, 0, len(cell_s) - 1)], 0.0)
    spectrum = np.fft.rfft(even)[:, None] * np.fft.rfft(seen, axis=0).conj()
    size = np.sqrt((even**2).sum() * (seen**2).sum(axis=0))
    agreement = np.fft.irfft(spectrum, n=at_s.size, axis=0) / np.maximum(size, 1e-9)  # (L, K)
    # few cells show what the series does, and all of them with one sign: let them lead
    score = np.stack([(np.maximum(sign * agreement, 0.0) ** 4).sum(axis=1) for sign in signs])
    lags_s = COARSE_S * np.fft.fftfreq(at_s.size, 1 / at_s.size)
    possible = np.where(np.abs(lags_s) <= reach_s, score, -1.0)
    which, best = (int(at) for at in np.unravel_index(possible.argmax(), score.shape))
    if not score[which, best] > 0.0:  # one of the streams never changes
        return Following(weights=np.zeros(cells.shape[1]), lag_s=0.0, chance=1.0)
    apart_s = np.abs(lags_s - lags_s[best])
    apart_s = np.minimum(apart_s, COARSE_S * at_s.size - apart_s)  # the transform is circular
    untrue = (np.abs(lags_s) > reach_s + unrelated_s) | (apart_s > unrelated_s)
    chance = (score[:, untrue].max(initial=0.0) / score[which, best]) ** 0.25
    weights = signs[which] * np.maximum(signs[which] * agreement[best], 0.0) ** 3
    return Following(weights=weights, lag_s=float(lags_s[best]), chance=float(chance))


@dataclasses.dataclass(frozen=True)
class BlockSums:
    """Products of both series per block and lag; the correlation of any set of blocks follows."""

    lags_s: FloatArray  # (L,)
    mid_s: FloatArray  # (B,) middle of each block
    cross: FloatArray  # (B, L)
    moving: FloatArray  # (B, L)
    series: FloatArray  # (B,)

    def agreement(self) -> FloatArray:
        """Correlation of the whole at every lag (L,)."""
        size = self.moving.sum(axis=0) * self.series.sum()
        return np.asarray(self.cross.sum(axis=0) / np.sqrt(np.maximum(size, 1e-9)))


def sum_blocks(
    sample_s: FloatArray,
    series: FloatArray,
    moving_s: FloatArray,
    moving: FloatArray,
    *,
    reach_s: float,
    blocks: int,
) -> BlockSums:
    """Cut the samples into blocks of equal length and sum over each."""
    reach = math.ceil(reach_s / LAG_STEP_S) + 1
    lags_s = np.asarray(LAG_STEP_S * np.arange(-reach, reach + 1), np.float64)
    inside = (sample_s >= moving_s[0]) & (sample_s <= moving_s[-1])
    sample_s, series = sample_s[inside], series[inside]
    edges_s = np.linspace(sample_s[0], sample_s[-1], blocks + 1)
    block_of = np.clip(np.searchsorted(edges_s, sample_s, side="right") - 1, 0, blocks - 1)
    rows = [
        _products(sample_s[block_of == block], series[block_of == block], moving_s, moving, lags_s)
        for block in range(blocks)
    ]
    return BlockSums(
        lags_s=lags_s,
        mid_s=(edges_s[:-1] + edges_s[1:]) / 2,
        cross=np.stack([cross for cross, _, _ in rows]),
        moving=np.stack([moving for _, moving, _ in rows]),
        series=np.array([series for _, _, series in rows]),
    )


def _products(
    sample_s: FloatArray,
    series: FloatArray,
    moving_s: FloatArray,
    moving: FloatArray,
    lags_s: FloatArray,
) -> tuple[FloatArray, FloatArray, float]:
    """Sums over one block: series by moving and moving by moving per lag, series by series."""
    seen = np.interp(sample_s[:, None] - lags_s, moving_s, moving, left=0.0, right=0.0)
    return series @ seen, (seen**2).sum(axis=0), float(series @ series)
