"""The tables of FMF-Benchmark: stamps of whole seconds become times, rows become 2 Hz."""

import csv
import dataclasses
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.data.adapters.matlab import ADVICE
from crosswatch.data.signals import FIRST_ROW
from crosswatch.errors import BadBatchError
from crosswatch.records import Block

FRAME_HZ = 25.0
CURRENT_HZ = 2.0
PHASES = 3
LISTS: dict[Block, str] = {"train": "train.json", "evaluation": "test.json"}
EMPTY = ("", "nan", "NaN", "NA", "null")
Seconds = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Currents:
    """Means over half-seconds, stamped with their beginnings; those without a row are left out."""

    values: npt.NDArray[np.float64]  # (S, 3)
    times_s: npt.NDArray[np.float64]
    reordered: int = 0


def read_stamps(path: Path) -> Seconds:
    """The second in which each frame was taken."""
    return np.array([_second(path, row, cells) for row, cells in _rows(path)], np.int64)


def read_currents(path: Path) -> tuple[Seconds, npt.NDArray[np.float64]]:
    """The second of each row and its three phases (S, 3)."""
    seconds, amperes = [], []
    for row, cells in _rows(path):
        if len(cells) < 1 + PHASES:
            raise BadBatchError(
                f"{_named(path)}: row {row} has {len(cells)} cells; a timestamp and {PHASES} "
                f"currents were expected. {ADVICE}"
            )
        seconds.append(_second(path, row, cells))
        amperes.append([_number(path, row, cell) for cell in cells[1 : 1 + PHASES]])
    return np.array(seconds, np.int64), np.array(amperes, np.float64)


def read_split(folder: Path, name: str) -> dict[Block, Seconds]:
    """The frames that each published list names for one video, ascending; no list, no frames."""
    found = {block: _listed(folder / file, name) for block, file in LISTS.items()}
    both = np.intersect1d(found["train"], found["evaluation"])
    if both.size:
        raise BadBatchError(
            f"{name}: frame {both[0]} is in {LISTS['train']} and in {LISTS['evaluation']} "
            f"({both.size} such frames); a frame is in one at most. {ADVICE}"
        )
    return found


def spread_frames(second_N: Seconds, *, name: str) -> npt.NDArray[np.float64]:  # noqa: N803
    """The frames of a second evenly over it; where a recording begins or ends within a second,
    its frames stand at the recording's side of it."""
    back = np.flatnonzero(np.diff(second_N) < 0)
    if back.size:
        raise BadBatchError(
            f"{name}: time runs backwards at row {back[0] + 1 + FIRST_ROW} ({back.size} such "
            f"places); frames are in order. {ADVICE}"
        )
    seconds, first, count = np.unique(second_N, return_index=True, return_counts=True)
    begins = np.append(True, np.diff(seconds) > 1)
    ends = np.append(np.diff(seconds) > 1, True)
    partial = count < FRAME_HZ
    rate_hz = np.where(partial & (begins | ends), FRAME_HZ, count)
    before = np.where(partial & begins, FRAME_HZ - count, 0.0)
    of_frame = np.repeat(np.arange(len(seconds)), count)
    place = np.arange(len(second_N)) - first[of_frame] + before[of_frame]
    return np.asarray(seconds[of_frame] + place / rate_hz[of_frame], np.float64)


def by_second(second_S: Seconds, amperes: npt.NDArray[np.float64]) -> Currents:  # noqa: N803
    """Rows at 2 Hz, however many a second holds and in whatever order the seconds come."""
    reordered = int(np.count_nonzero(np.diff(second_S) < 0))
    order = np.argsort(second_S, kind="stable")
    second_S, amperes = second_S[order], amperes[order]  # noqa: N806
    _, first, inverse, count = np.unique(
        second_S, return_index=True, return_inverse=True, return_counts=True
    )
    place = np.arange(len(second_S)) - first[inverse]
    half = second_S * int(CURRENT_HZ) + place * int(CURRENT_HZ) // count[inverse]
    return dataclasses.replace(at_half_seconds(half, amperes), reordered=reordered)


def at_half_seconds(half_S: Seconds, amperes: npt.NDArray[np.float64]) -> Currents:  # noqa: N803
    """The mean of the rows of each half-second; NaN where a phase has none."""
    halves, inverse = np.unique(half_S, return_inverse=True)
    known = np.isfinite(amperes)
    sums, counts = np.zeros((2, len(halves), PHASES))
    np.add.at(sums, inverse, np.where(known, amperes, 0.0))
    np.add.at(counts, inverse, known)
    values = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    return Currents(values=values, times_s=halves / CURRENT_HZ)


def _listed(path: Path, name: str) -> Seconds:
    if not path.is_file():
        return np.empty(0, np.int64)
    try:
        lists: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadBatchError(f"{path.name}: is not JSON: {error}. {ADVICE}") from error
    frames = lists.get(name, []) if isinstance(lists, dict) else None
    whole = isinstance(frames, list) and all(type(frame) is int for frame in frames)
    if not whole or any(not 0 <= frame < 2**31 for frame in frames or ()):
        raise BadBatchError(
            f'{path.name}: expected {{"{name[:60]}": [frame, ...]}} with frames counted from 0. '
            f"{ADVICE}"
        )
    return np.unique(np.array(frames, np.int64))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows behind the header with their numbers; an empty line is none."""
    found = False
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            for row, cells in enumerate(csv.reader(stream), start=1):
                if row >= FIRST_ROW and cells:
                    found = True
                    yield row, cells
    except csv.Error as error:
        raise BadBatchError(f"{_named(path)}: cannot be read as CSV: {error}. {ADVICE}") from error
    if not found:
        raise BadBatchError(f"{_named(path)}: has no rows below a header. {ADVICE}")


def _second(path: Path, row: int, cells: list[str]) -> int:
    try:
        stamp = datetime.datetime.fromisoformat(cells[0].strip())
        return int(stamp.replace(tzinfo=datetime.UTC).timestamp() // 1)
    except (ValueError, OverflowError) as error:
        raise BadBatchError(
            f"{_named(path)}: row {row}: {cells[0][:40]!r} is no time such as "
            f"'2021-03-04 05:06:07'. {ADVICE}"
        ) from error


def _number(path: Path, row: int, cell: str) -> float:
    if cell.strip() in EMPTY:
        return float("nan")
    try:
        return float(cell)
    except ValueError as error:
        raise BadBatchError(
            f"{_named(path)}: row {row}: {cell[:40]!r} is not a number. {ADVICE}"
        ) from error


def _named(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
