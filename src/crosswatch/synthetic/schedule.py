"""When things happen in a batch: anomalies, harmless glows, feeding, mist and light.

All times are seconds on the control system's clock, counted from the batch's start.
"""

from dataclasses import dataclass

import numpy as np

from crosswatch.errors import UserError
from crosswatch.synthetic import difficulty
from crosswatch.synthetic.noise import TimeArray, smooth_step

EVENT_DURATION_S = (5.0, 20.0)
EVENT_CLASS = "semi_molten"
MIN_GAP_S = 5.0
"""Least quiet time between two anomalies, so that they stay separate events."""
MIST_EDGE_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Event:
    """One anomaly: a spot that grows from onset to apex and fades to offset."""

    onset_s: float
    apex_s: float
    offset_s: float
    peak_levels: float
    trace_delay_s: float
    trace_strength: float
    centre_share: tuple[float, float]
    """Where its centre lies, (x, y) relative to the frame."""


@dataclass(frozen=True, kw_only=True)
class Distractor:
    """A harmless glow: visible, but without a trace in the current."""

    start_s: float
    end_s: float
    peak_levels: float
    lookalike: bool
    centre_share: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Raw material falls in: all phases dip together and recover; nothing is wrong."""

    start_s: float
    dip_share: float
    recovery_s: float


@dataclass(frozen=True, kw_only=True)
class Step:
    """From `start_s` on the ambient light has this level; or mist surges for `duration_s`."""

    start_s: float
    level: float
    duration_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Everything that happens in one batch."""

    duration_s: float
    events: tuple[Event, ...]
    distractors: tuple[Distractor, ...]
    feeds: tuple[Feed, ...]
    ambient: tuple[Step, ...]
    mist_surges: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class EventLimits:
    """How many anomalies a batch has and what share of its time they take."""

    count_min: int
    count_max: int
    share_min: float
    share_max: float
    margin_s: float
    """Quiet time at both ends, so that every anomaly is on both records whatever the clocks do."""


def plan_batch(rng: np.random.Generator, *, duration_s: float, limits: EventLimits) -> Schedule:
    """Draw one batch's course of events."""
    return Schedule(
        duration_s=duration_s,
        events=plan_events(rng, duration_s=duration_s, limits=limits),
        distractors=_plan_distractors(rng, duration_s),
        feeds=_plan_feeds(rng, duration_s),
        ambient=_plan_ambient(rng, duration_s),
        mist_surges=_plan_mist(rng, duration_s),
    )


def plan_events(
    rng: np.random.Generator, *, duration_s: float, limits: EventLimits
) -> tuple[Event, ...]:
    """Spread anomalies over the batch so that any long stretch of time holds some."""
    abnormal_s = duration_s * rng.uniform(limits.share_min, limits.share_max)
    count = _draw_count(rng, abnormal_s, duration_s, limits)
    lengths_s = _fit_total(rng.uniform(*EVENT_DURATION_S, size=count), abnormal_s)
    spare_s = duration_s - abnormal_s - 2 * limits.margin_s - (count - 1) * MIN_GAP_S
    gaps_s = spare_s * rng.dirichlet(np.full(count + 1, 3.0))
    gaps_s[1:count] += MIN_GAP_S
    onsets_s = limits.margin_s + np.cumsum(gaps_s[:count]) + np.cumsum(lengths_s) - lengths_s
    faint = rng.permutation(count) < round(difficulty.FAINT_SHARE * count)
    return tuple(
        _draw_event(rng, float(onset), float(length), bool(is_faint))
        for onset, length, is_faint in zip(onsets_s, lengths_s, faint, strict=True)
    )


def _draw_count(
    rng: np.random.Generator, abnormal_s: float, duration_s: float, limits: EventLimits
) -> int:
    """Draw a number of anomalies that this much abnormal time can be divided into."""
    shortest_s, longest_s = EVENT_DURATION_S
    quiet_s = duration_s - abnormal_s - 2 * limits.margin_s
    fewest = max(limits.count_min, int(np.ceil(abnormal_s / longest_s)))
    most = min(limits.count_max, int(abnormal_s / shortest_s), int(quiet_s / MIN_GAP_S) + 1)
    if fewest > most:
        raise UserError(
            f"simulate: {duration_s / 60:g} minutes with {abnormal_s:.0f} s of anomalies of "
            f"{shortest_s:g}-{longest_s:g} s hold at least {np.ceil(abnormal_s / longest_s):.0f} "
            f"and at most {min(abnormal_s / shortest_s, quiet_s / MIN_GAP_S + 1):.0f} of them; "
            f"asked for {limits.count_min}-{limits.count_max}. "
            "Change simulate.minutes, events_min, events_max or abnormal_share_*."
        )
    return int(rng.integers(fewest, most + 1))


