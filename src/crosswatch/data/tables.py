"""CSV and Parquet tables, read strictly: a cell that is not what it should be is named."""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from crosswatch.errors import ADVICE, BadBatchError

Kind = Literal["number", "whole", "civil", "utc"]
"""What a column holds: floats (empty is NaN), integers, dates without and with a zone."""
EMPTY = ("", "nan", "NaN", "NA", "null")
TIME_COLUMN = "time_s"
FIRST_ROW = 2  # row 1 of a CSV file is its header
DATE = re.compile(
    r"(?:19[7-9]|20\d)\d-\d\d-\d\d(?P<mark>[ T])\d\d:\d\d:\d\d(?:[.]\d{1,9})?"
    r"(?P<zone>Z|[+-]\d\d:\d\d)?",
    re.ASCII,
)
WHOLE = re.compile(r"-?\d{1,18}", re.ASCII)


def read_table(
    path: Path, columns: tuple[str, ...], *, kinds: Mapping[str, Kind] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """The named columns of a CSV or Parquet file: numbers as float64 unless `kinds` says other.

    Whole numbers come as int64, dates as datetime64[ns]; those two have no empty cells.

    Raises:
        BadBatchError: a column is missing, or a cell is not of its kind; says which row.
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
    asked: dict[str, Kind] = {name: (kinds or {}).get(name, "number") for name in columns}
    table = _read_parquet(path, asked) if parquet else _read_csv(path, asked)
    if not table[columns[0]].size:
        raise BadBatchError(f"{path.name}: has a header and no rows. {ADVICE}")
    return table


def _read_csv(path: Path, kinds: Mapping[str, Kind]) -> dict[str, npt.NDArray[Any]]:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    types = {"number": pa.float64(), "whole": pa.int64()}
    options = arrow_csv.ConvertOptions(
        column_types={name: types.get(kind, pa.string()) for name, kind in kinds.items()},
        null_values=list(EMPTY),
        include_columns=list(kinds),
    )
    try:
        table = arrow_csv.read_csv(path, convert_options=options)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        found = _first_fault(path, kinds) or " ".join(str(error).split())
        raise BadBatchError(f"{path.name}: {found}. {ADVICE}") from error
    return {name: _cells(table[name], kind, path, name) for name, kind in kinds.items()}


def _read_parquet(path: Path, kinds: Mapping[str, Kind]) -> dict[str, npt.NDArray[Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    found: dict[str, npt.NDArray[Any]] = {}
    name = ""
    try:
        table = parquet.read_table(path, columns=list(kinds))
        for name, kind in kinds.items():
            found[name] = _cells(table[name], kind, path, name)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        where = f"column {name} " if name else ""
        raise BadBatchError(
            f"{path.name}: {where}cannot be read: {' '.join(str(error).split())[:200]}. {ADVICE}"
        ) from error
    return found


def _cells(column: Any, kind: Kind, path: Path, name: str) -> npt.NDArray[Any]:
    import pyarrow as pa

    if kind == "number":
        return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0]) + FIRST_ROW
        raise BadBatchError(
            f"{path.name}: row {row}, column {name}: is empty ({column.null_count} such rows); "
            f"every row needs its stamp. {ADVICE}"
        )
    if kind == "whole":
        return np.asarray(column.cast(pa.int64()).to_numpy(), np.int64)
    return _dates(column, kind, path, name)


def _dates(column: Any, kind: Kind, path: Path, name: str) -> npt.NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        if kind == "civil" and column.type.tz is not None:
            raise BadBatchError(
                f"{path.name}: column {name} has the zone {column.type.tz[:40]!r} already; "
                'declare it as "utc".'
            )
        return np.asarray(column.cast(pa.timestamp("ns", column.type.tz)).to_numpy())
    texts = column.cast(pa.string())
    kind_of_time = pa.timestamp("ns", "UTC" if _check_dates(texts, kind, path, name) else None)
    try:
        return np.asarray(texts.cast(kind_of_time).to_numpy())
    except pa.ArrowInvalid as error:  # a form that fits and a day that the calendar lacks
        at = _first_refused(texts, kind_of_time)
        raise BadBatchError(_no_date(path, name, at, texts[at].as_py())) from error


def _first_refused(texts: Any, kind_of_time: Any) -> int:
    import pyarrow as pa

    low, high = 0, len(texts)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            texts.slice(low, middle - low).cast(kind_of_time)
        except pa.ArrowInvalid:
            high = middle
        else:
            low = middle
    return low


def _check_dates(texts: Any, kind: Kind, path: Path, name: str) -> bool:
    """Hold all rows to the form of the first; whether they carry a zone."""
    from pyarrow import compute

    first = texts[0].as_py() if len(texts) else "1970-01-01 00:00:00"
    match = DATE.fullmatch(first)
    zoned = match is not None and match["zone"] is not None
    if match is None or (zoned and kind == "civil"):
        raise BadBatchError(_no_date(path, name, 0, first))
    form = DATE.pattern.replace("(?P<mark>[ T])", match["mark"])
    form = form.removesuffix("?") if zoned else form.partition("(?P<zone>")[0]
    odd = np.flatnonzero(~compute.match_substring_regex(texts, f"^{form}$").to_numpy())
    if odd.size:
        at = int(odd[0])
        text = texts[at].as_py()
        if DATE.fullmatch(text) is None:
            raise BadBatchError(_no_date(path, name, at, text))
        raise BadBatchError(
            f"{path.name}: row {at + FIRST_ROW}, column {name}: {text!r} is written in another way "
            f"than {first!r} in row {FIRST_ROW} ({odd.size} such rows). Write all rows in one way."
        )
    return zoned


def _no_date(path: Path, name: str, at: int, text: str) -> str:
    return (
        f"{path.name}: row {at + FIRST_ROW}, column {name}: {text[:40]!r} is no such date; write "
        "dates as 2025-10-26 02:30:00.125, with a zone only where batch.json says utc."
    )


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


def _first_fault(path: Path, kinds: Mapping[str, Kind]) -> str | None:
    """Find the cell that the fast reader tripped over, because it does not say where."""
    header: list[str] = []
    try:
        for row, cells in enumerate(_rows(path), start=1):
            if row == 1:
                header = cells
            elif cells and len(cells) != len(header):
                return f"row {row} has {len(cells)} cells where the header has {len(header)}"
            for name, cell in zip(header, cells, strict=False):
                fault = _fault(cell.strip(), kinds.get(name)) if row > 1 else None
                if fault is not None:
                    return f"row {row}, column {name}: {cell[:40]!r} is {fault}"
    except csv.Error as error:
        return f"cannot be read as CSV: {error}"
    return None


def _fault(cell: str, kind: Kind | None) -> str | None:
    if cell in EMPTY:
        return None
    if kind == "whole" and not WHOLE.fullmatch(cell):
        return "no whole number of at most 18 digits"
    if kind == "number":
        try:
            float(cell)
        except ValueError:
            return "not a number"
    return None
