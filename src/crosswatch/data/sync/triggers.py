"""Pulses that two clocks saw: which belong together, and what that says about the clocks.

A trigger output, a flash or a sync pulse is stamped by both clocks. Either may miss some and see
others that are none. The offset (and drift) at which most pulses of the one meet one of the other
is the clocks' difference, as long as no other offset does nearly as well: an even row of pulses
fits itself at every period.

Shapes: (N,) pulses of the clock that is sought, (M,) of the reference, (P,) pairs of both.
"""

import math

import numpy as np
import numpy.typing as npt

from crosswatch.data.sync.clocks import Check, ClockMap, Finding, at_least, at_most
from crosswatch.data.sync.estimate import SyncConfig, check_bound, refusal
from crosswatch.data.sync.lag import FloatArray

LEAST_PULSES = 5
LEAST_SHARE = 1 / 3  # of the pulses that could have a partner
RIVAL_SHARE = 0.8  # of the pulses that the best offset matches; every other has to match fewer
SPACING = 8  # times the jitter that pulses lie apart, or a wrong neighbour is as good as the right
VOTERS = 400  # pulses that look for offsets; more would only repeat them
STAMP_S = 0.001  # no bound is narrower than what stamps are rounded to
ROUNDS = 10  # of weighing and fitting; the weights settle in three or four


def match(
    stream: str, pulses_s: FloatArray, reference_s: FloatArray, t_mid_s: float, config: SyncConfig
) -> Finding:
    """The offset at `t_mid_s` and the drift of a stream's clock, from pulses of both clocks."""
    pulses_s, reference_s = np.unique(pulses_s), np.unique(reference_s)
    unknown = ClockMap(method="triggers", t_mid_s=t_mid_s)
    usable = (
        _check_count(stream, min(pulses_s.size, reference_s.size)),
        *(_check_spacing(stream, times_s, config) for times_s in (pulses_s, reference_s)),
    )
    if not all(check.passed for check in usable):
        return Finding(clock=unknown, checks=usable)
    offsets_s, drifts_ppm, votes = _vote(pulses_s, reference_s, t_mid_s, config)
    strong = votes >= RIVAL_SHARE * votes.max()
    near = strong & (np.abs(offsets_s) <= config.max_offset_s)
    chosen = strong if strong.sum() == 1 or not near.any() else near
    best = int(np.flatnonzero(chosen)[votes[chosen].argmax()])
    alone = _check_alone(stream, offsets_s[chosen], config)
    start = (float(offsets_s[best]), float(drifts_ppm[best]))
    at, _ = _pairs(pulses_s, reference_s, t_mid_s, start, config)
    possible = _possible(pulses_s + start[0], reference_s)
    matched = (_check_count(stream, at.size), _check_share(stream, at.size, possible))
    checks = (*usable[1:], *matched, alone)
    if not all(check.passed for check in checks):
        return Finding(clock=unknown, checks=checks)
    clock = _fitted(pulses_s, reference_s, t_mid_s, start, config)
    return Finding(clock=clock, checks=(*checks, check_bound(stream, clock, config)))


