"""How far the lag of the best agreement can be trusted: blocks of evidence drawn again and again.

Shapes: (B,) blocks, (L,) lags, (R,) draws.
"""

import dataclasses
import math
import statistics

import numpy as np

from crosswatch.data.sync.lag import LAG_STEP_S, BlockSums, FloatArray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peak:
    """The best lag and drift of all blocks, and of every draw of as many with replacement."""

    lag_s: float
    drift_ppm: float
    correlation: float
    drawn_lags_s: FloatArray  # (R,)
    drawn_drifts_ppm: FloatArray  # (R,)
    blocks: int
    max_drift_ppm: float
    drift_step_ppm: float

    def lag_bound_s(self, *, level: float, floor_s: float) -> tuple[float, float]:
        """The interval that the draws span, widened for few blocks, never below the floor."""
        tail = 50 * (1 - level)
        low_s, high_s = np.percentile(self.drawn_lags_s, [tail, 100 - tail])
        _, widened = _deviations(self.blocks, level)
        below_s = math.hypot(widened * (self.lag_s - low_s), floor_s)
        above_s = math.hypot(widened * (high_s - self.lag_s), floor_s)
        return self.lag_s - below_s, self.lag_s + above_s

    def drift(self, *, level: float) -> tuple[float, float]:
        """The drift and its bound; one that the draws do not resolve is left at 0."""
        prior, spread = self.max_drift_ppm**2 / 3, float(np.var(self.drawn_drifts_ppm))
        if spread >= prior / 2:
            return 0.0, self.max_drift_ppm
        shrunk = prior / (prior + spread)
        deviations, _ = _deviations(self.blocks, level)
        bound_ppm = math.hypot(deviations * math.sqrt(shrunk * spread), self.drift_step_ppm)
        return self.drift_ppm * shrunk, bound_ppm


def resample(
    sums: BlockSums, t_mid_s: float, *, max_drift_ppm: float, resamples: int, seed: int
) -> Peak:
    rng = np.random.default_rng(seed)
    count = len(sums.mid_s)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    draws = np.concatenate([np.ones((1, count)), drawn.astype(np.float64)])
    drifts_ppm = _drifts_ppm(sums, max_drift_ppm)
    best = np.full((3, len(draws)), -np.inf)
    for drift_ppm in drifts_ppm:
        lags_s, height = _peaks(draws, sums, drift_ppm * 1e-6 * (sums.mid_s - t_mid_s))
        better = height > best[2]
        best[:, better] = lags_s[better], np.full(better.sum(), drift_ppm), height[better]
    return Peak(
        lag_s=float(best[0, 0]),
        drift_ppm=float(best[1, 0]),
        correlation=float(best[2, 0]),
        drawn_lags_s=best[0, 1:],
        drawn_drifts_ppm=best[1, 1:],
        blocks=count,
        max_drift_ppm=max_drift_ppm,
        drift_step_ppm=float(drifts_ppm[1] - drifts_ppm[0]),
    )


def _drifts_ppm(sums: BlockSums, max_drift_ppm: float) -> FloatArray:
    """Drifts so near to each other that the batch's ends move by no more than a step of lag."""
    end_s = max_drift_ppm * 1e-6 * float(sums.mid_s[-1] - sums.mid_s[0]) / 2
    steps = max(1, math.ceil(end_s / LAG_STEP_S))
    return np.linspace(-max_drift_ppm, max_drift_ppm, 2 * steps + 1)


def _peaks(
    draws: FloatArray, sums: BlockSums, shifts_s: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Lag of the best correlation of every draw, refined between steps, and its height."""
    lags_s = sums.lags_s
    moved = np.stack(
        [
            np.stack([np.interp(lags_s + shift_s, lags_s, row) for row in rows])
            for shift_s, *rows in zip(shifts_s, sums.cross, sums.moving, strict=True)
        ]
    )
    size = draws @ moved[:, 1]
    height = (draws @ moved[:, 0]) / np.sqrt(
        np.maximum(size * (draws @ sums.series)[:, None], 1e-9)
    )
    at = np.clip(height.argmax(axis=1), 1, len(lags_s) - 2)
    row = np.arange(len(at))
    left, peak, right = (height[row, at + step] for step in (-1, 0, 1))
    bend = left - 2 * peak + right
    moved_steps = np.where(bend < 0, 0.5 * (left - right) / np.minimum(bend, -1e-12), 0.0)
    return lags_s[at] + LAG_STEP_S * np.clip(moved_steps, -0.5, 0.5), peak


def _deviations(blocks: int, level: float) -> tuple[float, float]:
    """Student's quantile, and by how much few blocks make a bootstrap too sure of itself."""
    normal = statistics.NormalDist().inv_cdf(0.5 + level / 2)
    student = normal + (normal**3 + normal) / (4 * (blocks - 1))
    return student, student / normal * math.sqrt(blocks / (blocks - 1))
