"""Laws of splits beyond time: by source nothing ever moves, and a published split does not leak."""

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from made import batch
from test_windows import set_of

from crosswatch.data.batches import Batch
from crosswatch.data.gather import windows_of
from crosswatch.data.splits import SplitConfig, split
from crosswatch.data.windows import WindowConfig
from crosswatch.errors import BadBatchError
from crosswatch.records import BLOCKS

WINDOWS = WindowConfig(frames=4, stride=2, signal_s=4.0)
NAMES = st.lists(st.from_regex(r"[a-z0-9][a-z0-9._-]{0,12}", fullmatch=True), min_size=1,
                 max_size=30, unique=True)  # fmt: skip
BY_SOURCE = SplitConfig(by="source")


def published(
    spans: list[tuple[str, float, float]], *, seconds: float = 120.0, **changes: object
) -> Batch:
    return dataclasses.replace(batch(seconds=seconds), blocks=tuple(spans), **changes)


@given(names=NAMES, others=NAMES)
def test_a_source_lies_in_one_block_and_stays_there_whatever_is_added(
    names: list[str], others: list[str]
) -> None:
    def blocks(of: list[str]) -> dict[str, str]:
        made = [batch(seconds=20.0, batch_id=name) for name in of]
        ranges = [split(each, windows=WINDOWS, config=BY_SOURCE) for each in made]
        assert all(len(found) == 1 for found in ranges)
        return {span.batch: span.block for (span,) in ranges}

    before, after = blocks(names), blocks([*others, *(n for n in names if n not in others)])
    assert before.items() <= after.items()


def test_sources_meet_the_shares_up_to_chance() -> None:
    made = batch(seconds=20.0)
    count = Counter(
        split(dataclasses.replace(made, id=f"src{n}"), windows=WINDOWS, config=BY_SOURCE)[0].block
        for n in range(2000)
    )
    for block, share in zip(BLOCKS, (0.60, 0.15, 0.25), strict=True):
        assert count[block] == pytest.approx(2000 * share, abs=4 * (2000 * share) ** 0.5)


@st.composite
def interleaved(draw: st.DrawFn) -> list[tuple[str, float, float]]:
    """Blocks of training and evaluation in any order, with or without something between."""
    spans, at = [], 0.0
    for name in draw(st.lists(st.sampled_from(["train", "evaluation"]), min_size=1, max_size=5)):
        at += draw(st.sampled_from([0.1, 1.0, 7.0]))
        length = draw(st.sampled_from([2.0, 15.0, 40.0]))
        spans.append((name, at, at + length))
        at += length
    return spans


@settings(deadline=None)
@given(spans=interleaved(), early=st.sampled_from(["skip", "clamp"]))
def test_no_window_of_a_published_block_sees_what_one_of_another_does(
    spans: list[tuple[str, float, float]], early: str
) -> None:
    made = published(spans, seconds=240.0)
    windows = dataclasses.replace(WINDOWS, early=early)
    try:
        batch_set = set_of(made, windows=windows, config=SplitConfig(by="given"))
    except BadBatchError:  # its training is shorter than the guards
        reject()
    frames, samples = [], []
    for block in BLOCKS:
        (table,) = windows_of(batch_set, windows, block).tables
        frames.append(set(table.frames.flat))
        samples.append(set(table.sample_rows(np.arange(len(table))).flat))
    for seen in (frames, samples):
        assert not any(one & other for one, other in itertools.combinations(seen, 2))
    listed = [(a, b) for name, a, b in spans if name == "evaluation"]
    kept = [(r.start_s, r.stop_s) for r in batch_set.ranges if r.block == "evaluation"]
    assert len(kept) == len(listed)
    np.testing.assert_allclose(np.ravel(kept), np.ravel(listed), atol=1e-6)


def test_what_no_list_names_belongs_to_no_block() -> None:
    made = published([("train", 10.0, 60.0), ("evaluation", 80.0, 100.0)])
    batch_set = set_of(made, windows=WINDOWS, config=SplitConfig(by="given", strict=False))
    for span in batch_set.ranges:
        assert 10.0 <= span.start_s < span.stop_s <= 60.0 or (span.start_s, span.stop_s) == (
            80,
            100,
        )
    train, validation = batch_set.ranges[:2]
    assert (train.block, validation.block) == ("train", "validation")
    assert validation.stop_s - validation.start_s == pytest.approx(0.15 * 50.0)
    assert train.stop_s == validation.start_s


def test_a_published_validation_is_taken_as_it_is() -> None:
    made = published([("train", 0.0, 50.0), ("validation", 60.0, 70.0), ("evaluation", 80.0, 99.0)])
    found = split(made, windows=WINDOWS, config=SplitConfig(by="given"))
    assert [(r.block, r.start_s, r.stop_s) for r in found] == [
        ("train", 0.0, 50.0), ("validation", 60.0, 70.0), ("evaluation", 80.0, 99.0)
    ]  # fmt: skip


def test_windows_reach_across_only_where_it_is_not_strict_or_as_released() -> None:
    spans = [("train", 0.0, 60.0), ("evaluation", 60.0, 100.0)]
    strict = split(published(spans), windows=WINDOWS, config=SplitConfig(by="given"))
    assert max(r.stop_s for r in strict if r.block != "evaluation") < 60.0 - WINDOWS.signal_s
    for made, config in (
        (published(spans), SplitConfig(by="given", strict=False)),
        (published(spans, released=True), SplitConfig(by="given")),
    ):
        found = split(made, windows=WINDOWS, config=config)
        assert max(r.stop_s for r in found if r.block != "evaluation") == 60.0
    train, validation, evaluation = split(
        batch(seconds=100.0), windows=WINDOWS, config=SplitConfig(strict=False)
    )
    assert (train.stop_s, validation.stop_s) == (validation.start_s, evaluation.start_s)


def test_what_cannot_be_given_is_refused() -> None:
    with pytest.raises(BadBatchError, match=r"delivered without a split, which split\.by=given"):
        split(batch(), windows=WINDOWS, config=SplitConfig(by="given"))
    made = published([("train", 10.0, 13.0), ("evaluation", 13.0, 50.0)])
    with pytest.raises(BadBatchError, match=r"guards of 4\.1 s .* leave nothing to train"):
        split(made, windows=WINDOWS, config=SplitConfig(by="given"))
