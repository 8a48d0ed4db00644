"""Tables of a control system: read strictly, repaired within limits, never silently."""

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosswatch.errors import BadBatchError

TIME_COLUMN = "time_s"
EMPTY = ("", "nan", "NaN", "NA", "null")
FIRST_ROW = 2  # row 1 of a CSV file is its header
ADVICE = "Deliver the batch again."


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawSignal:
    """Samples as they arrived: may hold NaN, doubled rows and gaps; time never runs backwards."""

    values: npt.NDArray[np.floating]  # (S, C)
    times_s: npt.NDArray[np.float64]  # (S,) on this stream's clock
    columns: tuple[str, ...]
    unit: str
    rate_hz: float
    clock: str = "control"
    name: str = "signal"  # the file's name, for errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repaired:
    """A signal that can be used, and what was done to it."""

    values: npt.NDArray[np.float32]
    times_s: npt.NDArray[np.float64]
    nan_samples: int
    doubled: int
    filled: int


def read_table(path: Path, columns: tuple[str, ...]) -> dict[str, npt.NDArray[np.float64]]:
    """The named columns of a CSV or Parquet file as float64; an empty cell is NaN.

    Raises:
        BadBatchError: a column is missing, or a cell is no number; says which row.
    """
    if path.stat().st_size == 0:
        raise BadBatchError(f"{path.name}: is empty (0 bytes). {ADVICE}")
    parquet = path.suffix == ".parquet"
    names = _parquet_columns(path) if parquet else _header(path)
    missing = [name for name in columns if name not in names]
    if missing:
        raise BadBatchError(
            f"{path.name}: wrong header: column {missing[0]!r} is missing; found "
            f"{', '.join(names)[:200] or 'none'}; needed {', '.join(columns)}. "
            "Correct the file or the columns in batch.json."
        )
    doubled = [name for name in columns if names.count(name) > 1]
    if doubled:
        raise BadBatchError(
            f"{path.name}: wrong header: column {doubled[0]!r} is there {names.count(doubled[0])} "
            "times; once is allowed. Rename or remove the others."
        )
    table = _read_parquet(path, columns) if parquet else _read_csv(path, columns)
    if not table[columns[0]].size:
        raise BadBatchError(f"{path.name}: has a header and no rows. {ADVICE}")
    return table


def check_times(times_s: npt.NDArray[np.float64], *, name: str) -> None:
    """Hold a stream's clock to running forwards; it may stand still (a doubled reading).

    Raises:
        BadBatchError: a time is missing, or earlier than the one before it.
    """
    unknown = np.flatnonzero(~np.isfinite(times_s))
    if unknown.size:
        raise BadBatchError(
            f"{name}: row {unknown[0] + FIRST_ROW}: {TIME_COLUMN} is no finite number "
            f"({unknown.size} such rows); every row needs its time. {ADVICE}"
        )
    back = np.flatnonzero(np.diff(times_s) < 0)
    if back.size:
        at = int(back[0]) + 1
        raise BadBatchError(
            f"{name}: time runs backwards at row {at + FIRST_ROW}: {times_s[at - 1]:.3f} s, then "
            f"{times_s[at]:.3f} s ({back.size} such places); it may only rise. Split the delivery "
            "where the clock was reset, or sort its rows."
        )


def check_rate(
    times_s: npt.NDArray[np.float64], *, rate_hz: float, name: str, tolerance_share: float = 0.2
) -> None:
    """Hold the declared rate against the stamps: windows count samples, so it has to be true."""
    steps_s = np.diff(times_s)
    steps_s = steps_s[steps_s > 0.25 / rate_hz]
    if not steps_s.size:
        raise BadBatchError(f"{name}: has no two samples at different times. {ADVICE}")
    found_hz = 1.0 / float(np.median(steps_s))
    if abs(found_hz / rate_hz - 1.0) > tolerance_share:
        raise BadBatchError(
            f"{name}: its times say {found_hz:.3g} Hz, batch.json declares {rate_hz:.3g} Hz; "
            f"{tolerance_share:.0%} of difference are allowed. Correct rate_hz in batch.json."
        )


def repair(
    raw: RawSignal, *, max_nan_share: float, max_fill_s: float, fill_gaps: bool = True
) -> Repaired:
    """Fill short holes with the last value before them; longer ones become gaps.

    A reading that does not come is nearly the one before it for a second or two, not for longer.

    Raises:
        BadBatchError: too many samples are missing, or all of a column.
    """
    with np.errstate(over="ignore"):
        values = raw.values.astype(np.float32)
    values[~np.isfinite(values)] = np.nan
    fresh = np.concatenate([[True], np.diff(raw.times_s) > 0.25 / raw.rate_hz])
    values, times_s = values[fresh], raw.times_s[fresh]
    broken = np.isnan(values).any(axis=1)
    _check_nan(values, raw, max_nan_share=max_nan_share)
    if broken.mean() > 0.5:
        raise BadBatchError(
            f"{raw.name}: {broken.mean():.1%} of the rows hold a NaN; allowed 50.0%. {ADVICE}"
        )
    kept = ~broken | _short_runs(broken, times_s, max_fill_s=max_fill_s)
    values, times_s = _forward_filled(values[kept]), times_s[kept]
    before = times_s.size
    if fill_gaps:
        values, times_s = _fill_missing(
            values, times_s, period_s=1 / raw.rate_hz, max_fill_s=max_fill_s
        )
    return Repaired(
        values=np.ascontiguousarray(values),
        times_s=times_s,
        nan_samples=int(broken.sum()),
        doubled=int((~fresh).sum()),
        filled=times_s.size - before,
    )


