"""Alarms over time against a plain count, and the threshold they are made with."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswatch.errors import UserError
from crosswatch.evaluation import alarms
from crosswatch.evaluation.alarms import (
    LEAST_S,
    MERGE_S,
    alarm_statistics,
    best_threshold,
)
from crosswatch.evaluation.bootstrap import block_bootstrap, estimate
from crosswatch.evaluation.timeline import events_of_labels

quick = settings(max_examples=40, deadline=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counted:
    """The measures of the data as they are, and of how many events and hours of normal time."""

    false_alarms_per_hour: float
    detection_delay_s: float
    detected_share: float
    events: int
    watched_h: float


def alarm_metrics(*case, merge_s=MERGE_S, least_s=LEAST_S, **options):
    counts = alarms._counts(*case, merge_s=merge_s, least_s=least_s, **options)
    values = {name: estimate(of, counts.instants) for name, of in counts.statistics().items()}
    watched_h = float(counts.normal_h_N.sum())
    return Counted(events=len(counts.event_E), watched_h=watched_h, **values)


def watched(score, *, start_s=0.0, step_s=1.0):
    """One recording with an instant every second."""
    return ["one"] * len(score), start_s + step_s * np.arange(len(score)), np.array(score, float)


def measured(score, events, **options):
    return alarm_metrics(*watched(score), {"one": events}, threshold=0.5, **options)


def test_counts_by_hand():
    score = np.zeros(7200)
    score[[100, 101, 102]] = 1  # false
    score[500:520] = 1  # 10 s late
    score[900:910] = 1  # before the onset, and on into the event
    found = measured(score, [(490, 600), (905, 950), (2000, 2400)])
    assert found.false_alarms_per_hour == pytest.approx(1 / ((7200 - 110 - 45 - 400) / 3600))
    assert found.watched_h == pytest.approx((7200 - 110 - 45 - 400) / 3600)
    assert (found.events, found.detected_share) == (3, pytest.approx(2 / 3))
    assert found.detection_delay_s == 5  # of 10 and 0


def test_a_gap_is_closed_up_to_merge_s():
    score = [0, 1, 0, 0, 1, 0, 0, 0, 1, 0]

    def count(merge_s):
        found = measured(score, [], merge_s=merge_s)
        return found.false_alarms_per_hour * found.watched_h

    assert [count(merge_s) for merge_s in (0, 1.9, 2, 2.9, 3)] == pytest.approx([3, 3, 2, 2, 1])


def test_an_instant_between_two_alarms_parts_them_where_no_gap_is_closed():
    time_s, score = [0, 1, 2, 2.5, 3, 4, 5], [0, 0, 1, 0, 1, 0, 0]

    def count(merge_s):
        found = alarm_metrics(["x"] * 7, time_s, score, {}, threshold=1, merge_s=merge_s)
        return found.false_alarms_per_hour * found.watched_h

    assert (count(0), count(0.1)) == pytest.approx((2, 1))


def test_an_event_in_a_closed_gap_is_detected():
    score = [0, 1, 0, 0, 1, 0]
    assert measured(score, [(2, 4)], merge_s=0).detected_share == 0
    closed = measured(score, [(2, 4)], merge_s=2)
    assert (closed.detected_share, closed.false_alarms_per_hour) == (1, 0)
    assert measured(score, [(2, 4)]) == closed  # 2 s is the default


def test_short_alarms_are_dropped_after_gaps_are_closed():
    score = [1, 0, 1, 0, 0, 0, 0, 1, 1, 0]
    events = [(0, 1), (7, 9)]
    assert measured(score, events, merge_s=0, least_s=2).detected_share == 0.5
    assert measured(score, events, merge_s=1, least_s=3).detected_share == 0.5
    assert measured(score, events, merge_s=1, least_s=2).detected_share == 1


def test_a_hole_ends_an_alarm_and_is_not_watched():
    time_s = np.r_[np.arange(10.0), np.arange(100.0, 110)]
    score = np.r_[np.zeros(5), np.ones(10), np.zeros(5)]
    found = alarm_metrics(["x"] * 20, time_s, score, {"x": [(50, 60)]}, threshold=1)
    assert found.watched_h == pytest.approx(20 / 3600)
    assert found.false_alarms_per_hour * found.watched_h == pytest.approx(2)
    assert found.events == 0
    assert np.isnan([found.detected_share, found.detection_delay_s]).all()


def test_an_onset_that_nobody_watched_counts_from_the_first_instant():
    time_s, score = np.r_[np.arange(10.0), np.arange(100.0, 110)], np.zeros(20)
    score[13:] = 1
    events = {"x": [(80, 200)]}
    assert alarm_metrics(["x"] * 20, time_s, score, events, threshold=1).detection_delay_s == 3
    events = {"x": [(99.4, 200)]}
    found = alarm_metrics(["x"] * 20, time_s, score, events, threshold=1)
    assert found.detection_delay_s == pytest.approx(3.6)


def test_an_alarm_ends_with_its_recording():
    recording = np.repeat(["a", "b", "c"], [3, 3, 1])
    time_s = [0, 1, 2, 3, 4, 5, 0]
    found = alarm_metrics(recording, time_s, np.ones(7), {}, threshold=1)
    assert found.false_alarms_per_hour == pytest.approx(3 / (7 / 3600))


@st.composite
def made(draw):
    """Recordings with steps of 1 s and holes, in any order, and events that may lie anywhere."""
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    recording, time_s, events = [], [], {}
    for name in ["a", "b", "c"][: draw(st.integers(1, 3))]:
        at = np.flatnonzero(chance.random(60) < draw(st.sampled_from([0.8, 0.95, 1.0])))
        at = np.union1d(at, [0, 1])
        recording += [name] * len(at)
        time_s += (at * 1.0).tolist()
        onsets = chance.uniform(-2, 60, chance.integers(0, 3))
        events[name] = [(onset, onset + chance.uniform(0.1, 15)) for onset in onsets]
    order = chance.permutation(len(time_s))
    score = np.repeat(chance.integers(0, 5, len(time_s)), 3)[: len(time_s)] / 4
    return np.array(recording)[order], np.array(time_s)[order], score[order], events


def plain(recording, time_s, score, events, threshold, merge_s, least_s):
    """Second by second: steps are 1 s here."""
    false, normal_s, delays, missed = 0, 0, [], 0
    for name in np.unique(recording):
        scores = dict(zip(time_s[recording == name], score[recording == name], strict=True))
        seconds, spans = sorted(scores), events[name]
        inside = {t: any(on <= t < off for on, off in spans) for t in seconds}
        normal_s += sum(not each for each in inside.values())
        alarms = []
        for t in seconds:
            if scores[t] < threshold:
                continue
            if alarms and (t - alarms[-1][1] == 1 or t - alarms[-1][1] - 1 <= merge_s):
                alarms[-1][1] = t
            else:
                alarms.append([t, t])
        alarms = [each for each in alarms if each[1] - each[0] + 1 >= least_s]
        rung = {t for first, last in alarms for t in seconds if first <= t <= last}
        for first, last in alarms:
            false += not any(inside[t] for t in seconds if first <= t <= last)
        for on, off in spans:
            mine = [t for t in seconds if on <= t < off]
            if not mine:
                continue
            onset = on if mine[0] - on <= 1.5 else mine[0]
            late = [t - onset for t in mine if t in rung]
            delays += late[:1]
            missed += not late
    return false, normal_s / 3600, delays, missed


@given(made(), st.sampled_from([0.25, 0.5, 0.75]), st.integers(0, 4), st.integers(0, 4))
@quick
def test_equals_the_plain_count(case, threshold, merge_s, least_s):
    options = {"threshold": threshold, "merge_s": merge_s, "least_s": least_s}
    found = alarm_metrics(*case, **options)
    false, normal_h, delays, missed = plain(*case, **options)
    assert found.watched_h == pytest.approx(normal_h)
    assert found.events == len(delays) + missed
    if normal_h:
        assert found.false_alarms_per_hour == pytest.approx(false / normal_h)
    if found.events:
        assert found.detected_share == pytest.approx(len(delays) / found.events)
    middle = np.median(delays) if delays else np.nan
    assert found.detection_delay_s == pytest.approx(middle, nan_ok=True)


@given(made(), st.floats(-1e4, 1e4))
@quick
def test_only_times_between_instants_matter(case, later_s):
    recording, time_s, score, events = case
    later_s = round(later_s * 8) / 8  # exact in binary
    moved = {name: [(a + later_s, b + later_s) for a, b in of] for name, of in events.items()}
    found = alarm_metrics(recording, time_s + later_s, score, moved, threshold=0.5)
    first = alarm_metrics(*case, threshold=0.5)
    assert vars(found) == pytest.approx(vars(first), nan_ok=True, abs=1e-6)


@given(made(), st.integers(0, 3), st.integers(0, 3))
@quick
def test_a_lower_threshold_detects_no_less(case, merge_s, least_s):
    shares = [
        alarm_metrics(*case, threshold=t, merge_s=merge_s, least_s=least_s).detected_share
        for t in (1.0, 0.75, 0.5, 0.25)
    ]
    assert np.isnan(shares).all() or (np.diff(shares) >= 0).all()


@given(made())
@quick
def test_the_labels_themselves_raise_no_false_alarm_and_are_never_late(case):
    recording, time_s, score, _ = case
    label = (score > 0.5).astype(int)
    events = events_of_labels(recording, time_s, label)
    found = alarm_metrics(recording, time_s, label, events, threshold=1, merge_s=0)
    assert found.events == sum(map(len, events.values()))
    if label.any():
        assert (found.detected_share, found.detection_delay_s) == (1, 0)
    if not label.all():
        assert found.false_alarms_per_hour == 0
        assert found.watched_h == pytest.approx((label == 0).sum() / 3600)


def test_events_of_labels():
    time_s = np.array([0, 1, 2, 3.1, 4, 20, 21, 22])
    events = events_of_labels(["x"] * 8, time_s, [1, 0, 1, 2, 0, 0, 0, 3])
    assert events == {"x": [(0, 1), (2, 4), (22, 23)]}
    assert events_of_labels(["x"] * 8, time_s, np.ones(8)) == {"x": [(0, 5), (20, 23)]}


@given(made(), st.integers(0, 1000))
@quick
def test_a_recording_drawn_twice_is_two_recordings(case, seed):
    recording, time_s, score, events = case
    names = np.unique(recording)
    times_drawn = dict(
        zip(names, np.random.default_rng(seed).integers(0, 4, len(names)), strict=True)
    )
    again = [(name, copy) for name in names for copy in range(times_drawn[name])]
    if not again:
        return
    rows = [np.flatnonzero(recording == name) for name, _ in again]
    copies = np.concatenate(
        [[f"{name}{copy}"] * len(r) for (name, copy), r in zip(again, rows, strict=True)]
    )
    rows = np.concatenate(rows)
    copied = {f"{name}{copy}": events[name] for name, copy in again}
    repeated = alarm_metrics(copies, time_s[rows], score[rows], copied, threshold=0.5)
    weight = np.array([[times_drawn[name] for name in recording]], float)
    for name, of in alarm_statistics(*case, threshold=0.5).items():
        assert of(weight) == pytest.approx([getattr(repeated, name)], nan_ok=True), name


def test_recordings_and_blocks_of_time_are_units():
    chance = np.random.default_rng(5)
    recording, time_s = np.repeat(np.arange(20), 300), np.tile(np.arange(300.0), 20)
    label = ((time_s % 100) > 80).astype(int)
    score = 0.5 * label + chance.random(6000) ** 8
    events = events_of_labels(recording, time_s, label)
    statistics = alarm_statistics(recording, time_s, score, events, threshold=0.6)
    blocks = [f"{batch}:{at // 50}" for batch, at in zip(recording, time_s, strict=True)]
    for units, count in ((recording, 20), (blocks, 120)):
        for name, of in statistics.items():
            interval = block_bootstrap(units, of, samples=200)
            assert interval.low <= interval.estimate <= interval.high, name
            assert interval.units == count
    none = alarm_statistics(recording, time_s, score, events, threshold=9)
    assert np.isnan(none["detection_delay_s"](np.ones((2, 6000)))).all()
    assert none["false_alarms_per_hour"](np.ones((2, 6000))).tolist() == [0, 0]


@st.composite
def labelled(draw):
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    label = chance.integers(0, 3, draw(st.integers(2, 30)))
    return label, chance.integers(0, 8, len(label)) / 8


@given(labelled(), st.sampled_from(["f1", "balanced_accuracy"]))
@quick
def test_the_best_threshold_is_the_highest_of_the_best(case, by):
    label, score = case
    best = best_threshold(label, score, by=by)
    if len(set(label > 0)) == 1:
        assert best is None
        return
    quality = {}
    for t in np.unique(score):
        found = ((score >= t) & (label > 0)).sum() / (label > 0).sum()
        alarmed = ((score >= t) & (label == 0)).sum() / (label == 0).sum()
        precision = (label[score >= t] > 0).mean()
        harmonic = 2 * found * precision / (found + precision) if found else 0
        quality[t] = harmonic if by == "f1" else (found + 1 - alarmed) / 2
    top = max(quality.values())
    assert best == max(t for t, value in quality.items() if value > top - 1e-12)


def test_what_is_best_depends_on_the_aim():
    label, score = [1, 0, 0, 1, *[0] * 96], [0.9, 0.8, 0.7, 0.6, *[0.1] * 96]
    assert best_threshold(label, score) == 0.9
    assert best_threshold(label, score, by="balanced_accuracy") == 0.6
    assert best_threshold([0, 0], [0.1, 0.2]) is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"time_s_N": [0, 1]}, r"recordings of shape \(3,\), times of \(2,\)"),
        ({"score_N": [0, 1]}, "2 scores of 3 instants"),
        ({"time_s_N": [0, 1, 1]}, "recording x has two instants at 1.000 s"),
        ({"time_s_N": [0, 1, np.nan]}, "1 of 3 instants have a time that is not finite"),
        ({"score_N": [0, 1, np.inf]}, "1 of 3 instants have a score that is not finite"),
        ({"recording_N": ["x", "y", "z"]}, "no recording has 2 instants"),
        ({"events": {"y": [(0, 1)]}}, "events of recording y, which no instant belongs to"),
        ({"events": {"x": [(2, 1)]}}, "recording x: event from 2 s to 1 s is empty"),
        ({"threshold": np.nan}, "threshold nan; a finite score"),
        ({"merge_s": -1}, "merge_s -1, least_s 0"),
        ({"least_s": -1}, "least_s -1; 0 s and more"),
    ],
)
def test_refuses_what_does_not_fit(changed, message):
    case = {"recording_N": ["x"] * 3, "time_s_N": [0, 1, 2], "score_N": [0, 1, 0], "events": {}}
    with pytest.raises(UserError, match=message):
        alarm_metrics(**(case | {"threshold": 0.5} | changed))


def test_labels_of_other_instants_are_refused():
    with pytest.raises(UserError, match="2 labels of 3 instants"):
        events_of_labels(["x"] * 3, [0, 1, 2], [0, 1])
    with pytest.raises(UserError, match=r"labels of shape \(2,\), scores of \(1,\)"):
        best_threshold([0, 1], [0.1])
