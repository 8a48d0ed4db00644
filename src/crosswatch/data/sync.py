"""Two clocks, one instant: camera against control system, from flame brightness and arc current.

The flame is brighter when the arc draws more, so the brightness is a noisy copy of the current.
Both are freed of everything slower than some seconds (ambient light, mist, set-points), and the
lag at which they agree best over all blocks of the batch is the clocks' difference. Blocks drawn
again and again with replacement (a bootstrap) say how far that lag can be trusted.

`lag` holds the arithmetic of the two series; here it is resampled, bounded and judged.
"""

import dataclasses
import math
import statistics
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from crosswatch.data import lag
from crosswatch.data.lag import LAG_STEP_S, FloatArray
from crosswatch.errors import BadBatchError, UserError

LEAST_BLOCKS = 8
CHANCE_SHARE = 0.9  # what agrees by chance has to stay this far below what is believed


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyncConfig:
    """How the clocks are aligned, and what counts as aligned."""

    estimate: Literal["brightness", "given"] = "brightness"
    camera_lag_s: float = 0.0  # control minus camera clock at mid-batch, for `given`
    drift_ppm: float = 0.0  # for `given`
    max_offset_s: float = 3.0  # how far apart the clocks are sought
    max_drift_ppm: float = 100.0  # a crystal's error; larger ones are not sought
    max_bound_s: float = 0.5  # a wider 95 % bound is refused
    max_gap_s: float = 5.0  # windows do not cross a longer silence of either stream
    slower_than_s: float = 5.0  # what changes more slowly is no evidence (light, mist, set-points)
    block_s: float = 20.0  # independent pieces of evidence; longer than what is left correlates
    level: float = 0.95
    floor_s: float = 0.04  # no bound is narrower: one frame, stamps' jitter, steps of the search
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("max_offset_s", "max_bound_s", "max_gap_s", "slower_than_s", "block_s"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}; it has to be above 0")
        if not 0.5 <= self.level < 1.0:
            raise UserError(f"level is {self.level}; it has to be in 0.5..1, 1 excluded")
        if self.resamples < 100:
            raise UserError(f"resamples is {self.resamples}; at least 100 are needed for a bound")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClockMap:
    """t_ref = t_cam + offset + drift * (t_cam - t_mid), and how well that is known."""

    method: str
    offset_s: float = 0.0
    offset_low_s: float | None = None
    offset_high_s: float | None = None
    drift_ppm: float = 0.0
    drift_bound_ppm: float | None = None
    t_mid_s: float = 0.0
    correlation: float | None = None
    correlation_by_chance: float | None = None

    @property
    def half_width_s(self) -> float | None:
        if self.offset_low_s is None or self.offset_high_s is None:
            return None
        return (self.offset_high_s - self.offset_low_s) / 2

    def to_reference(self, camera_s: FloatArray) -> FloatArray:
        drift_s = self.drift_ppm * 1e-6 * (camera_s - self.t_mid_s)
        return np.asarray(camera_s + self.offset_s + drift_s, np.float64)

    def described(self) -> dict[str, Any]:
        """As sync.json says it."""
        return {
            "method": self.method,
            "camera_offset_s": self.offset_s,
            "camera_offset_bound_s": {
                "low": self.offset_low_s,
                "high": self.offset_high_s,
                "half_width": self.half_width_s,
            },
            "bound_half_width_s": self.half_width_s,
            "drift_ppm": self.drift_ppm,
            "drift_bound_ppm": self.drift_bound_ppm,
            "t_mid_s": self.t_mid_s,
            "mapping": "t_ref = t_cam + camera_offset_s + drift_ppm * 1e-6 * (t_cam - t_mid_s)",
            "correlation": self.correlation,
            "correlation_by_chance": self.correlation_by_chance,
        }


def given(config: SyncConfig, *, t_mid_s: float) -> ClockMap:
    """The clocks' difference as the user knows it; no bound is claimed."""
    return ClockMap(
        method="given",
        offset_s=config.camera_lag_s,
        drift_ppm=config.drift_ppm,
        t_mid_s=t_mid_s,
    )


