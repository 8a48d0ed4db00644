"""Order of time in rows that came late, and in clocks that were set anew.

A step back in time has one of three causes. *Late rows*: they came after their turn, at most
`late_s` behind, and fall where nothing else was; sorted, they give an even series. *A reset*: the
clock starts anew and runs on; its new times either stay below the old ones, or cover instants that
were there before, so that sorting would lay two stretches over each other. *A stray stamp*: the
series jumps and is back within half of `late_s`; nobody knows when that row was taken, so it is
refused.
"""

import bisect
import dataclasses
import math

import numpy as np
import numpy.typing as npt

from crosswatch.data.tables import FIRST_ROW, TIME_COLUMN
from crosswatch.errors import ADVICE, BadBatchError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
MAX_REORDERED_SHARE = 0.01
MOST_RESETS = 100  # a clock that is reset more often than that tells no time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stamps:
    """Every row's time on its stream's clock, and how the rows came."""

    times_s: FloatArray  # in order of rows
    pieces: IntArray  # resets of the clock before each row
    order: IntArray  # rows by piece, then by time
    reordered: int = 0  # the fewest rows that had to be moved
    rollovers: int = 0

    @property
    def resets(self) -> int:
        return int(self.pieces[-1])


def late_s(rate_hz: float) -> float:
    """How long after its turn a row may come: a second, or three rows of a slow stream."""
    return max(1.0, 3.0 / rate_hz)


def unfold(
    times_s: FloatArray,
    *,
    rate_hz: float,
    name: str,
    max_reordered_share: float = MAX_REORDERED_SHARE,
    with_resets: bool = True,
) -> Stamps:
    """Tell late rows from resets; a series that only rises stays as it is.

    Raises:
        BadBatchError: a stamp strays, too many rows are late, or the clock was reset (too often).
    """
    check_known(times_s, name=name)
    back = np.flatnonzero(np.diff(times_s) < 0) + 1
    rows = np.arange(times_s.size)
    if not back.size:
        return Stamps(times_s=times_s, pieces=np.zeros(times_s.size, np.int64), order=rows)
    allowed = max(1, int(max_reordered_share * times_s.size))
    if back.size > allowed + MOST_RESETS:
        raise _too_late(times_s, back, back.size, allowed, name)
    resets = _resets(times_s, back, rate_hz=rate_hz, name=name)
    if resets and not with_resets:
        raise backwards(times_s, resets, name=name)
    if len(resets) > MOST_RESETS:
        raise backwards(times_s, resets, name=name)
    pieces = np.zeros(times_s.size, np.int64)
    pieces[resets] = 1
    moved = sum(_moved(part) for part in np.split(times_s, resets))
    if moved > allowed:
        raise _too_late(times_s, back, moved, allowed, name)
    pieces = np.cumsum(pieces)
    order = np.lexsort((times_s, pieces))
    return Stamps(times_s=times_s, pieces=pieces, order=order, reordered=moved)


def check_known(times_s: FloatArray, *, name: str, column: str = TIME_COLUMN) -> None:
    unknown = np.flatnonzero(~np.isfinite(times_s))
    if unknown.size:
        raise BadBatchError(
            f"{name}: row {unknown[0] + FIRST_ROW}: {column} is no finite number "
            f"({unknown.size} such rows); every row needs its time. {ADVICE}"
        )


def backwards(times_s: FloatArray, places: "list[int] | IntArray", *, name: str) -> BadBatchError:
    at = int(places[0])
    return BadBatchError(
        f"{name}: time runs backwards at row {at + FIRST_ROW}: {times_s[at - 1]:.3f} s, then "
        f"{times_s[at]:.3f} s ({len(places)} such places); it may only rise. Split the delivery "
        "where the clock was reset, or sort its rows."
    )


def _resets(times_s: FloatArray, back: IntArray, *, rate_hz: float, name: str) -> list[int]:
    """Rows at which the clock starts anew; between two steps back the series rises."""
    resets: list[int] = []
    start, top_s = 0, -math.inf
    for at in map(int, back):
        top_s = max(top_s, float(times_s[at - 1]))
        if top_s - times_s[at] <= late_s(rate_hz):
            reset = _overlaps(times_s, start, at, top_s, rate_hz)
        elif _strays(times_s, start, at, top_s, rate_hz):
            raise backwards(times_s, [at], name=name)
        else:
            reset = True
        if reset:
            resets.append(at)
            start, top_s = at, -math.inf
    return resets


def _overlaps(times_s: FloatArray, start: int, at: int, top_s: float, rate_hz: float) -> bool:
    """Whether the rows from `at` to where time passes its top again say instants anew.

    Late rows fill what was left out: together with the rows before them they are as many as the
    rate allows. After a reset they are twice as many.
    """
    reach = 2 * math.ceil(late_s(rate_hz) * rate_hz) + 16
    ahead_s = times_s[at : at + reach]
    ahead_s = ahead_s[: int(np.argmax(ahead_s > top_s)) or None]
    ahead_s = ahead_s[ahead_s >= top_s - late_s(rate_hz)]
    low_s, high_s = float(ahead_s.min()), float(ahead_s.max())
    behind_s = times_s[max(start, at - reach) : at]
    behind_s = behind_s[(behind_s >= low_s) & (behind_s <= high_s)]
    rows = _instants(behind_s, rate_hz) + _instants(ahead_s, rate_hz)
    return rows > 1.5 * ((high_s - low_s) * rate_hz + 1) + 1


def _moved(times_s: FloatArray) -> int:
    """The fewest rows that have to be moved: all but the longest rising row of them."""
    late = times_s < np.maximum.accumulate(times_s)
    early = times_s > np.minimum.accumulate(times_s[::-1])[::-1]
    disordered = times_s[late | early].tolist()
    tops: list[float] = []  # the least end of a rising row of each length
    for time_s in disordered:
        at = bisect.bisect_right(tops, time_s)
        tops[at : at + 1] = [time_s]
    return len(disordered) - len(tops)


def _instants(times_s: FloatArray, rate_hz: float) -> int:
    """Rows that are no doubles of others."""
    return int((np.diff(np.sort(times_s)) >= 0.25 / rate_hz).sum()) + min(1, times_s.size)


def _strays(times_s: FloatArray, start: int, at: int, top_s: float, rate_hz: float) -> bool:
    """Whether the series is back too soon for a clock that was set: before `at`, or after it."""
    soon = math.ceil(late_s(rate_hz) * rate_hz / 2)
    came_from_below = times_s[max(start, at - soon) : at] <= times_s[at]
    goes_back_up = times_s[at + 1 : at + 1 + soon] > top_s
    return bool(came_from_below.any() or goes_back_up.any())


def _too_late(
    times_s: FloatArray, back: IntArray, rows: int, allowed: int, name: str
) -> BadBatchError:
    at = int(back[0])
    return BadBatchError(
        f"{name}: time runs backwards at row {at + FIRST_ROW}: {times_s[at - 1]:.3f} s, then "
        f"{times_s[at]:.3f} s; {rows} of {times_s.size} rows are out of order, {allowed} are "
        "allowed. Sort the rows by time."
    )
