"""Times as a table writes them: seconds, counters that roll over, dates, coarse stamps."""

import dataclasses
import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from crosswatch.data.tables import FIRST_ROW, TIME_COLUMN, Kind
from crosswatch.data.times import civil
from crosswatch.data.times.unfold import MAX_REORDERED_SHARE, Stamps, check_known, late_s, unfold
from crosswatch.errors import ADVICE, BadBatchError, UserError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
KINDS: dict[str, Kind] = {"seconds": "number", "ticks": "whole", "local": "civil", "utc": "utc"}
OPTIONS = {"tick_hz": "ticks", "bits": "ticks", "zone": "local"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeEntry:
    """How a table writes its times; dates become seconds since the batch's `started_at`."""

    column: str = TIME_COLUMN
    kind: Literal["seconds", "ticks", "local", "utc"] = "seconds"
    tick_hz: float | None = None
    bits: int | None = None  # a counter of so many bits rolls over; None never does
    zone: str | None = None  # IANA
    resolution_s: float | None = None  # rows share a stamp, which is cut off to this

    def __post_init__(self) -> None:
        for option, kind in OPTIONS.items():
            if getattr(self, option) is not None and self.kind != kind:
                raise UserError(f"{option} belongs to kind {kind}; kind is {self.kind}")
        if self.kind == "ticks" and not 1e-3 <= (self.tick_hz or 0.0) <= 1e12:
            raise UserError(f"tick_hz is {self.tick_hz}; ticks need 0.001 to 1e12 Hz")
        if self.kind == "local" and not self.zone:
            raise UserError("kind local needs a zone such as Europe/Berlin")
        if self.bits is not None and not 4 <= self.bits <= 48:
            raise UserError(f"bits is {self.bits}; counters of 4 to 48 bits are unwrapped")
        if self.resolution_s is not None and not 1e-3 <= self.resolution_s <= 60:
            raise UserError(f"resolution_s is {self.resolution_s}; expected 0.001 to 60 s")

    @property
    def cells(self) -> Kind:
        """What the table's cells have to be."""
        return KINDS[self.kind]


def read_stamps(
    cells: npt.NDArray[Any],
    entry: TimeEntry,
    *,
    rate_hz: float,
    started_at: datetime.datetime,
    name: str,
    max_reordered_share: float = MAX_REORDERED_SHARE,
    with_resets: bool = True,
) -> Stamps:
    """Times of a table's rows from its cells of the kind that `entry` declares.

    Raises:
        BadBatchError: a cell is no time, or time runs backwards in a way that cannot be mended.
    """
    times_s, rollovers = _seconds(cells, entry, rate_hz=rate_hz, started_at=started_at, name=name)
    coarse_s = entry.resolution_s
    check_known(times_s, name=name, column=entry.column)
    found = unfold(
        times_s,
        rate_hz=rate_hz if coarse_s is None else min(rate_hz, 1 / coarse_s),
        name=name,
        max_reordered_share=max_reordered_share,
        with_resets=with_resets,
    )
    found = dataclasses.replace(found, rollovers=rollovers)
    if coarse_s is None:
        return found
    spread_s = np.empty_like(times_s)
    for piece in np.split(found.order, np.flatnonzero(np.diff(found.pieces)) + 1):
        spread_s[piece] = spread(
            times_s[piece], rate_hz=rate_hz, resolution_s=coarse_s, name=name, rows=piece
        )
    return dataclasses.replace(found, times_s=spread_s)


def unwrap(ticks: IntArray, *, bits: int) -> tuple[IntArray, int]:
    """Undo the rollovers of a counter, and count them.

    A step is taken for the shorter way round, so that a late row is no rollover: between two rows
    less than half of the counter's period may pass.
    """
    half = 1 << (bits - 1)
    steps = (np.diff(ticks) + half) % (2 * half) - half
    whole = ticks[0] + np.concatenate([[0], np.cumsum(steps)])
    return whole, int((whole.max() >> bits) - (ticks[0] >> bits))


def spread(
    stamps_s: FloatArray, *, rate_hz: float, resolution_s: float, name: str, rows: IntArray
) -> FloatArray:
    """Place the rows that share a cut-off stamp within the time that it stands for.

    A stamp with one before and one after it is full: its rows lie evenly in it. One at an edge of
    the series or of a gap may be cut: its rows follow at the declared rate, up to its end where
    nothing precedes it, else from its beginning.
    """
    start = np.flatnonzero(np.concatenate([[True], np.diff(stamps_s) != 0]))
    first_s = stamps_s[start]
    count = np.diff(np.append(start, stamps_s.size))
    units = (first_s - first_s[0]) / resolution_s
    odd = np.flatnonzero(np.abs(units - np.round(units)) > 0.01)
    if odd.size:
        raise BadBatchError(
            f"{name}: row {rows[start[odd[0]]] + FIRST_ROW}: its stamp is {first_s[odd[0]]:.3f} s, "
            f"not a whole number of resolution_s, {resolution_s:g} s, after the first "
            f"({odd.size} such stamps). Correct time.resolution_s in batch.json."
        )
    joined = np.diff(units) < 1.5
    follows, goes_on = np.append(False, joined), np.append(joined, False)
    pitch_s = resolution_s / count
    pitch_s = np.where(follows & goes_on, pitch_s, np.minimum(pitch_s, 1 / rate_hz))
    first_s = first_s + np.where(goes_on & ~follows, resolution_s - count * pitch_s, 0.0)
    within = np.arange(stamps_s.size) - np.repeat(start, count)
    return np.asarray(np.repeat(first_s, count) + within * np.repeat(pitch_s, count), np.float64)


def rising_edges(levels: FloatArray, stamps: Stamps, *, name: str, column: str) -> FloatArray:
    """When a 0/1 column goes from 0 to 1, by order of time; an empty cell is as the one before.

    Raises:
        BadBatchError: a cell is neither 0 nor 1.
    """
    odd = np.flatnonzero(~(np.isin(levels, (0.0, 1.0)) | np.isnan(levels)))
    if odd.size:
        raise BadBatchError(
            f"{name}: row {odd[0] + FIRST_ROW}, column {column}: {levels[odd[0]]:g} is neither 0 "
            f"nor 1 ({odd.size} such rows); a trigger is 1 while it fires. {ADVICE}"
        )
    known = np.where(np.isnan(levels[stamps.order]), 0, np.arange(levels.size))
    high = levels[stamps.order][np.maximum.accumulate(known)] == 1.0
    one_piece = np.diff(stamps.pieces[stamps.order]) == 0
    rises = np.flatnonzero(high[1:] & ~high[:-1] & one_piece) + 1
    return stamps.times_s[stamps.order[rises]]


def _seconds(
    cells: npt.NDArray[Any],
    entry: TimeEntry,
    *,
    rate_hz: float,
    started_at: datetime.datetime,
    name: str,
) -> tuple[FloatArray, int]:
    if entry.kind == "seconds":
        return np.asarray(cells, np.float64), 0
    if entry.kind == "ticks":
        assert entry.tick_hz is not None
        ticks, rollovers = np.asarray(cells, np.int64), 0
        if entry.bits is not None:
            _check_ticks(ticks, entry.bits, name=name, column=entry.column)
            ticks, rollovers = unwrap(ticks, bits=entry.bits)
        return ticks / entry.tick_hz, rollovers
    if entry.zone is not None:
        cells = civil.to_utc(
            cells, zone=entry.zone, started_at=started_at, late_s=late_s(rate_hz), name=name
        )
    return (cells.astype(np.int64) - civil.ns_of(started_at)) / 1e9, 0


def _check_ticks(ticks: IntArray, bits: int, *, name: str, column: str) -> None:
    odd = np.flatnonzero((ticks < 0) | (ticks >= 1 << bits))
    if odd.size:
        raise BadBatchError(
            f"{name}: row {odd[0] + FIRST_ROW}, column {column}: {ticks[odd[0]]} is no reading "
            f"of a counter of {bits} bits ({odd.size} such rows). Correct time.bits in batch.json."
        )
