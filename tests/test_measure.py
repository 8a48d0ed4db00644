"""Units of the bootstrap, the same numbers by unit as by row, and rows that two models share."""

import dataclasses
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import batch

from crosswatch.data.batches import BatchSet
from crosswatch.errors import UserError
from crosswatch.evaluation.bootstrap import block_bootstrap
from crosswatch.evaluation.frames import frame_metrics
from crosswatch.evaluation.measure import measure, statistics_of
from crosswatch.evaluation.predictions import Predictions
from crosswatch.evaluation.seeds import compare, compare_seeds
from crosswatch.evaluation.settings import EvaluateConfig
from crosswatch.evaluation.truth import measure_segments
from crosswatch.evaluation.units import units_of
from crosswatch.records import Event

EVALUATE = EvaluateConfig(samples=50)


def frames_of(clips: list[tuple[str, int, float]], *, frames: int = 10) -> pd.DataFrame:
    """A frame a second of clips (batch, segment, start_s)."""
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "batch": name,
                    "end_s": start_s + np.arange(frames),
                    "segment": segment,
                    "start_s": start_s,
                }
            )
            for name, segment, start_s in clips
        ],
        ignore_index=True,
    )


def moments(
    clips: list[tuple[str, int, float]], *, classes: int = 2, frames: int = 10, seed: int = 0
) -> Predictions:
    """A score a snippet of 4 frames."""
    chance = np.random.default_rng(seed)
    rows = frames_of(clips, frames=frames)
    count = len(rows)
    rows["label"] = np.random.default_rng(7).integers(0, classes, count // 5 + 1).repeat(5)[:count]
    snippet = np.arange(count) // 4
    logit = chance.standard_normal((count, classes))[snippet]
    probability = np.exp(logit) / np.exp(logit).sum(1, keepdims=True)
    abnormal = chance.random(count)[snippet]
    return Predictions(
        rows=rows,
        probability_NK=probability,
        branches={"binary": np.stack([1 - abnormal, abnormal], axis=1)},
    )


RECORDINGS = [(f"b{number}", 0, 0.0) for number in range(12)]
NEIGHBOURS = [("a", 0, 10.0 * number) for number in range(8)]


@given(st.integers(2, 7), st.integers(0, 1000), st.sampled_from(["clips", "blocks", "windows"]))
@settings(max_examples=25, deadline=None)
def test_numbers_by_unit_are_those_by_row(classes: int, seed: int, kind: str) -> None:
    made = moments(RECORDINGS if kind == "clips" else NEIGHBOURS, classes=classes, seed=seed)
    order = np.random.default_rng(seed).permutation(len(made))
    made = made.take(order if seed % 2 else np.arange(len(made)))
    if kind == "windows":
        cells = np.random.default_rng(seed).integers(0, 9, (len(made), classes, classes))
        branches = {"video": made.probability_NK[::-1]}
        made = dataclasses.replace(made, branches=branches, pixels_NKK=cells)
    units = units_of(made, EVALUATE)
    measured = measure(made, EVALUATE)
    by_row = statistics_of(made, EVALUATE)
    assert list(measured) == list(by_row)
    for name, of in by_row.items():
        expected = block_bootstrap(units.unit_N, of, samples=EVALUATE.samples)
        np.testing.assert_allclose(
            dataclasses.astuple(measured[name]), dataclasses.astuple(expected), rtol=1e-9
        )


def test_alarms_are_counted_by_unit_too() -> None:
    made = moments(RECORDINGS)
    names = {"false_alarms_per_hour", "detection_delay_s", "detected_share"}
    found = measure(made, EVALUATE, threshold=0.5)
    assert names < set(found)
    assert all(found[name].units == len(RECORDINGS) for name in names)
    assert not names & set(measure(made, EVALUATE))


def test_the_equal_error_rate_ranks_by_what_the_auc_ranks_by() -> None:
    made = moments(RECORDINGS)
    label, clip = made.rows["label"], made.rows["batch"]
    for mark, score in (("", made.anomaly_N), ("2", made.probability_NK[:, 1])):
        known, found = frame_metrics(label, score, clip), measure(made, EVALUATE)
        for name in ("auc", "ap", "eer"):
            assert found[f"{name}{mark}"].estimate == pytest.approx(known[name]), name
    assert not {"eer", "eer2"} & set(measure(moments(RECORDINGS, classes=3), EVALUATE))


def test_of_whole_recordings_only_decisions_are_measured() -> None:
    made = moments([(f"b{n % 4}", n // 4, 10.0 * (n // 4)) for n in range(12)])
    found = measure(made, dataclasses.replace(EVALUATE, pool="segment"))
    assert {"auc", "auc2", "eer", "eer2"} <= set(found)
    assert not any("within" in name or "ano" in name for name in found)
    assert found["auc"].units == 12


# Units


def units_named(made: Predictions, **changed: object) -> list[set[tuple[str, float]]]:
    """Batch and beginning of the clips in each unit."""
    rows = units_of(made, dataclasses.replace(EVALUATE, **changed)).rows()
    beside = list(zip(made.rows["batch"], made.rows["start_s"], strict=True))
    return [{beside[row] for row in of_unit} for of_unit in rows]


def test_recordings_that_are_one_clip_are_units() -> None:
    made = moments([("a", 0, 0.0), ("a", 1, 13.0), ("b", 0, 0.0)])
    assert units_named(made) == [{("a", 0.0)}, {("a", 13.0)}, {("b", 0.0)}]
    assert units_named(made, unit="batch") == [{("a", 0.0), ("a", 13.0)}, {("b", 0.0)}]


def test_neighbouring_clips_of_a_recording_are_units_by_the_block_in_which_they_begin() -> None:
    made = moments([*NEIGHBOURS[:4], ("b", 0, 15.0)], frames=12)  # the last frames lie behind
    assert units_named(made) == [
        {("a", 0.0), ("a", 10.0)}, {("a", 20.0), ("a", 30.0)}, {("b", 15.0)},
    ]  # fmt: skip
    assert len(units_named(made, block_s=10.0)) == 5
    assert len(units_named(made, pool="segment")) == 2


def test_units_come_in_the_order_of_their_names() -> None:
    rows = moments([("a", 0, 0.0)], frames=250).rows.drop(columns="start_s")
    made = Predictions(rows=rows, probability_NK=np.ones((250, 2)) / 2)
    names = (rows["batch"] + ":" + (rows["end_s"] // 20).astype(int).astype(str)).to_numpy()
    np.testing.assert_array_equal(
        units_of(made, EVALUATE).unit_N, np.unique(names, return_inverse=True)[1]
    )


def test_segments_are_resampled_by_the_units_of_their_clips() -> None:
    made = moments(NEIGHBOURS)
    event = Event(class_name="fire", onset_s=12.0, apex_s=13.0, offset_s=17.0)
    delivered = batch(seconds=80.0, batch_id="a", events=(event,))
    of_set = BatchSet(
        digest="d", batches=(delivered,), classes=("normal", "fire"), ranges=(), evaluation_set={}
    )
    for block_s, units in ((20.0, 4), (10.0, 8), (90.0, 1)):
        found = measure_segments(made, of_set, dataclasses.replace(EVALUATE, block_s=block_s))
        assert list(found) == ["map", "map_released"]
        assert found["map"].units == units


# What two share


def test_overlapping_clips_are_compared_clip_by_clip() -> None:
    clips = [("a", 0, 5.0 * number) for number in range(8)]
    one, other = moments(clips, seed=1), moments(clips, seed=2)
    order = np.random.default_rng(0).permutation(len(other))[:60]
    mine, theirs, difference = compare(one, other.take(order), "auc", EVALUATE)
    kept = np.sort(order)
    for made, told in ((one.take(kept), mine), (other.take(kept), theirs)):
        assert told == pytest.approx(measure(made, EVALUATE)["auc"].estimate)
    assert difference.estimate == pytest.approx(mine - theirs)
    without = dataclasses.replace(one, rows=one.rows.drop(columns="start_s"))
    with pytest.raises(UserError, match=r"\d+ of 80 rows share their instant .* batch a, 5 s"):
        compare(without, other, "auc", EVALUATE)


def test_models_are_compared_where_both_were_scored_and_seeds_only_as_a_whole() -> None:
    one, other = moments(RECORDINGS, seed=1), moments(RECORDINGS, seed=2)
    fewer = other.take(np.arange(40, 120))
    assert compare_seeds([one], [fewer], "ap", EVALUATE) == compare(one, fewer, "ap", EVALUATE)
    *_, difference = compare_seeds([one, one], [fewer, fewer], "ap", EVALUATE)
    assert difference.units == 8
    with pytest.raises(UserError, match="different instants: 80 are shared of 120"):
        compare_seeds([one, fewer], [other], "ap", EVALUATE)


def test_times_may_differ_by_rounding_and_labels_may_not_differ() -> None:
    one, other = moments(RECORDINGS), moments(RECORDINGS)
    other.rows["end_s"] += 1e-7
    *_, difference = compare(one, other, "auc", EVALUATE)
    assert difference.estimate == 0
    other.rows.loc[3, "label"] = 1 - other.rows.loc[3, "label"]
    with pytest.raises(UserError, match="different labels"):
        compare(one, other, "auc", EVALUATE)
    other.rows["segment"] += 1
    with pytest.raises(UserError, match="no common instant"):
        compare(one, other, "auc", EVALUATE)


def test_many_frames_take_little_room() -> None:
    made = moments([(f"b{number}", 0, 0.0) for number in range(20)], classes=14, frames=5000)
    tracemalloc.start()
    measure(made, EVALUATE)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 60e6  # a one-hot confusion of each frame alone would be 157 MB
