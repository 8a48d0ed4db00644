"""Features at rest: rows, times and masks, and how modalities meet at one instant."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswatch import artifacts
from crosswatch.errors import UserError
from crosswatch.features.encoder import Encoded, Failed, Vector
from crosswatch.features.schema import (
    FEATURES,
    INDEX,
    Feature,
    aligned,
    modalities_in,
    open_features,
    read_feature,
    write_feature,
    write_rows,
)

SPANS = st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.0, 3.0)), min_size=1, max_size=12).map(
    lambda steps: _spans(steps)
)


def _spans(steps: list[tuple[float, float]]) -> np.ndarray:
    """Spans that follow each other, with pauses of any length between them."""
    spans, at_s = [], 0.0
    for pause_s, length_s in steps:
        at_s += pause_s
        spans.append((at_s, at_s + length_s))
        at_s += length_s
    return np.array(spans)


def feature(spans_s: np.ndarray, width: int = 3) -> Feature:
    """Row k holds k + 1 everywhere."""
    values = np.repeat(np.arange(1, len(spans_s) + 1, dtype=np.float32)[:, None], width, axis=1)
    return Feature(values=values, valid=np.ones(len(spans_s), bool), spans_s=spans_s)


def distance_s(spans_s: np.ndarray, at_s: float) -> np.ndarray:
    return np.maximum(np.maximum(spans_s[:, 0] - at_s, at_s - spans_s[:, 1]), 0.0)


@given(spans_s=SPANS, at_s=st.floats(-2.0, 60.0), within_s=st.floats(0.0, 2.0))
def test_the_row_of_an_instant_is_the_nearest_within_the_tolerance(
    spans_s: np.ndarray, at_s: float, within_s: float
) -> None:
    (row,) = feature(spans_s).rows_at(np.array([at_s]), within_s=within_s)
    away = distance_s(spans_s, at_s)
    if away.min() > within_s:
        assert row == -1
    else:
        assert away[row] == away.min()


@given(spans_s=SPANS, start_s=st.floats(0.0, 40.0), length_s=st.floats(0.01, 10.0))
def test_rows_between_are_those_that_overlap(
    spans_s: np.ndarray, start_s: float, length_s: float
) -> None:
    rows = feature(spans_s).rows_between(start_s, start_s + length_s)
    overlap = [k for k, (a, b) in enumerate(spans_s) if a < start_s + length_s and b > start_s]
    assert rows.tolist() == overlap


@given(spans_s=SPANS, at_s=st.floats(-2.0, 60.0), within_s=st.floats(0.0, 5.0))
def test_rows_that_ended_know_nothing_of_what_came_after(
    spans_s: np.ndarray, at_s: float, within_s: float
) -> None:
    (row,) = feature(spans_s).rows_ended_by(np.array([at_s]), within_s=within_s)
    ended = [k for k, (_, stop_s) in enumerate(spans_s) if at_s - within_s <= stop_s <= at_s]
    assert row == (ended[-1] if ended else -1)


def test_of_overlapping_rows_the_one_that_began_last_tells() -> None:
    found = feature(np.array([[0.0, 2.0], [1.0, 3.0], [2.0, 4.0]]))
    assert found.rows_at(np.array([0.5, 1.5, 2.5, 4.0])).tolist() == [0, 1, 2, 2]


def test_no_row_tells_where_there_is_none() -> None:
    nothing = Feature(
        values=np.empty((0, 4), np.float32), valid=np.empty(0, bool), spans_s=np.empty((0, 2))
    )
    assert nothing.rows_at(np.array([0.0, 1.0]), within_s=9.0).tolist() == [-1, -1]


def test_modalities_meet_at_the_same_instants_and_what_is_missing_is_not_valid() -> None:
    features = {
        "motion": feature(np.array([[0.0, 1.0], [1.0, 2.0]])),
        "mel": feature(np.array([[1.5, 1.8]]), width=5),
    }
    found = aligned(features, np.array([0.5, 1.6, 3.0]))
    assert found["motion"].values[:, 0].tolist() == [1.0, 2.0, 0.0]
    assert found["motion"].valid.tolist() == [True, True, False]
    assert found["mel"].values.shape == (3, 5)
    assert found["mel"].valid.tolist() == [False, True, False]
    assert not found["mel"].values[[0, 2]].any()


ROW = st.one_of(
    st.none(), st.tuples(st.integers(1, 5), st.booleans())
)  # failed, or a sequence of so many vectors of which the first may be invalid


@given(plan=st.lists(ROW, max_size=9))
def test_rows_are_written_padded_and_masked(
    plan: list[tuple[int, bool] | None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    made: dict[int, Encoded | Failed] = {}
    for row, told in enumerate(plan):
        if told is None:
            made[row] = Failed(row=row, reason="broken")
            continue
        valid = np.ones(told[0], bool)
        valid[0] = told[1]
        values = np.full((told[0], 4), row + 1, np.float32)
        pooled = Vector(values=values[0], valid=np.array(True))
        made[row] = {"tokens": Vector(values=values, valid=valid), "sentence": pooled}

    def rows() -> Iterator[tuple[int, Encoded | Failed]]:
        yield from made.items()

    spans_s = np.arange(2.0 * len(plan)).reshape(-1, 2)
    names = write_rows(folder, spans_s, rows)
    lengths = [told[0] for told in plan if told is not None]
    assert set(names) == ({"tokens", "sentence"} if lengths else set())
    assert read_feature(folder, "other") is None
    for name in names:
        found = read_feature(folder, name)
        assert found is not None
        assert found.values.shape == (len(plan), *((max(lengths),) if name == "tokens" else ()), 4)
        np.testing.assert_array_equal(found.spans_s, spans_s)
        assert not found.values[~found.valid].any()
        for row, told in enumerate(plan):
            expected = 0 if told is None else told[0] - (not told[1]) if name == "tokens" else 1
            assert found.valid[row].sum() == expected
            assert (found.values[row][found.valid[row]] == row + 1).all()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    with artifacts.create(tmp_path / "features", kind=FEATURES) as draft:
        write_feature(draft.path / "batch-1", "mel", feature(np.array([[0.0, 1.0]]), width=7))
        facts = {"name": "mel", "weights": "", "preprocessing": {}, "version": "1", "digest": "d"}
        artifacts.write_json(draft / "batch-1/mel.json", {**facts, "modalities": ["mel"]})
        index = {
            "batches": ["batch-1", "batch-2"],
            "encoders": ["mel", "hashed"],
            "modalities": modalities_in(draft.path),
        }
        artifacts.write_json(draft / INDEX, index)
    return tmp_path / "features"


def test_an_artifact_tells_its_modalities_and_gives_memory_mapped_arrays(written: Path) -> None:
    found = open_features(written)
    assert found.modalities["mel"]["width"] == 7
    assert found.batches == ("batch-1", "batch-2")
    mel = found.feature("batch-1", "mel")
    assert mel is not None
    assert isinstance(mel.values, np.memmap)
    assert found.feature("batch-2", "mel") is None
    assert found.feature("batch-1", "hashed_tokens") is None, "it ran, and had nothing to look at"


def test_a_modality_that_is_not_there_is_named_with_what_is(written: Path) -> None:
    with pytest.raises(UserError, match=r"holds no 'clip'; it holds mel. Add it to features"):
        open_features(written).feature("batch-1", "clip")


def test_a_batch_that_is_not_there_is_named_with_those_that_are(written: Path) -> None:
    with pytest.raises(UserError, match=r"holds no batch 'batch-3'; it holds batch-1, batch-2"):
        open_features(written).feature("batch-3", "mel")


def test_a_changed_byte_is_found(written: Path) -> None:
    path = written / "batch-1/mel.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="SHA-256 differs"):
        open_features(written)
