"""Tables of sentences, read strictly and without holding more than one batch's rows."""

import contextlib
import csv
import dataclasses
import difflib
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from crosswatch.data.adapters.finding import batch_id
from crosswatch.data.adapters.single import SUFFIXES
from crosswatch.features.settings import SuppliedConfig

OPTION = "caption.supplied"
LONGEST = 10_000  # characters of a sentence
LONGEST_LINE = 1 << 20  # bytes of JSON
COLUMNS = ("caption", "time_s", "until_s", "batch")
ALIKE = 0.7  # of a column that is missing and one that is there: the same was meant

Cells = Mapping[str, Any]
Rows = Iterator[tuple[str, Cells]]
"""Where a row stands, and its cells by column."""


class TableError(ValueError):
    """One line on what is wrong with a table."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sentence:
    """A row on the table's own clock; None: not said."""

    text: str
    time_s: float | None
    until_s: float | None


def read_sentences(
    path: Path, config: SuppliedConfig, *, names: set[str], shared: bool
) -> Iterator[Sentence]:
    """Rows of one batch; those of others are not looked at.

    Args:
        names: what the batch is called.
        shared: whether the table may tell of other batches, so that every row has to say which.

    Raises:
        TableError: says which row, and what was needed.
    """
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise TableError(f"{path.name}: is no table; known are {', '.join(READERS)}.")
    if path.stat().st_size == 0:
        raise TableError(f"{path.name}: is empty (0 bytes). Write at least its header.")
    for row, cells in read(path):
        where = f"{path.name}: {row}"
        columns = _columns(path.name, tuple(cells), config, shared)
        if "batch" not in columns or _named(cells[columns["batch"]], names, where):
            yield _sentence(cells, columns, where)


def _csv(path: Path) -> Rows:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, [])
            if len(set(header)) != len(header):
                raise TableError(f"{path.name}: wrong header: a column is there twice. Rename one.")
            for cells in filter(None, reader):
                row = f"row {reader.line_num}"
                if len(cells) != len(header):
                    raise TableError(
                        f"{path.name}: {row}: has {len(cells)} cells where the header has "
                        f"{len(header)}. Put sentences that hold commas in quotes."
                    )
                yield row, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise TableError(
            f"{path.name}: row {reader.line_num}: cannot be read as CSV: {error}. Write it again."
        ) from error
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error


def _json_lines(path: Path) -> Rows:
    with path.open("rb") as stream:
        lines = iter(lambda: stream.readline(LONGEST_LINE + 1), b"")
        for number, line in enumerate(lines, start=1):
            row = f"line {number}"
            if len(line) > LONGEST_LINE:
                raise TableError(
                    f"{path.name}: {row}: is longer than the {LONGEST_LINE} bytes that are "
                    "allowed. Write one sentence a line."
                )
            if not line.strip():
                continue
            try:
                cells = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise _not_utf8(path, error, row=row) from error
            except (ValueError, RecursionError) as error:
                raise TableError(f"{path.name}: {row}: is no JSON: {error}.") from error
            if not isinstance(cells, dict):
                raise TableError(
                    f"{path.name}: {row}: is {type(cells).__name__}; an object with the columns as "
                    "its keys is needed."
                )
            yield row, cells


def _parquet(path: Path) -> Rows:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with contextlib.closing(parquet.ParquetFile(path)) as file:
            parts = file.iter_batches(batch_size=1024)
            rows = (row for part in parts for row in part.to_pylist())
            yield from ((f"row {at}", cells) for at, cells in enumerate(rows, start=1))
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        raise TableError(
            f"{path.name}: is no Parquet table: {' '.join(str(error).split())[:200]}."
        ) from error


READERS: dict[str, Callable[[Path], Rows]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}


def _not_utf8(path: Path, error: UnicodeDecodeError, *, row: str = "") -> TableError:
    where = f"{row}: " if row else ""
    return TableError(f"{path.name}: {where}is not UTF-8 text: {error.reason}. Save it as UTF-8.")


@functools.lru_cache(maxsize=64)
def _columns(
    name: str, found: tuple[str, ...], config: SuppliedConfig, shared: bool
) -> dict[str, str]:
    """The table's name of each column that it has."""
    columns: dict[str, str] = {}
    for column in COLUMNS:
        wanted = getattr(config, column)
        if wanted in found:
            columns[column] = wanted
            continue
        needed = column == "caption" or (column == "batch" and shared)
        asked_for = bool(wanted) and wanted != getattr(SuppliedConfig(), column)
        others = [each for each in found if each not in {getattr(config, c) for c in COLUMNS}]
        meant = difflib.get_close_matches(wanted, others, n=1, cutoff=ALIKE) if wanted else []
        if needed or asked_for or meant:
            hint = f" Did you mean {meant[0]!r}?" if meant else ""
            why = " (rows of several batches may stand in it)" if column == "batch" else ""
            raise TableError(
                f"{name}: column {wanted!r} is missing{why}; found "
                f"{', '.join(found)[:200] or 'none'}.{hint} Set {OPTION}.{column} to its name."
            )
    return columns


def _named(cell: Any, names: set[str], where: str) -> bool:
    if not isinstance(cell, str) or not cell.strip():
        raise TableError(
            f"{where}: does not say which batch it tells of ({cell!r}). Write the batch's id, or "
            "the name of its file."
        )
    return not names.isdisjoint(_names_of(cell.strip()))


@functools.lru_cache(maxsize=1 << 16)
def _names_of(cell: str) -> frozenset[str]:
    """What a batch may be called that a cell means: files give batches the ids of their stems."""
    stem, suffix = PurePosixPath(cell).stem, PurePosixPath(cell).suffix
    known = {cell, batch_id(cell)}
    return frozenset(known | {batch_id(stem)} if suffix.lower() in SUFFIXES else known)


def _sentence(cells: Cells, columns: Mapping[str, str], where: str) -> Sentence:
    time_s, until_s = (
        _seconds(cells[columns[column]], f"{where}, column {columns[column]}")
        if column in columns
        else None
        for column in ("time_s", "until_s")
    )
    if time_s is not None and until_s is not None and until_s <= time_s:
        raise TableError(
            f"{where}: ends at {until_s:g} s, and begins at {time_s:g} s; it has to end later. "
            "Correct it, or leave its end empty."
        )
    text = _text(cells[columns["caption"]], f"{where}, column {columns['caption']}")
    return Sentence(text=text, time_s=time_s, until_s=until_s)


def _seconds(cell: Any, where: str) -> float | None:
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    wrong = TableError(f"{where}: {str(cell)[:40]!r} is no time; write seconds, as 12.5.")
    if isinstance(cell, bool) or not isinstance(cell, int | float | str) or "_" in str(cell):
        raise wrong
    try:
        seconds = float(cell)
    except (ValueError, OverflowError) as error:
        raise wrong from error
    if not math.isfinite(seconds):
        raise wrong
    return seconds


def _text(cell: Any, where: str) -> str:
    """In one line."""
    text = " ".join(cell.split()) if isinstance(cell, str) else ""
    if not text:
        raise TableError(f"{where}: {cell!r} is no sentence. Write one, or remove the row.")
    if len(text) > LONGEST:
        raise TableError(
            f"{where}: holds {len(text)} characters; {LONGEST} are allowed. Split it into "
            "sentences with times."
        )
    odd = next((sign for sign in text if ord(sign) < 32 or 0xD800 <= ord(sign) < 0xE000), None)
    if odd is not None:
        raise TableError(f"{where}: holds U+{ord(odd):04X}, which is no text. Remove it.")
    return text
