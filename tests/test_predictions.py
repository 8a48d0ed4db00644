"""Scores beside answers: what was seen in training is left out, and frames get their snippet."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import batch

from crosswatch.data.batches import BatchSet
from crosswatch.data.clips import ClipsConfig, clip_table
from crosswatch.evaluation.predictions import Predictions
from crosswatch.evaluation.scoring import _token_of
from crosswatch.models.tokens import BINARY
from crosswatch.records import TimeRange


def predictions(**columns: object) -> Predictions:
    rows = pd.DataFrame({"batch": "a", "segment": 0, "label": 0} | columns)
    chance = np.linspace(0.1, 0.9, len(rows))
    return Predictions(rows=rows, probability_NK=np.stack([1 - chance, chance], axis=1))


def seen(start_s: float, stop_s: float) -> TimeRange:
    """Written as splits write it."""
    return TimeRange(batch="a", batch_digest="d", block="train",
                     start_s=round(start_s, 6), stop_s=round(stop_s, 6))  # fmt: skip


@pytest.mark.parametrize("rate_hz", [24.0, 25.0, 30.0, 29.97, 10.0])
def test_every_snippet_stands_for_its_own_frames(rate_hz: float) -> None:
    """As the published evaluation repeats each value for 16 frames."""
    snippets = 300
    edges_s = np.arange(snippets + 1) * (16 / rate_hz)
    frames_s = np.arange(16 * snippets) / rate_hz
    found = _token_of(frames_s, np.stack([edges_s[:-1], edges_s[1:]], axis=1))
    np.testing.assert_array_equal(found, np.repeat(np.arange(snippets), 16))


def test_without_tokens_padding_answers() -> None:
    assert _token_of(np.array([0.0, 1.0]), np.zeros((0, 2))).tolist() == [0, 0]


def test_instants_in_a_range_are_left_out() -> None:
    left = predictions(end_s=[79.9, 80.0, 89.9, 90.0]).outside([seen(80, 90)], {"a": "d"})
    assert left.rows["end_s"].tolist() == [79.9, 90.0]
    other = predictions(end_s=[80.0]).outside([seen(80, 90)], {"a": "another"})
    assert len(other) == 1


def test_clips_that_reach_into_a_range_are_left_out() -> None:
    made = predictions(start_s=[70.0, 80.0, 85.0, 90.0, 95.0, 100.0],
                       end_s=[80.0, 90.0, 95.0, 100.0, 105.0, 110.0])  # fmt: skip
    left = made.outside([seen(90, 100)], {"a": "d"})
    assert left.rows["start_s"].tolist() == [70.0, 80.0, 100.0]


@given(first=st.floats(0, 100), lasts=st.integers(1, 3000), rate_hz=st.sampled_from([30.0, 29.97]))
def test_a_recording_that_was_trained_on_is_left_out(
    first: float, lasts: int, rate_hz: float
) -> None:
    """Whatever rounding makes of its end."""
    end_s = first + lasts / rate_hz
    made = predictions(start_s=[first], end_s=[end_s + 1e-6])
    assert not len(made.outside([seen(first, end_s + 1e-6)], {"a": "d"}))
    frames = predictions(start_s=[first] * 3, end_s=np.linspace(first, end_s, 3))
    assert not len(frames.outside([seen(first, end_s + 1e-6)], {"a": "d"}))


def test_a_recording_with_something_in_its_middle_is_abnormal() -> None:
    label = np.repeat([0, 2, 1, 0], [40, 20, 10, 40])
    made = predictions(end_s=np.arange(len(label)) / 10, label=label)
    assert made.pooled("segment").rows["label"].tolist() == [2]
    normal = predictions(end_s=np.arange(5) / 10)
    assert normal.pooled("segment").rows["label"].tolist() == [0]


@given(
    start_s=st.floats(0, 1000),
    rate_hz=st.sampled_from([10.0, 25.0, 30.0]),
    length_s=st.sampled_from([10.0, 3.3, 1.1]),
)
def test_no_frame_is_in_two_clips_nor_in_none(
    start_s: float, rate_hz: float, length_s: float
) -> None:
    made = batch(seconds=1200.0, video_hz=1.0, segments=((start_s, start_s + 100.0),))
    span = TimeRange(batch=made.id, batch_digest=made.digest, block="evaluation",
                     start_s=start_s, stop_s=start_s + 100.0)  # fmt: skip
    of_set = BatchSet(digest="", batches=(made,), classes=("normal",), ranges=(span,),
                      evaluation_set={})  # fmt: skip
    table = clip_table(made, of_set, ClipsConfig(length_s=length_s), "evaluation")
    first, last = table.start_s[0], table.stop_s[-1]
    times_s = np.arange(np.ceil(first * rate_hz), np.floor(last * rate_hz)) / rate_hz
    times_s = times_s[(times_s >= first) & (times_s < last)]
    inside = (times_s[:, None] >= table.start_s) & (times_s[:, None] < table.stop_s)
    assert (inside.sum(axis=1) == 1).all()


def test_predictions_are_saved_and_read_as_they_are(tmp_path) -> None:
    made = predictions(end_s=[1.0, 2.0], start_s=[0.0, 1.0])
    with_branches = Predictions(
        rows=made.rows,
        probability_NK=made.probability_NK,
        pixels_NKK=np.arange(8).reshape(2, 2, 2),
        branches={BINARY: made.probability_NK[:, ::-1], "va": made.probability_NK},
    )
    with_branches.save(tmp_path / "p.parquet")
    again = Predictions.load(tmp_path / "p.parquet")
    pd.testing.assert_frame_equal(again.rows, made.rows)
    assert set(again.branches) == {BINARY, "va"}
    np.testing.assert_array_equal(again.anomaly_N, made.probability_NK[:, 0])
    np.testing.assert_array_equal(again.pixels_NKK, with_branches.pixels_NKK)
    assert [*tmp_path.iterdir()] == [tmp_path / "p.parquet"]
