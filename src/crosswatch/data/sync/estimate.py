"""Two clocks, one instant: the lag at which two streams agree best is their clocks' difference.

A flame is brighter when the arc draws more, so its brightness is a noisy copy of the current.
Both are freed of everything slower than some seconds (ambient light, mist, set-points), and the
lag at which they agree best over all blocks of the batch is the clocks' difference. Blocks drawn
again and again with replacement (a bootstrap) say how far that lag can be trusted.

`lag` makes the two streams comparable, `bounds` resamples them; here it is judged.
"""

import dataclasses
import math
from typing import Literal

import numpy as np

from crosswatch.data.sync import bounds, evidence, lag
from crosswatch.data.sync.clocks import (
    Check,
    ClockMap,
    Course,
    Finding,
    Reach,
    Trace,
    at_least,
    at_most,
)
from crosswatch.data.sync.lag import LAG_STEP_S
from crosswatch.errors import BadBatchError, UserError

LEAST_BLOCKS = 8
CHANCE_SHARE = 0.9  # what agrees by chance has to stay this far below what is believed


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyncConfig:
    """How the clocks are aligned, and what counts as aligned."""

    estimate: Literal["auto", "features", "triggers", "given"] = "auto"
    video: Literal["brightness", "motion"] = "brightness"  # what of the pictures tells the time
    signal: str = "power"  # and of the signal: power, column:NAME or change:NAME
    camera_lag_s: float = 0.0  # reference minus camera clock at mid-batch, for `given`
    drift_ppm: float = 0.0  # for `given`
    audio_lag_s: float | None = None  # reference minus audio clock, where it is known
    audio_drift_ppm: float = 0.0  # for a known audio_lag_s
    audio_required: bool = False  # whether a batch is refused when its audio cannot be aligned
    max_offset_s: float = 3.0  # how far apart the clocks are sought
    max_drift_ppm: float = 100.0  # a crystal's error; larger ones are not sought
    max_bound_s: float = 0.5  # a wider 95 % bound is refused
    max_gap_s: float = 5.0  # windows do not cross a longer silence of either stream
    min_coverage_share: float = 0.5  # of the batch's time that all its streams have to cover
    max_lost_share: float = 0.25  # of the frames whose stretch between two resets is not found
    slower_than_s: float = 5.0  # what changes more slowly is no evidence (light, mist, set-points)
    block_s: float = 20.0  # independent pieces of evidence; longer than what is left correlates
    level: float = 0.95
    floor_s: float = 0.04  # no bound is narrower: one frame, stamps' jitter, steps of the search
    trigger_jitter_s: float = 0.04  # two clocks' stamps of one pulse differ by no more
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        positive = ("max_offset_s", "max_bound_s", "max_gap_s", "slower_than_s", "block_s")
        for name in (*positive, "max_drift_ppm", "trigger_jitter_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} is {getattr(self, name)}; it has to be above 0")
        for name in ("min_coverage_share", "max_lost_share"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected 0..1, 1 excluded")
        if not 0.5 <= self.level < 1.0:
            raise UserError(f"level is {self.level}; it has to be in 0.5..1, 1 excluded")
        if self.resamples < 100:
            raise UserError(f"resamples is {self.resamples}; at least 100 are needed for a bound")
        if not evidence.is_signal_feature(self.signal):
            raise UserError(
                f"signal is {self.signal!r}; expected power, column:NAME or change:NAME"
            )


def estimate(moving: Course, reference: Course, config: SyncConfig) -> ClockMap:
    """Find the offset at mid-batch of the moving stream's clock, and its drift, with their bounds.

    Raises:
        BadBatchError: the streams do not agree beyond chance, only at the edge of the search,
            or too vaguely.
    """
    found = search(moving, reference, config)
    if found.refusal:
        raise BadBatchError(found.refusal)
    return found.clock


def search(
    moving: Course,
    reference: Course,
    config: SyncConfig,
    reach: Reach | None = None,
    *,
    about: str = "",
) -> Finding:
    """As `estimate`, saying what failed and what was seen instead of raising.

    `about` is the stream whose clock is in question, if it is not the moving one.
    """
    about = about or moving.stream
    reach = reach or Reach(centre_s=0.0, half_s=config.max_offset_s)
    method = f"{moving.feature} against {reference.feature}"
    shared = _check_shared(about, moving, reference, config, reach)
    if not shared.passed:
        return Finding(clock=ClockMap(method=method), checks=(shared,))
    compared = _compare(moving, reference, config, reach)
    chance = _check_chance(about, moving, reference, compared.following.chance, config)
    if not chance.passed:
        clock = ClockMap(method=method, offset_s=compared.best_s)
        return Finding(clock=clock, checks=(shared, chance), trace=compared.trace)
    t_mid_s, shift_s = float(moving.times_s[0] + moving.times_s[-1]) / 2, compared.shift_s
    peak = bounds.resample(
        compared.sums,
        t_mid_s + shift_s,
        max_drift_ppm=config.max_drift_ppm,
        resamples=config.resamples,
        seed=config.seed,
    )
    low_s, high_s = peak.lag_bound_s(level=config.level, floor_s=config.floor_s)
    drift_ppm, drift_bound_ppm = peak.drift(level=config.level)
    clock = ClockMap(
        method=method,
        offset_s=shift_s + peak.lag_s,
        offset_low_s=shift_s + low_s,
        offset_high_s=shift_s + high_s,
        drift_ppm=drift_ppm,
        drift_bound_ppm=drift_bound_ppm,
        t_mid_s=t_mid_s,
        correlation=compared.following.sign * peak.correlation,
        correlation_by_chance=peak.correlation * compared.following.chance,
    )
    limits = _check_limits(about, clock, config, reach)
    return Finding(clock=clock, checks=(shared, chance, *limits), trace=compared.trace)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Compared:
    """The moving stream, already `shift_s` later than its own clock says, against the series."""

    shift_s: float
    following: lag.Following
    sums: lag.BlockSums
    trace: Trace

    @property
    def best_s(self) -> float:
        return float(self.trace.offsets_s[self.trace.agreement.argmax()])


def look(moving: Course, reference: Course, config: SyncConfig, offset_s: float) -> Trace | None:
    """Both streams around a known offset, for a figure; None where they share too little."""
    if reference.values.ndim > 1:
        turned = look(reference, moving.mean(), config, -offset_s)
        return None if turned is None else turned.turned()
    reach = Reach(centre_s=offset_s, half_s=config.max_offset_s)
    if not _check_shared(moving.stream, moving, reference, config, reach).passed:
        return None
    return _compare(moving, reference, config, reach).trace


def _compare(moving: Course, reference: Course, config: SyncConfig, reach: Reach) -> _Compared:
    """Both streams without what is slow, block by block, near the lag of their best agreement."""
    period_s = max(lag.COARSE_S, float(np.median(np.diff(reference.times_s))))
    slower_than_s, shift_s = config.slower_than_s, reach.centre_s
    sample_s, series = lag.lively_series(
        reference.times_s, reference.values, period_s, slower_than_s
    )
    coarse_s, cells = lag.lively_cells(
        moving.times_s + shift_s, moving.values, period_s, slower_than_s, step_s=lag.COARSE_S
    )
    following = lag.cells_that_follow(
        sample_s,
        series,
        coarse_s,
        cells,
        reach_s=reach.half_s,
        unrelated_s=config.slower_than_s,
        signs=evidence.signs_of(moving.feature, reference.feature),
    )
    if reach.half_s > config.max_offset_s:  # too far to go finely over all of it
        shift_s += following.lag_s
    moved_s, moved = lag.weighted(
        moving.times_s + shift_s, moving.values, following.weights, period_s, slower_than_s
    )
    blocks = max(LEAST_BLOCKS, int((sample_s[-1] - sample_s[0]) / config.block_s))
    fine_s = min(reach.half_s, config.max_offset_s)
    sums = lag.sum_blocks(sample_s, series, moved_s, moved, reach_s=fine_s, blocks=blocks)
    trace = Trace(
        names=(moving.feature, reference.feature),
        series_s=sample_s,
        series=series,
        moving_s=moved_s - shift_s,
        moving=moved,
        offsets_s=sums.lags_s + shift_s,
        agreement=sums.agreement(),
    )
    return _Compared(shift_s=shift_s, following=following, sums=sums, trace=trace)


def _check_shared(
    about: str, moving: Course, reference: Course, config: SyncConfig, reach: Reach
) -> Check:
    """Streams that hardly overlap cannot be compared at all."""
    m, r = moving.times_s, reference.times_s
    shared_s = lag.shared_s(m + reach.centre_s, r)
    least_s = LEAST_BLOCKS * config.slower_than_s / 2
    return at_least(
        about,
        "shared_s",
        shared_s,
        least_s,
        refusal(
            about,
            f"{moving.stream} ({m[0]:.1f}..{m[-1]:.1f} s) and {reference.stream} ({r[0]:.1f}.."
            f"{r[-1]:.1f} s) share {shared_s:.1f} s; {least_s:.0f} s are needed",
        ),
    )


def _check_chance(
    about: str, moving: Course, reference: Course, chance: float, config: SyncConfig
) -> Check:
    return at_most(
        about,
        "agreement_by_chance",
        chance,
        CHANCE_SHARE,
        refusal(
            about,
            f"{moving.feature} and {reference.feature} agree only {1 / max(chance, 1e-9):.2f} "
            f"times as well within {config.max_offset_s:g} s as at impossible lags; "
            f"{1 / CHANCE_SHARE:.2f} are needed",
        ),
    )


def _check_limits(
    stream: str, found: ClockMap, config: SyncConfig, reach: Reach
) -> tuple[Check, Check]:
    assert found.half_width_s is not None
    edge = refusal(
        stream,
        f"the best agreement lies at the edge of the search, {found.offset_s:+.2f} s of "
        f"{f'{reach.centre_s:+.2f} ' if reach.centre_s else ''}+-{reach.half_s:g} s",
    )
    return (
        at_most(
            stream,
            "offset_s",
            abs(found.offset_s - reach.centre_s),
            reach.half_s - LAG_STEP_S,
            edge,
        ),
        check_bound(stream, found, config),
    )


def check_bound(stream: str, found: ClockMap, config: SyncConfig) -> Check:
    assert found.half_width_s is not None
    return at_most(
        stream,
        "bound_half_width_s",
        found.half_width_s,
        config.max_bound_s,
        refusal(
            stream,
            f"the offset is {found.offset_s:+.2f} s, known to +-{found.half_width_s:.2f} s; "
            f"+-{config.max_bound_s:g} s are allowed (sync.max_bound_s)",
        ),
    )


def refusal(stream: str, why: str) -> str:
    """The one line that a batch is quarantined with, and how to overrule it."""
    known = "sync.audio_lag_s" if stream == "audio" else "sync.estimate=given and sync.camera_lag_s"
    return f"sync outside limits: {why}. If you know the clocks' difference, set {known}."