def estimate(
    camera_s: FloatArray,
    brightness: npt.NDArray[np.floating],
    signal_s: FloatArray,
    signal: npt.NDArray[np.floating],
    config: SyncConfig,
) -> ClockMap:
    """Find the camera clock's offset at mid-batch and its drift, with their bounds.

    Raises:
        BadBatchError: the streams do not agree beyond chance, only at the edge of the search,
            or too vaguely.
    """
    _check_overlap(camera_s, signal_s, config)
    t_mid_s = float(camera_s[0] + camera_s[-1]) / 2
    sums, chance = _evidence(camera_s, brightness, signal_s, signal, config)
    lags_s, drifts_ppm, correlation = _resampled(sums, t_mid_s, config)
    found = _bounded(lags_s, drifts_ppm, t_mid_s, sums, config)
    _check_limits(found, config)
    return dataclasses.replace(
        found,
        correlation=float(correlation[0]),
        correlation_by_chance=float(correlation[0]) * chance,
    )


def _evidence(
    camera_s: FloatArray,
    brightness: npt.NDArray[np.floating],
    signal_s: FloatArray,
    signal: npt.NDArray[np.floating],
    config: SyncConfig,
) -> tuple[lag.BlockSums, float]:
    """The flame's light against the current, block by block, and the share that chance reaches."""
    period_s = max(lag.COARSE_S, float(np.median(np.diff(signal_s))))
    slower_than_s = config.slower_than_s
    sample_s, current = lag.current_of(signal_s, signal, period_s, slower_than_s)
    coarse_s, lights = lag.lights_of(
        camera_s, brightness, period_s, slower_than_s, step_s=lag.COARSE_S
    )
    weights, chance = lag.cells_that_follow(
        sample_s,
        current,
        coarse_s,
        lights,
        max_offset_s=config.max_offset_s,
        unrelated_s=slower_than_s,
    )
    _check_chance(chance, config)
    light_s, light = lag.flame_of(camera_s, brightness, weights, period_s, slower_than_s)
    blocks = max(LEAST_BLOCKS, int((sample_s[-1] - sample_s[0]) / config.block_s))
    sums = lag.sum_blocks(
        sample_s, current, light_s, light, max_offset_s=config.max_offset_s, blocks=blocks
    )
    return sums, chance


def _check_overlap(camera_s: FloatArray, signal_s: FloatArray, config: SyncConfig) -> None:
    common_s = min(camera_s[-1], signal_s[-1]) - max(camera_s[0], signal_s[0])
    least_s = LEAST_BLOCKS * config.slower_than_s / 2
    if common_s < least_s:
        raise _refusal(
            f"video ({camera_s[0]:.1f}..{camera_s[-1]:.1f} s) and signal ({signal_s[0]:.1f}.."
            f"{signal_s[-1]:.1f} s) share {max(common_s, 0.0):.1f} s; {least_s:.0f} s are needed"
        )


