"""Signals with holes: what is filled, what becomes a gap, and that both are counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswatch.data.signals import RawSignal, check_rate, repair
from crosswatch.errors import BadBatchError

COLUMNS = ("a", "b", "c")


def signal(values: np.ndarray, *, rate_hz: float = 2.0, times_s: np.ndarray | None = None):
    return RawSignal(
        values=values,
        times_s=np.arange(len(values)) / rate_hz if times_s is None else times_s,
        columns=COLUMNS[: values.shape[1]],
        unit="A",
        rate_hz=rate_hz,
    )


def counted(rows: int, columns: int = 3) -> np.ndarray:
    """Every cell says where it was."""
    return np.arange(rows * columns, dtype=np.float64).reshape(rows, columns)


def fix(raw: RawSignal, **options):
    return repair(raw, **({"max_nan_share": 0.9, "max_fill_s": 2.0} | options))


@settings(max_examples=150, deadline=None)
@given(
    rate_hz=st.sampled_from([0.1, 0.5, 2.0, 25.0]),
    holes=st.lists(
        st.tuples(st.integers(0, 59), st.integers(1, 8), st.integers(0, 2)), min_size=1, max_size=8
    ),
)
def test_every_row_that_is_left_holds_the_last_reading_of_each_column(rate_hz, holes) -> None:
    """Against the definition, cell by cell."""
    values = counted(60)
    for start, length, column in holes:
        values[start : start + length, column] = np.nan
    if np.isnan(values).any(axis=1).mean() > 0.5:
        return
    found = fix(signal(values, rate_hz=rate_hz), fill_gaps=False)
    expected, kept_s = [], []
    for row in range(60):
        cells = []
        for column in range(3):
            good = np.flatnonzero(~np.isnan(values[:, column]))
            before, after = good[good <= row], good[good >= row]
            if not before.size or not after.size:
                break
            if (after[0] - before[-1]) / rate_hz > max(2.0, 2.5 / rate_hz):
                break
            cells.append(values[before[-1], column])
        if len(cells) == 3:
            expected.append(cells)
            kept_s.append(row / rate_hz)
    np.testing.assert_array_equal(found.times_s, kept_s)
    np.testing.assert_array_equal(found.values, np.float32(expected).reshape(-1, 3))
    assert found.nan_samples == int(np.isnan(values).any(axis=1).sum())


def test_holes_at_the_beginning_and_the_end_shorten_the_signal() -> None:
    values = counted(40)
    values[:3, 0] = np.nan
    values[-2:, 1] = np.nan
    found = fix(signal(values))
    assert (found.times_s[0], found.times_s[-1]) == (1.5, 18.5)
    assert (found.nan_samples, found.filled) == (5, 0)


def test_a_column_that_is_gone_for_a_while_is_a_gap_of_all() -> None:
    values = counted(40)
    values[10:20, 2] = np.inf
    found = fix(signal(values))
    np.testing.assert_array_equal(found.times_s, np.delete(np.arange(40) / 2, slice(10, 20)))
    assert found.nan_samples == 10


def test_columns_that_fail_by_turns_are_no_gap() -> None:
    values = counted(100)
    values[10:30:2, 0] = np.nan
    values[11:31:2, 1] = np.nan
    found = fix(signal(values))
    assert found.times_s.size == 100
    assert found.nan_samples == 20
    np.testing.assert_array_equal(found.values[12], [values[11, 0], values[12, 1], values[12, 2]])


def test_one_missing_row_of_a_slow_signal_is_filled() -> None:
    times_s = np.delete(np.arange(40) * 10.0, 7)
    found = fix(signal(counted(39), rate_hz=0.1, times_s=times_s))
    np.testing.assert_array_equal(found.times_s, np.arange(40) * 10.0)
    assert found.filled == 1


def test_the_delivery_itself_is_left_as_it_was() -> None:
    values = counted(40).astype(np.float32)
    values[5, 0] = np.nan
    before = values.copy()
    fix(signal(values))
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("rate_hz", [0.1, 2.0, 50_000.0])
def test_a_rate_is_held_against_its_times(rate_hz: float) -> None:
    times_s = np.arange(1000) / rate_hz
    check_rate(times_s, rate_hz=rate_hz, name="s.csv")
    with pytest.raises(BadBatchError, match=r"Correct rate_hz in batch\.json\.$"):
        check_rate(times_s, rate_hz=1.5 * rate_hz, name="s.csv")


def test_stamps_that_rows_share_are_pointed_out() -> None:
    times_s = np.repeat(np.arange(40.0), 25)
    with pytest.raises(BadBatchError, match=r"1 Hz, .* declare time\.resolution_s: rows share"):
        check_rate(times_s, rate_hz=25.0, name="s.csv")
