"""Instants of recordings in their order of time, and what runs of them there are.

An instant stands for the time up to the next one, the step of its recording (the median). A time
without instants longer than that is a hole: nobody watched.

Shape letters: N instants.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosswatch.errors import UserError
from crosswatch.evaluation.bootstrap import FloatArray

HOLE_STEPS = 1.5  # instants further apart than this are no neighbours
SLACK_S = 1e-6  # times that differ by less are equal


def events_of_labels(
    recording_N: ArrayLike, time_s_N: ArrayLike, label_N: ArrayLike
) -> dict[str, list[tuple[float, float]]]:
    """Runs of instants whose label is not 0, each up to the next instant; a hole ends one."""
    series = Series.of(recording_N, time_s_N)
    label = np.asarray(label_N)
    if label.shape != series.order_N.shape:
        raise UserError(f"{len(label)} labels of {len(series.order_N)} instants; one each needed.")
    events: dict[str, list[tuple[float, float]]] = {}
    for first, last in series.runs(label[series.order_N] != 0, merge_s=0.0):
        stop_s = float(series.time_s_N[last] + series.step_s_N[last])
        if last + 1 < len(label) and series.follows_N[last + 1]:
            stop_s = min(stop_s, float(series.time_s_N[last + 1]))
        name = str(series.names[series.recording_N[first]])
        events.setdefault(name, []).append((float(series.time_s_N[first]), stop_s))
    return events


@dataclass(frozen=True, kw_only=True)
class Series:
    """Instants sorted by recording and time.

    Attributes:
        order_N: the rows, as they were given, in this order.
        follows_N: whether an instant is the neighbour of the one before, without a hole.
    """

    names: NDArray[np.generic]
    order_N: NDArray[np.intp]
    recording_N: NDArray[np.intp]
    time_s_N: FloatArray
    step_s_N: FloatArray
    follows_N: NDArray[np.bool_]

    @classmethod
    def of(cls, recording_N: ArrayLike, time_s_N: ArrayLike) -> Series:
        recordings, times_s = np.asarray(recording_N), np.asarray(time_s_N, dtype=np.float64)
        if recordings.shape != times_s.shape or times_s.ndim != 1 or not len(times_s):
            raise UserError(
                f"recordings of shape {recordings.shape}, times of {times_s.shape}; one of each "
                "for every instant, at least 1, needed."
            )
        refuse_not_finite(times_s, "time")
        names, number_N = np.unique(recordings, return_inverse=True)
        order = np.lexsort((times_s, number_N))
        number, time_s = number_N[order], times_s[order]
        same = np.r_[False, number[1:] == number[:-1]]
        gap_s = np.diff(time_s, prepend=time_s[0])
        twice = np.flatnonzero(same & (gap_s <= 0))
        if len(twice):
            raise UserError(
                f"recording {names[number[twice[0]]]} has two instants at "
                f"{time_s[twice[0]]:.3f} s; one score at a time needed."
            )
        if not same.any():
            raise UserError(
                "no recording has 2 instants, so that the time each stands for is unknown."
            )
        typical = np.median(gap_s[same])
        bounds = np.searchsorted(number, np.arange(len(names) + 1)).tolist()
        steps = [
            np.median(gap_s[low + 1 : high]) if high > low + 1 else typical
            for low, high in itertools.pairwise(bounds)
        ]
        step_s = np.array(steps)[number]
        return cls(
            names=names,
            order_N=order,
            recording_N=number,
            time_s_N=time_s,
            step_s_N=step_s,
            follows_N=same & (gap_s <= HOLE_STEPS * step_s),
        )

    def runs(self, on_N: NDArray[np.bool_], *, merge_s: float) -> list[tuple[int, int]]:
        """First and last instant of the maximal runs, with gaps of up to `merge_s` closed."""
        at = np.flatnonzero(on_N)
        if not len(at):
            return []
        before, after = at[:-1], at[1:]
        neighbours = (after == before + 1) & self.follows_N[after]
        gap_s = self.time_s_N[after] - self.time_s_N[before] - self.step_s_N[before]
        near = (self.recording_N[after] == self.recording_N[before]) & (gap_s <= merge_s + SLACK_S)
        near &= merge_s > 0
        cut = np.flatnonzero(~(neighbours | near))
        firsts, lasts = at[np.r_[0, cut + 1]], at[np.r_[cut, len(at) - 1]]
        return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def refuse_not_finite(values: FloatArray, what: str) -> None:
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise UserError(f"{count} of {len(values)} instants have a {what} that is not finite.")