def _fit_total(lengths_s: TimeArray, total_s: float) -> TimeArray:
    """Scale lengths to a total while each stays within the allowed duration."""
    low, high = 0.0, 100.0
    for _ in range(80):
        factor = (low + high) / 2
        fitted = np.clip(lengths_s * factor, *EVENT_DURATION_S)
        low, high = (factor, high) if fitted.sum() < total_s else (low, factor)
    return np.asarray(fitted, dtype=np.float64)


def _draw_event(rng: np.random.Generator, onset_s: float, length_s: float, faint: bool) -> Event:
    levels = difficulty.FAINT_PEAK_LEVELS if faint else difficulty.SPOT_PEAK_LEVELS
    return Event(
        onset_s=onset_s,
        apex_s=onset_s + length_s * rng.uniform(0.3, 0.7),
        offset_s=onset_s + length_s,
        peak_levels=rng.uniform(*levels),
        trace_delay_s=rng.uniform(*difficulty.TRACE_DELAY_S),
        trace_strength=rng.uniform(0.6, 1.4),
        centre_share=(rng.uniform(0.22, 0.78), rng.uniform(0.45, 0.85)),
    )


def _starts(rng: np.random.Generator, duration_s: float, per_minute: float) -> TimeArray:
    count = max(1, round(per_minute * duration_s / 60))
    return np.sort(rng.uniform(0.0, duration_s, size=count))


def _plan_distractors(rng: np.random.Generator, duration_s: float) -> tuple[Distractor, ...]:
    starts_s = _starts(rng, duration_s, difficulty.DISTRACTORS_PER_MINUTE)
    lookalikes = rng.permutation(starts_s.size) < round(difficulty.LOOKALIKE_SHARE * starts_s.size)
    return tuple(
        Distractor(
            start_s=float(start),
            end_s=float(start + rng.uniform(*difficulty.DISTRACTOR_DURATION_S)),
            peak_levels=rng.uniform(
                *(difficulty.LOOKALIKE_PEAK_LEVELS if alike else difficulty.GLARE_PEAK_LEVELS)
            ),
            lookalike=bool(alike),
            centre_share=(rng.uniform(0.22, 0.78), rng.uniform(0.45, 0.85)),
        )
        for start, alike in zip(starts_s, lookalikes, strict=True)
    )


def _plan_feeds(rng: np.random.Generator, duration_s: float) -> tuple[Feed, ...]:
    feeds = []
    start_s = rng.uniform(0.0, difficulty.FEED_INTERVAL_S[1])
    while start_s < duration_s:
        dip_share, recovery_s = rng.uniform(*difficulty.FEED_DIP_SHARE), rng.uniform(3.0, 7.0)
        feeds.append(Feed(start_s=start_s, dip_share=dip_share, recovery_s=recovery_s))
        start_s += rng.uniform(*difficulty.FEED_INTERVAL_S)
    return tuple(feeds)


def _plan_ambient(rng: np.random.Generator, duration_s: float) -> tuple[Step, ...]:
    starts_s = _starts(rng, duration_s, difficulty.AMBIENT_STEPS_PER_MINUTE)
    return tuple(
        Step(start_s=float(start), level=rng.uniform(*difficulty.AMBIENT_RANGE))
        for start in starts_s
    )


def _plan_mist(rng: np.random.Generator, duration_s: float) -> tuple[Step, ...]:
    starts_s = _starts(rng, duration_s, difficulty.MIST_SURGES_PER_MINUTE) - 5.0
    return tuple(
        Step(
            start_s=float(start),
            level=rng.uniform(0.4, 1.0),
            duration_s=rng.uniform(*difficulty.MIST_SURGE_DURATION_S),
        )
        for start in starts_s
    )


def mist_surges(schedule: Schedule, times_s: TimeArray) -> TimeArray:
    """How much the surges add to the mist at these instants, 0 where there is none."""
    density = np.zeros(times_s.size)
    for surge in schedule.mist_surges:
        rising = smooth_step((times_s - surge.start_s) / MIST_EDGE_S)
        fading = smooth_step((surge.start_s + surge.duration_s - times_s) / MIST_EDGE_S)
        density = np.maximum(density, surge.level * np.minimum(rising, fading))
    return density