def _resampled(
    sums: lag.BlockSums, t_mid_s: float, config: SyncConfig
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Best lag, drift and correlation of the blocks as they are (first) and drawn again (R)."""
    rng = np.random.default_rng(config.seed)
    count = len(sums.mid_s)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=config.resamples)
    draws = np.concatenate([np.ones((1, count)), drawn.astype(np.float64)])
    best = np.full((3, len(draws)), -np.inf)
    for drift_ppm in _drifts_ppm(sums, config):
        lags_s, height = _peaks(draws, sums, drift_ppm * 1e-6 * (sums.mid_s - t_mid_s))
        better = height > best[2]
        best[:, better] = lags_s[better], np.full(better.sum(), drift_ppm), height[better]
    return best[0], best[1], best[2]


def _drifts_ppm(sums: lag.BlockSums, config: SyncConfig) -> FloatArray:
    """Drifts so near to each other that the batch's ends move by no more than a step of lag."""
    end_s = config.max_drift_ppm * 1e-6 * float(sums.mid_s[-1] - sums.mid_s[0]) / 2
    steps = max(1, math.ceil(end_s / LAG_STEP_S))
    return np.linspace(-config.max_drift_ppm, config.max_drift_ppm, 2 * steps + 1)


def _peaks(
    draws: FloatArray, sums: lag.BlockSums, shifts_s: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Lag of the best correlation of every draw, refined between steps, and its height."""
    lags_s = sums.lags_s
    moved = np.stack(
        [
            np.stack([np.interp(lags_s + shift_s, lags_s, row) for row in rows])
            for shift_s, *rows in zip(shifts_s, sums.cross, sums.light, strict=True)
        ]
    )
    light = draws @ moved[:, 1]
    height = (draws @ moved[:, 0]) / np.sqrt(
        np.maximum(light * (draws @ sums.current)[:, None], 1e-9)
    )
    at = np.clip(height.argmax(axis=1), 1, len(lags_s) - 2)
    row = np.arange(len(at))
    left, peak, right = (height[row, at + step] for step in (-1, 0, 1))
    bend = left - 2 * peak + right
    moved_steps = np.where(bend < 0, 0.5 * (left - right) / np.minimum(bend, -1e-12), 0.0)
    return lags_s[at] + LAG_STEP_S * np.clip(moved_steps, -0.5, 0.5), peak


def _bounded(
    lags_s: FloatArray,
    drifts_ppm: FloatArray,
    t_mid_s: float,
    sums: lag.BlockSums,
    config: SyncConfig,
) -> ClockMap:
    """Intervals from the spread over draws; a drift that they do not resolve is left at 0."""
    offset_s, tail = float(lags_s[0]), 50 * (1 - config.level)
    low_s, high_s = np.percentile(lags_s[1:], [tail, 100 - tail])
    deviations, widened = _deviations(len(sums.mid_s), config.level)
    prior, spread = config.max_drift_ppm**2 / 3, float(np.var(drifts_ppm[1:]))
    drift_ppm, drift_bound_ppm = 0.0, config.max_drift_ppm
    if spread < prior / 2:
        shrunk = prior / (prior + spread)
        drift_ppm = float(drifts_ppm[0]) * shrunk
        step_ppm = float(np.diff(_drifts_ppm(sums, config))[0])
        drift_bound_ppm = math.hypot(deviations * math.sqrt(shrunk * spread), step_ppm)
    return ClockMap(
        method="brightness",
        offset_s=offset_s,
        offset_low_s=offset_s - math.hypot(widened * (offset_s - low_s), config.floor_s),
        offset_high_s=offset_s + math.hypot(widened * (high_s - offset_s), config.floor_s),
        drift_ppm=drift_ppm,
        drift_bound_ppm=drift_bound_ppm,
        t_mid_s=t_mid_s,
    )


def _deviations(blocks: int, level: float) -> tuple[float, float]:
    """Student's quantile, and by how much few blocks make a bootstrap too sure of itself."""
    normal = statistics.NormalDist().inv_cdf(0.5 + level / 2)
    student = normal + (normal**3 + normal) / (4 * (blocks - 1))
    return student, student / normal * math.sqrt(blocks / (blocks - 1))


def _check_chance(chance: float, config: SyncConfig) -> None:
    if chance >= CHANCE_SHARE:
        raise _refusal(
            f"brightness and current agree only {1 / chance:.2f} times as well within "
            f"{config.max_offset_s:g} s as at impossible lags; {1 / CHANCE_SHARE:.2f} are needed"
        )


def _check_limits(found: ClockMap, config: SyncConfig) -> None:
    assert found.half_width_s is not None
    if abs(found.offset_s) > config.max_offset_s - LAG_STEP_S:
        raise _refusal(
            f"the best agreement lies at the edge of the search, {found.offset_s:+.2f} s of "
            f"+-{config.max_offset_s:g} s"
        )
    if found.half_width_s > config.max_bound_s:
        raise _refusal(
            f"the offset is {found.offset_s:+.2f} s, known to +-{found.half_width_s:.2f} s; "
            f"+-{config.max_bound_s:g} s are allowed (sync.max_bound_s)"
        )


def _refusal(why: str) -> BadBatchError:
    return BadBatchError(
        f"sync outside limits: {why}. If you know the clocks' difference, set "
        "sync.estimate=given and sync.camera_lag_s."
    )