def _vote(
    pulses_s: FloatArray, reference_s: FloatArray, t_mid_s: float, config: SyncConfig
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """Offsets that differ, the drift at which most pairs agree on each, and how many do."""
    few = np.unique(np.linspace(0, pulses_s.size - 1, min(VOTERS, pulses_s.size)).astype(int))
    cell_s = config.trigger_jitter_s
    end_s = float(np.abs(pulses_s - t_mid_s).max())
    steps = max(1, math.ceil(config.max_drift_ppm * 1e-6 * end_s / cell_s))
    found: list[tuple[float, float, int]] = []
    for drift_ppm in np.linspace(-config.max_drift_ppm, config.max_drift_ppm, 2 * steps + 1):
        drifted_s = pulses_s[few] + 1e-6 * drift_ppm * (pulses_s[few] - t_mid_s)
        pairs_s = (reference_s - drifted_s[:, None]).ravel()
        cells, counts = np.unique(np.floor(pairs_s / cell_s).astype(np.int64), return_counts=True)
        # a pulse's true pairs may fall on both sides of a cell's border
        after = np.append(np.where(np.diff(cells) == 1, counts[1:], 0), 0)
        votes = counts + after
        for index in np.flatnonzero(votes >= RIVAL_SHARE * votes.max()):
            found.append(((cells[index] + 1) * cell_s, float(drift_ppm), int(votes[index])))
    return _merged(found, apart_s=SPACING / 2 * cell_s)


def _merged(
    found: list[tuple[float, float, int]], *, apart_s: float
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
    """One of each run of offsets that lie close together: the one with most votes."""
    ordered = sorted(found)
    runs: list[tuple[float, float, int]] = []
    last_s = -math.inf
    for offset_s, drift_ppm, votes in ordered:
        if offset_s - last_s > apart_s:
            runs.append((offset_s, drift_ppm, votes))
        elif votes > runs[-1][2]:
            runs[-1] = (offset_s, drift_ppm, votes)
        last_s = offset_s
    offsets_s, drifts_ppm, counts = zip(*runs, strict=True)
    return np.array(offsets_s), np.array(drifts_ppm), np.array(counts, np.int64)


def _pairs(
    pulses_s: FloatArray,
    reference_s: FloatArray,
    t_mid_s: float,
    fit: tuple[float, float],
    config: SyncConfig,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pulses (P,) and their partners (P,): each the other's nearest, and near enough."""
    mapped_s = pulses_s + fit[0] + 1e-6 * fit[1] * (pulses_s - t_mid_s)
    partner = _nearest(reference_s, mapped_s)
    mutual = _nearest(mapped_s, reference_s)[partner] == np.arange(pulses_s.size)
    near = np.abs(reference_s[partner] - mapped_s) <= 2 * config.trigger_jitter_s
    at = np.flatnonzero(mutual & near)
    return at, partner[at]


def _nearest(times_s: FloatArray, wanted_s: FloatArray) -> npt.NDArray[np.int64]:
    right = np.clip(np.searchsorted(times_s, wanted_s), 1, times_s.size - 1)
    is_left = wanted_s - times_s[right - 1] <= times_s[right] - wanted_s
    return np.where(is_left, right - 1, right)


def _fitted(
    pulses_s: FloatArray,
    reference_s: FloatArray,
    t_mid_s: float,
    start: tuple[float, float],
    config: SyncConfig,
) -> ClockMap:
    """Least squares with outliers weighed down; a drift that pulses do not resolve stays near 0."""
    from scipy.special import stdtrit

    prior_ppm2 = config.max_drift_ppm**2 / 3
    fit = np.array(start)
    for _ in range(ROUNDS):
        at, other = _pairs(pulses_s, reference_s, t_mid_s, (fit[0], fit[1]), config)
        design = np.stack([np.ones(at.size), 1e-6 * (pulses_s[at] - t_mid_s)], axis=1)
        differences_s = reference_s[other] - pulses_s[at]
        residuals_s = np.abs(differences_s - design @ fit)
        scale_s = max(1.4826 * float(np.median(residuals_s)), STAMP_S)
        weights = np.minimum(1.0, 1.5 * scale_s / np.maximum(residuals_s, 1e-12))
        precision = design.T @ (weights[:, None] * design) / scale_s**2
        precision[1, 1] += 1 / prior_ppm2
        covariance = np.linalg.inv(precision)
        fit = covariance @ design.T @ (weights * differences_s) / scale_s**2
    residuals_s = differences_s - design @ fit
    spread_s = math.sqrt(float(weights @ residuals_s**2) / max(1.0, float(weights.sum()) - 2))
    widened = float(stdtrit(at.size - 2, 0.5 + config.level / 2)) * max(spread_s / scale_s, 1.0)
    half_s = math.hypot(widened * math.sqrt(covariance[0, 0]), STAMP_S)
    drift_bound_ppm = widened * math.sqrt(covariance[1, 1])
    return ClockMap(
        method="triggers",
        offset_s=float(fit[0]),
        offset_low_s=float(fit[0]) - half_s,
        offset_high_s=float(fit[0]) + half_s,
        drift_ppm=float(fit[1]),
        drift_bound_ppm=min(drift_bound_ppm, config.max_drift_ppm),
        t_mid_s=t_mid_s,
        pulses=int(at.size),
    )


def _check_count(stream: str, pulses: int) -> Check:
    return at_least(
        stream,
        "pulses_matched",
        pulses,
        LEAST_PULSES,
        refusal(
            stream,
            f"{pulses} of the {stream}'s triggers have a partner; {LEAST_PULSES} are needed",
        ),
    )


def _possible(mapped_s: FloatArray, reference_s: FloatArray) -> int:
    """As many pulses as could have a partner: of the clock that saw fewer while both ran."""
    first_s, last_s = max(mapped_s[0], reference_s[0]), min(mapped_s[-1], reference_s[-1])
    both = [((t >= first_s) & (t <= last_s)).sum() for t in (mapped_s, reference_s)]
    return max(1, int(min(both)))


def _check_share(stream: str, pulses: int, possible: int) -> Check:
    """A few of many pulses meet by chance at some offset."""
    share = pulses / possible
    return at_least(
        stream,
        "pulses_matched_share",
        share,
        LEAST_SHARE,
        refusal(
            stream,
            f"{pulses} of {possible} triggers of the {stream} have a partner, {share:.0%}; "
            f"{LEAST_SHARE:.0%} are needed",
        ),
    )


def _check_spacing(stream: str, times_s: FloatArray, config: SyncConfig) -> Check:
    spacing_s = float(np.median(np.diff(times_s))) if times_s.size > 1 else math.inf
    least_s = SPACING * config.trigger_jitter_s
    return at_least(
        stream,
        "trigger_spacing_s",
        spacing_s,
        least_s,
        refusal(
            stream,
            f"triggers come every {spacing_s:.3g} s, which is no more than {SPACING} times the "
            f"{config.trigger_jitter_s:g} s that their stamps may differ (sync.trigger_jitter_s)",
        ),
    )


def _check_alone(stream: str, offsets_s: FloatArray, config: SyncConfig) -> Check:
    told = ", ".join(f"{offset_s:+.2f}" for offset_s in offsets_s[:4])
    return at_most(
        stream,
        "offsets_that_fit",
        offsets_s.size,
        1,
        refusal(
            stream,
            f"the triggers fit at {offsets_s.size} offsets within {config.max_offset_s:g} s nearly "
            f"as well ({told} s): pulses that come evenly do not say which is which. Send them "
            "unevenly, or lower sync.max_offset_s below half their period",
        ),
    )