def find_gaps(
    times_s: npt.NDArray[np.float64], *, longer_than_s: float
) -> tuple[tuple[float, float], ...]:
    """Where nothing came for longer than this: the last instant before and the first after."""
    at = np.flatnonzero(np.diff(times_s) > longer_than_s)
    return tuple((float(times_s[i]), float(times_s[i + 1])) for i in at)


def count_dropped(
    times_s: npt.NDArray[np.float64], *, rate_hz: float, shorter_than_s: float
) -> int:
    """Single frames that never came: steps of two or more periods that are no gap."""
    periods = np.round(np.diff(times_s) * rate_hz).astype(int)
    return int(np.maximum(periods - 1, 0)[periods <= shorter_than_s * rate_hz].sum())


def _read_csv(path: Path, columns: tuple[str, ...]) -> dict[str, npt.NDArray[np.float64]]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    options = arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.float64()),
        null_values=list(EMPTY),
        include_columns=list(columns),
    )
    try:
        table = arrow_csv.read_csv(path, convert_options=options)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        found = _first_fault(path, columns) or " ".join(str(error).split())
        raise BadBatchError(f"{path.name}: {found}. {ADVICE}") from error
    return {name: table[name].to_numpy().astype(np.float64) for name in columns}


def _read_parquet(path: Path, columns: tuple[str, ...]) -> dict[str, npt.NDArray[np.float64]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, columns=list(columns))
        cells = {name: table[name].cast(pa.float64()).to_numpy() for name in columns}
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise BadBatchError(
            f"{path.name}: is no Parquet table of numbers: {' '.join(str(error).split())}. {ADVICE}"
        ) from error
    return {name: values.astype(np.float64) for name, values in cells.items()}


def _parquet_columns(path: Path) -> list[str]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return [str(name) for name in parquet.read_schema(path).names]
    except (pa.ArrowInvalid, OSError) as error:
        raise BadBatchError(
            f"{path.name}: is no Parquet file: {' '.join(str(error).split())}. {ADVICE}"
        ) from error


def _rows(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        yield from csv.reader(stream)


def _header(path: Path) -> list[str]:
    try:
        return next(_rows(path), [])
    except csv.Error as error:
        raise BadBatchError(f"{path.name}: row 1 is no CSV header: {error}. {ADVICE}") from error


def _first_fault(path: Path, columns: tuple[str, ...]) -> str | None:
    """Find the cell that the fast reader tripped over, because it does not say where."""
    header: list[str] = []
    try:
        for row, cells in enumerate(_rows(path), start=1):
            if row == 1:
                header = cells
            elif cells and len(cells) != len(header):
                return f"row {row} has {len(cells)} cells where the header has {len(header)}"
            for name, cell in zip(header, cells, strict=False):
                if row > 1 and name in columns and not _is_number(cell):
                    return f"row {row}, column {name}: {cell[:40]!r} is not a number"
    except csv.Error as error:
        return f"cannot be read as CSV: {error}"
    return None


def _is_number(cell: str) -> bool:
    if cell.strip() in EMPTY:
        return True
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _check_nan(values: npt.NDArray[np.float32], raw: RawSignal, *, max_nan_share: float) -> None:
    for column, name in enumerate(raw.columns):
        share = float(np.isnan(values[:, column]).mean())
        if share > max_nan_share:
            first = int(np.flatnonzero(~np.isfinite(raw.values[:, column]))[0])
            much = "all" if share == 1.0 else f"{share:.1%} of the"
            raise BadBatchError(
                f"{raw.name}: column {name}: {much} samples are NaN (first at row "
                f"{first + FIRST_ROW}); allowed {max_nan_share:.1%}. Check the meter, or raise "
                "ingest.max_nan_share."
            )


def _short_runs(
    broken: npt.NDArray[np.bool_], times_s: npt.NDArray[np.float64], *, max_fill_s: float
) -> npt.NDArray[np.bool_]:
    """Broken samples whose last good predecessor is near enough to stand in for them."""
    good = np.flatnonzero(~broken)
    before = np.searchsorted(good, np.arange(broken.size), side="right") - 1
    after = np.searchsorted(good, np.arange(broken.size), side="left")
    inside = (before >= 0) & (after < good.size)
    start_s = times_s[good[np.maximum(before, 0)]]
    stop_s = times_s[good[np.minimum(after, good.size - 1)]]
    return broken & inside & (stop_s - start_s <= max_fill_s)


def _forward_filled(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    rows = np.where(np.isnan(values), 0, np.arange(len(values))[:, None])
    np.maximum.accumulate(rows, axis=0, out=rows)
    return np.take_along_axis(values, rows, axis=0)


def _fill_missing(
    values: npt.NDArray[np.float32],
    times_s: npt.NDArray[np.float64],
    *,
    period_s: float,
    max_fill_s: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Insert the samples that did not come, so that a count of samples is a length of time."""
    steps_s = np.diff(times_s)
    count = np.where(steps_s <= max_fill_s, np.round(steps_s / period_s).astype(int), 1)
    repeats = np.append(np.maximum(count, 1), 1)
    start = np.repeat(np.arange(times_s.size), repeats)
    within = np.arange(start.size) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    step_s = np.append(steps_s, 0.0)[start] / repeats[start]
    return values[start], times_s[start] + within * step_s
