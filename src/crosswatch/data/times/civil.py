"""Civil time: what a clock on the wall says, through the nights on which it is changed."""

import dataclasses
import datetime
import difflib
import zoneinfo
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from crosswatch.data.tables import FIRST_ROW
from crosswatch.errors import BadBatchError, ResourceError

NS = 1_000_000_000
STEP_S = 6 * 3600  # no zone changes its offset twice within this
DAY_S = 24 * 3600
Instants = npt.NDArray[np.datetime64]
IntArray = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Change:
    """The instant at which a zone's offset from UTC becomes another one, in nanoseconds."""

    at_ns: int
    before_ns: int
    after_ns: int

    @property
    def from_ns(self) -> int:
        """The first wall-clock reading that comes twice (or never)."""
        return self.at_ns + min(self.before_ns, self.after_ns)

    @property
    def until_ns(self) -> int:
        return self.at_ns + max(self.before_ns, self.after_ns)


def ns_of(instant: datetime.datetime) -> int:
    """Nanoseconds since 1970; exact, where a float of that size is not."""
    elapsed = instant - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return elapsed // datetime.timedelta(microseconds=1) * 1000


def to_utc(
    wall: Instants, *, zone: str, started_at: datetime.datetime, late_s: float, name: str
) -> Instants:
    """The instants at which a clock on the wall of `zone` showed these readings, row by row.

    Of an hour that comes twice, rows after a step back (of more than `late_s`) are the second one.
    Without such a step it is the one that joins the rows before or after; with neither, the one
    nearer to `started_at`.

    Raises:
        BadBatchError: an unknown zone, or readings that its clocks never showed.
        ResourceError: this machine has no time zone database.
    """
    found = _open(zone, name=name)
    wall_ns = wall.astype("datetime64[ns]").astype(np.int64)
    first_s, last_s = int(wall_ns.min() // NS), int(wall_ns.max() // NS)
    offset_ns = np.full(wall_ns.size, _offset_s(found, first_s - 2 * DAY_S) * NS)
    for change in _changes(found, first_s - 2 * DAY_S, last_s + 2 * DAY_S):
        offset_ns[wall_ns >= change.until_ns] = change.after_ns
        inside = np.flatnonzero((wall_ns >= change.from_ns) & (wall_ns < change.until_ns))
        if not inside.size:
            continue
        if change.after_ns > change.before_ns:
            raise BadBatchError(
                f"{name}: row {inside[0] + FIRST_ROW}: {_text(wall_ns[inside[0]])} never was in "
                f"{zone}: its clocks were set forward from {_text(change.from_ns)} to "
                f"{_text(change.until_ns)} ({inside.size} such rows). Correct time.zone in "
                "batch.json, or deliver times in UTC."
            )
        again = _second_time(
            wall_ns,
            inside,
            change,
            started_ns=ns_of(started_at),
            late_s=late_s,
            zone=zone,
            name=name,
        )
        offset_ns[inside] = np.where(again, change.after_ns, change.before_ns)
    return np.asarray(wall_ns - offset_ns, "datetime64[ns]")


def _second_time(
    wall_ns: IntArray,
    inside: IntArray,
    change: _Change,
    *,
    started_ns: int,
    late_s: float,
    zone: str,
    name: str,
) -> npt.NDArray[np.bool_]:
    """Which of the rows in a doubled hour are its second time."""
    turns = np.flatnonzero(np.diff(wall_ns[inside]) < -late_s * NS)
    if turns.size:
        return np.asarray(np.arange(inside.size) > turns[0])
    half_ns = (change.until_ns - change.from_ns) // 2
    first, last = int(inside[0]), int(inside[-1])
    joins_before = first > 0 and wall_ns[first] - wall_ns[first - 1] < half_ns
    joins_after = last + 1 < wall_ns.size and wall_ns[last + 1] - wall_ns[last] < half_ns
    if joins_before and joins_after:
        raise BadBatchError(
            f"{name}: row {first + FIRST_ROW}: from {_text(change.from_ns)} to "
            f"{_text(change.until_ns)} clocks in {zone} were set back and showed this time twice; "
            f"the rows show it once. Correct time.zone in batch.json, or deliver times in UTC."
        )
    if joins_before or joins_after:
        return np.full(inside.size, joins_after)
    first_ns = wall_ns[first] - change.before_ns
    second_ns = wall_ns[first] - change.after_ns
    return np.full(inside.size, abs(second_ns - started_ns) < abs(first_ns - started_ns))


def _open(zone: str, *, name: str) -> zoneinfo.ZoneInfo:
    try:
        return zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        known = zoneinfo.available_timezones()
        if not known:
            raise ResourceError(
                f"{name}: needs the time zone {zone[:60]!r}, and this machine has no time zone "
                "database. Install the system's or Python's package tzdata."
            ) from error
        close = difflib.get_close_matches(zone[:60], sorted(known), n=1)
        hint = f"Did you mean {close[0]!r}?" if close else "Write it as Europe/Berlin."
        raise BadBatchError(f"{name}: {zone[:60]!r} is no IANA time zone. {hint}") from error


def _changes(zone: zoneinfo.ZoneInfo, first_s: int, last_s: int) -> Iterator[_Change]:
    before_s = _offset_s(zone, first_s)
    for low_s in range(first_s, last_s, STEP_S):
        after_s = _offset_s(zone, low_s + STEP_S)
        if after_s != before_s:
            at_s = _bisect(zone, low_s, low_s + STEP_S)
            yield _Change(at_ns=at_s * NS, before_ns=before_s * NS, after_ns=after_s * NS)
        before_s = after_s


def _bisect(zone: zoneinfo.ZoneInfo, low_s: int, high_s: int) -> int:
    """The first second with the later offset."""
    old_s = _offset_s(zone, low_s)
    while high_s - low_s > 1:
        middle_s = (low_s + high_s) // 2
        if _offset_s(zone, middle_s) == old_s:
            low_s = middle_s
        else:
            high_s = middle_s
    return high_s


def _offset_s(zone: zoneinfo.ZoneInfo, at_s: int) -> int:
    offset = datetime.datetime.fromtimestamp(at_s, zone).utcoffset()
    assert offset is not None, "a zone always has an offset"
    return int(offset.total_seconds())


def _text(wall_ns: int | np.int64) -> str:
    return str(np.datetime64(int(wall_ns), "ns").astype("datetime64[s]")).replace("T", " ")
