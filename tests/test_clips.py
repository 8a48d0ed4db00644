"""Laws of clips: they stay inside their block and recording, and hold what happens in them."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import batch as made_batch

from crosswatch.data.batches import Batch, BatchSet
from crosswatch.data.clips import ClipsConfig, ClipTable, clip_table
from crosswatch.errors import UserError
from crosswatch.records import BLOCKS, Block, Event, TimeRange

CLASSES = ("normal", "slag", "flame")
STEP_S = 0.125  # all times are multiples of it, so that what is expected is exact
NEAR_S = 2e-6  # a recording's last instant counts by 1e-6


class Case(NamedTuple):
    batch: Batch
    batch_set: BatchSet
    clips: ClipsConfig
    block: Block

    @property
    def table(self) -> ClipTable:
        return clip_table(self.batch, self.batch_set, self.clips, self.block)


def times(least_s: float, most_s: float) -> st.SearchStrategy[float]:
    return st.integers(round(least_s / STEP_S), round(most_s / STEP_S)).map(lambda n: n * STEP_S)


def in_a_row(draw: st.DrawFn, most: int, longest_s: float) -> list[tuple[float, float]]:
    """Up to `most` spans, some of which touch."""
    at_s, found = draw(times(0, 3)), []
    for _ in range(draw(st.integers(1, most))):
        stop_s = at_s + draw(times(STEP_S, longest_s))
        found.append((at_s, stop_s))
        at_s = stop_s + draw(times(0, 2))
    return found


@st.composite
def cases(draw: st.DrawFn, length_s: st.SearchStrategy[float] | None = None) -> Case:
    events = draw(
        st.lists(
            st.builds(
                lambda name, onset_s, lasts_s: Event(
                    class_name=name, onset_s=onset_s, apex_s=onset_s, offset_s=onset_s + lasts_s
                ),
                st.sampled_from(CLASSES[1:]),
                times(0, 40),
                times(STEP_S, 9),
            ),
            max_size=6,
        )
    )
    segments = in_a_row(draw, 4, 20)
    batch = made_batch(
        seconds=1.0, video_hz=0.0, segments=tuple(segments), events=tuple(events), size_px=1
    )
    ranges = tuple(
        range_of(batch, draw(st.sampled_from(BLOCKS)), span) for span in in_a_row(draw, 4, 30)
    )
    clips = ClipsConfig(
        length_s=draw(length_s if length_s is not None else times(STEP_S, 8)),
        step_s=draw(times(STEP_S, 8)),
        least_event_s=draw(times(0, 4)),
    )
    return Case(batch, set_of(batch, ranges), clips, draw(st.sampled_from(BLOCKS)))


def range_of(batch: Batch, block: Block, span_s: tuple[float, float]) -> TimeRange:
    return TimeRange(
        batch=batch.id, batch_digest=batch.digest, block=block, start_s=span_s[0], stop_s=span_s[1]
    )


def set_of(batch: Batch, ranges: Sequence[TimeRange]) -> BatchSet:
    others = (dataclasses.replace(range_of(batch, "train", (0.0, 99.0)), batch="another"),)
    return BatchSet(
        digest="s", batches=(batch,), classes=CLASSES, ranges=(*ranges, *others), evaluation_set={}
    )


def rooms(case: Case) -> list[tuple[float, float, int]]:
    """Where clips may lie: what a range of the block and a segment share, and which segment."""
    return [
        (max(item.start_s, start_s), min(item.stop_s, stop_s), number)
        for item in case.batch_set.ranges_of(case.batch)
        if item.block == case.block
        for number, (start_s, stop_s) in enumerate(case.batch.segments)
    ]


@given(case=cases())
def test_no_clip_reaches_out_of_its_block_or_segment_and_as_many_as_fit_are_there(
    case: Case,
) -> None:
    table = case.table
    np.testing.assert_allclose(table.stop_s - table.start_s, case.clips.length_s)
    step_s = case.clips.step_s if case.block == "train" else case.clips.length_s
    expected = [
        (at_s, number)
        for start_s, stop_s, number in rooms(case)
        for at_s in np.arange(start_s, stop_s - case.clips.length_s + NEAR_S, step_s)
    ]
    assert list(zip(table.start_s, table.segment, strict=True)) == expected
    for start_s, stop_s, segment in zip(table.start_s, table.stop_s, table.segment, strict=True):
        first_s, last_s = case.batch.segments[segment]
        assert first_s <= start_s
        assert stop_s <= last_s
        assert any(
            item.start_s <= start_s and stop_s <= item.stop_s
            for item in case.batch_set.ranges_of(case.batch)
            if item.block == case.block
        )


@given(case=cases())
def test_outside_training_clips_lie_end_to_end_and_no_instant_is_in_two(case: Case) -> None:
    case = case._replace(block="evaluation")
    table = case.table
    order = np.argsort(table.start_s)
    starts_s, stops_s, segment = table.start_s[order], table.stop_s[order], table.segment[order]
    assert (stops_s[:-1] <= starts_s[1:]).all()
    for first_s, last_s, number in rooms(case):
        here = (starts_s >= first_s) & (stops_s <= last_s) & (segment == number)
        assert starts_s[here][1:].tolist() == stops_s[here][:-1].tolist()
        assert last_s - first_s - here.sum() * case.clips.length_s < case.clips.length_s


@given(case=cases(length_s=times(0, 8)))
def test_a_clip_has_the_classes_that_last_long_enough_in_it_and_normal_alone(case: Case) -> None:
    table = case.table
    least_s = case.clips.least_event_s
    for row, (start_s, stop_s) in enumerate(zip(table.start_s, table.stop_s, strict=True)):
        found = set()
        for event in case.batch.events:
            inside_s = min(stop_s, event.offset_s) - max(start_s, event.onset_s)
            whole = start_s <= event.onset_s and event.offset_s <= stop_s
            if inside_s > 0 and (whole or inside_s >= least_s):
                found.add(event.class_name)
        told = {CLASSES[k] for k in np.flatnonzero(table.occurs_NK[row])}
        assert told == (found or {"normal"})


@given(case=cases(length_s=times(0, 8)))
def test_a_clip_is_of_the_class_that_lasts_longest_of_those_that_count(case: Case) -> None:
    table = case.table
    for row, (start_s, stop_s) in enumerate(zip(table.start_s, table.stop_s, strict=True)):
        lasts_s = seconds_of_each(case.batch.events, start_s, stop_s)
        np.testing.assert_allclose(table.lasts_NK[row], lasts_s, atol=NEAR_S)
        counts = table.occurs_NK[row]
        assert counts[table.class_of[row]]
        longest_s = max(lasts_s[k] for k in np.flatnonzero(counts))
        assert lasts_s[table.class_of[row]] >= longest_s - NEAR_S


def seconds_of_each(events: Sequence[Event], start_s: float, stop_s: float) -> np.ndarray:
    """By counting steps of time; of normal: those that nothing else fills."""
    middles_s = np.arange(start_s, stop_s - STEP_S / 2, STEP_S) + STEP_S / 2
    there = {name: np.zeros(len(middles_s), bool) for name in CLASSES}
    for event in events:
        there[event.class_name] |= (event.onset_s <= middles_s) & (middles_s < event.offset_s)
    there["normal"] = ~(there["slag"] | there["flame"])
    return np.array([there[name].sum() * STEP_S for name in CLASSES])


@given(case=cases(length_s=st.just(0.0)))
def test_length_0_gives_each_recording_whole_and_once(case: Case) -> None:
    table = case.table
    spans = [
        (item.start_s, item.stop_s)
        for item in case.batch_set.ranges_of(case.batch)
        if item.block == case.block
    ]
    whole = [
        number
        for number, (start_s, stop_s) in enumerate(case.batch.segments)
        if any(first_s <= start_s and stop_s <= last_s for first_s, last_s in spans)
    ]
    assert sorted(table.segment.tolist()) == whole
    for start_s, stop_s, number in zip(table.start_s, table.stop_s, table.segment, strict=True):
        assert start_s == case.batch.segments[number][0]
        assert 0 < stop_s - case.batch.segments[number][1] < NEAR_S, "its last instant counts"


def test_events_of_one_class_that_overlap_last_once() -> None:
    spans = {"flame": [(0.0, 4.0), (1.0, 5.0), (2.0, 3.0)], "slag": [(2.0, 8.0)]}
    events = tuple(
        Event(class_name=name, onset_s=onset_s, apex_s=onset_s, offset_s=offset_s)
        for name, of_class in spans.items()
        for onset_s, offset_s in of_class
    )
    batch = made_batch(seconds=10.0, video_hz=0.0, events=events)
    batch_set = set_of(batch, [range_of(batch, "evaluation", (0.0, 10.0))])
    table = clip_table(batch, batch_set, ClipsConfig(length_s=10.0), "evaluation")
    assert table.lasts_NK.tolist() == [[2.0, 6.0, 5.0]]
    assert table.class_of.tolist() == [CLASSES.index("slag")]


def test_an_unknown_class_is_refused() -> None:
    event = Event(class_name="smoke", onset_s=1.0, apex_s=1.0, offset_s=2.0)
    batch = made_batch(seconds=20.0, video_hz=0.0, events=(event,))
    batch_set = set_of(batch, [range_of(batch, "train", (0.0, 20.0))])
    with pytest.raises(
        UserError,
        match="batch batch-1: has an event of class 'smoke'; known are normal, slag, flame",
    ):
        clip_table(batch, batch_set, ClipsConfig(), "train")


@pytest.mark.parametrize("wrong", [{"length_s": -1.0}, {"step_s": 0.0}, {"least_event_s": -0.5}])
def test_lengths_that_are_none_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"may not be negative, and step_s .* has to be above 0"):
        ClipsConfig(**wrong)
