"""A clock that was reset: each stretch between two resets has an offset of its own.

Only the first stretch's offset is small: how long the clock stood still before it began anew,
nobody noted. But stretches follow each other, so the next one lies somewhere between the end of
the last and the end of the reference, and there it is sought.
"""

import dataclasses
import itertools

import numpy as np

from crosswatch.data.sync.align import Aligned, Stretch, Timeline
from crosswatch.data.sync.clocks import Check, ClockMap, Course, Finding, Reach, at_most
from crosswatch.data.sync.estimate import SyncConfig, refusal, search

MARGIN_S = 1.0  # beyond the ends of what is possible, which are themselves only known so well


def align_stretches(moving: Timeline, reference: Timeline, config: SyncConfig) -> Aligned:
    """Place a stream whose clock was reset; a stretch that is not found is left out."""
    if config.estimate not in ("auto", "features") or moving.clock == reference.clock:
        return _refused(moving)
    stream, parts = moving.course.stream, _parts(moving)
    findings = _findings([part for _, part in parts], reference.course, config)
    stretches = tuple(
        Stretch(
            rows=rows,
            start_s=float(part.times_s[0]),
            stop_s=float(part.times_s[-1]),
            clock=found.clock,
            lost=found.refusal,
        )
        for (rows, part), found in zip(parts, findings, strict=True)
    )
    longest = max(
        range(len(parts)), key=lambda at: (not stretches[at].lost, stretches[at].length_s)
    )
    placed = [check for found in findings if not found.refusal for check in found.checks]
    lost = [f"{each.length_s:.0f} s" for each in stretches if each.lost]
    told = (
        f"{len(lost)} stretches of the {stream} between resets of its clock "
        f"({', '.join(lost)[:80]}) could not be placed and were left out"
    )
    return Aligned(
        stream=stream,
        clock=moving.clock,
        stretches=stretches,
        checks=(
            _check_lost(stream, stretches, moving.course.times_s.size, config),
            *placed,
            _check_order(stream, stretches),
        ),
        trace=findings[longest].trace,
        warnings=(told,) if lost else (),
    )


def refuse_resets(moving: Timeline) -> Check:
    """Neither one lag nor pulses say where a clock stood after each reset."""
    stream = moving.course.stream
    return at_most(
        stream,
        "resets",
        moving.resets,
        0,
        f"sync outside limits: the {stream}'s clock was reset {moving.resets} times; where its "
        "stretches lie can only be found from what the streams show (sync.estimate=auto or "
        "features, with a signal on another clock). Deliver each stretch as a batch.",
    )


def _refused(moving: Timeline) -> Aligned:
    times_s = moving.course.times_s
    whole = Stretch(
        rows=slice(0, times_s.size),
        start_s=float(times_s[0]),
        stop_s=float(times_s[-1]),
        clock=ClockMap(method="unknown: the clock was reset"),
    )
    return Aligned(
        stream=moving.course.stream,
        clock=moving.clock,
        stretches=(whole,),
        checks=(refuse_resets(moving),),
    )


def _parts(moving: Timeline) -> list[tuple[slice, Course]]:
    assert moving.pieces is not None
    course = moving.course
    edges = [0, *(np.flatnonzero(np.diff(moving.pieces)) + 1), course.times_s.size]
    rows = [slice(int(first), int(stop)) for first, stop in itertools.pairwise(edges)]
    return [
        (
            each,
            dataclasses.replace(course, times_s=course.times_s[each], values=course.values[each]),
        )
        for each in rows
    ]


def _findings(parts: list[Course], reference: Course, config: SyncConfig) -> list[Finding]:
    """Each stretch sought after the end of the last, with room left for those that follow."""
    lengths_s = [float(part.times_s[-1] - part.times_s[0]) for part in parts]
    earliest_s = float(reference.times_s[0]) - config.max_offset_s
    latest_s = float(reference.times_s[-1]) + config.max_offset_s
    findings: list[Finding] = []
    for number, part in enumerate(parts):
        low_s = earliest_s - float(part.times_s[0])
        high_s = latest_s - sum(lengths_s[number + 1 :]) - float(part.times_s[-1])
        half_s = max((high_s - low_s) / 2, config.max_offset_s) + MARGIN_S
        later = Reach(centre_s=(low_s + high_s) / 2, half_s=half_s)
        found = _find(part, reference, config, later if number else None)
        findings.append(found)
        if found.refusal:
            earliest_s += lengths_s[number]
        else:
            earliest_s = float(found.clock.to_reference(part.times_s[-1:])[0])
    return findings


def _find(part: Course, reference: Course, config: SyncConfig, reach: Reach | None) -> Finding:
    if part.times_s.size > 2:
        return search(part, reference, config, reach)
    clock = ClockMap(method=f"{part.feature} against {reference.feature}")
    why = refusal(part.stream, f"a stretch of {part.times_s.size} instants")
    return Finding(clock=clock, checks=(at_most(part.stream, "instants", 1, 0, why),))


def _check_lost(
    stream: str, stretches: tuple[Stretch, ...], count: int, config: SyncConfig
) -> Check:
    lost = [stretch for stretch in stretches if stretch.lost]
    share = sum(each.rows.stop - each.rows.start for each in lost) / count
    reason = lost[0].lost.removeprefix("sync outside limits: ") if lost else ""
    return at_most(
        stream,
        "lost_share",
        share,
        config.max_lost_share,
        f"sync outside limits: the {stream}'s clock was reset {len(stretches) - 1} times, and "
        f"{len(lost)} of its stretches, {share:.0%} of the {stream}, cannot be placed; "
        f"{config.max_lost_share:.0%} may be lost (sync.max_lost_share). The first: {reason}",
    )


def _check_order(stream: str, stretches: tuple[Stretch, ...]) -> Check:
    """Stretches follow each other; they may overlap by no more than their bounds allow."""
    placed = [each for each in stretches if not each.lost]
    over_s = [_overlap_s(one, other) for one, other in itertools.pairwise(placed)]
    overlap_s, allowed_s = max(over_s, key=lambda pair: pair[0] - pair[1], default=(0.0, 0.0))
    return at_most(
        stream,
        "overlap_s",
        overlap_s,
        allowed_s,
        refusal(
            stream,
            f"stretches of the {stream} between resets of its clock overlap by {overlap_s:.2f} s "
            f"on the reference clock; their bounds allow {allowed_s:.2f} s",
        ),
    )


def _overlap_s(one: Stretch, other: Stretch) -> tuple[float, float]:
    """By how much a stretch ends after the next one begins, and how uncertain that is."""
    end_s = one.clock.to_reference(np.array([one.stop_s]))[0]
    begin_s = other.clock.to_reference(np.array([other.start_s]))[0]
    uncertain_s = (one.clock.half_width_s or 0.0) + (other.clock.half_width_s or 0.0)
    return max(0.0, float(end_s - begin_s)), uncertain_s
