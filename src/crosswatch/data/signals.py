"""Signals of a control system: repaired within limits, never silently."""

import dataclasses

import numpy as np
import numpy.typing as npt

from crosswatch.data.tables import FIRST_ROW as FIRST_ROW
from crosswatch.data.times import unfold
from crosswatch.errors import ADVICE, BadBatchError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawSignal:
    """Samples by time: may hold NaN, doubled rows and gaps; time never runs backwards."""

    values: npt.NDArray[np.floating]  # (S, C)
    times_s: npt.NDArray[np.float64]  # (S,) on this stream's clock
    columns: tuple[str, ...]
    unit: str
    rate_hz: float
    clock: str = "control"
    name: str = "signal"  # the file's name, for errors
    triggers_s: npt.NDArray[np.float64] | None = None  # pulses seen by this clock
    reordered: int = 0  # rows that came out of order
    rollovers: int = 0  # of the counter that its clock is


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repaired:
    """A signal that can be used, and what was done to it."""

    values: npt.NDArray[np.float32]
    times_s: npt.NDArray[np.float64]
    nan_samples: int
    doubled: int
    filled: int


def check_times(times_s: npt.NDArray[np.float64], *, name: str) -> None:
    """Hold a stream's clock to running forwards; it may stand still (a doubled reading).

    Raises:
        BadBatchError: a time is missing, or earlier than the one before it.
    """
    unfold.check_known(times_s, name=name)
    back = np.flatnonzero(np.diff(times_s) < 0) + 1
    if back.size:
        raise unfold.backwards(times_s, back, name=name)


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
        coarse = 2 * steps_s.size < times_s.size and found_hz < rate_hz
        or_this = ", or declare time.resolution_s: rows share their stamps" if coarse else ""
        raise BadBatchError(
            f"{name}: its times say {found_hz:.3g} Hz, batch.json declares {rate_hz:.3g} Hz; "
            f"{tolerance_share:.0%} of difference are allowed. Correct rate_hz in batch.json"
            f"{or_this}."
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
    values[np.isinf(values)] = np.nan
    times_s = raw.times_s
    fresh = np.concatenate([[True], np.diff(times_s) > 0.25 / raw.rate_hz])
    if not fresh.all():
        values, times_s = values[fresh], times_s[fresh]
    holes = np.isnan(values)
    broken = int(holes.any(axis=1).sum())
    fill_s = max(max_fill_s, 2.5 / raw.rate_hz)  # one reading of a slow stream may be missing
    if broken:
        _check_nan(values, raw, max_nan_share=max_nan_share)
        if broken > 0.5 * len(holes):
            raise BadBatchError(
                f"{raw.name}: {broken / len(holes):.1%} of the rows hold a NaN; allowed 50.0%. "
                f"{ADVICE}"
            )
        whole = _fill_holes(values, holes, times_s, max_fill_s=fill_s)
        values, times_s = values[whole], times_s[whole]
    before = times_s.size
    if fill_gaps:
        values, times_s = _fill_missing(
            values, times_s, period_s=1 / raw.rate_hz, max_fill_s=fill_s
        )
    return Repaired(
        values=np.ascontiguousarray(values),
        times_s=times_s,
        nan_samples=broken,
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


def _fill_holes(
    values: npt.NDArray[np.float32],
    holes: npt.NDArray[np.bool_],
    times_s: npt.NDArray[np.float64],
    *,
    max_fill_s: float,
) -> npt.NDArray[np.bool_]:
    """Carry each column's last value into its short holes; which rows are whole after that.

    A hole is short if good readings of that column enclose it within `max_fill_s`.
    """
    whole = np.ones(len(values), np.bool_)
    for column, hole in enumerate(holes.T):
        at = np.flatnonzero(hole)
        if not at.size:
            continue
        first = np.concatenate([[True], np.diff(at) > 1])
        before = at[first] - 1
        after = at[np.append(first[1:], True)] + 1
        inside = (before >= 0) & (after < len(values))
        length_s = times_s[np.minimum(after, len(values) - 1)] - times_s[np.maximum(before, 0)]
        run = np.cumsum(first) - 1
        whole[at] &= (inside & (length_s <= max_fill_s))[run]
        values[at, column] = values[before[run], column]
    return whole


def _fill_missing(
    values: npt.NDArray[np.float32],
    times_s: npt.NDArray[np.float64],
    *,
    period_s: float,
    max_fill_s: float,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Insert the samples that did not come, so that a count of samples is a length of time."""
    steps_s = np.diff(times_s)
    periods = np.where(steps_s <= max_fill_s, steps_s / period_s, 1.0)
    count = np.round(periods).astype(np.int64)
    if count.max(initial=1) <= 1:
        return values, times_s
    repeats = np.append(np.maximum(count, 1), 1)
    start = np.repeat(np.arange(times_s.size), repeats)
    within = np.arange(start.size) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    step_s = np.append(steps_s, 0.0)[start] / repeats[start]
    return values[start], times_s[start] + within * step_s
