"""Intervals by resampling whole units: neighbouring instants of a unit are no independent evidence.

Shape letters: N instants, U units, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosswatch.errors import UserError

FloatArray = NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]
"""From how often each instant was drawn, weight_RN, to the value in each resample, value_R."""

WEIGHTS_AT_ONCE = 8_000_000


@dataclass(frozen=True, kw_only=True)
class Interval:
    """`dropped` counts resamples that leave the statistic undefined, such as AUC of one class."""

    estimate: float
    low: float
    high: float
    units: int
    dropped: int

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def estimate(statistic: Statistic, instants: int) -> float:
    """The statistic of the data as they are: every instant once."""
    return float(statistic(np.ones((1, instants)))[0])


def block_bootstrap(
    units_N: ArrayLike,
    statistic: Statistic,
    *,
    samples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentiles; `units_N` names the independent unit, such as a time block, of each instant."""
    names_U, unit_N = np.unique(np.asarray(units_N), return_inverse=True)
    _refuse_what_cannot_be_resampled(unit_N, samples, level)
    draws = _draws(unit_N, units=len(names_U), samples=samples, seed=seed)
    value_R = np.concatenate([statistic(weight_RN) for weight_RN in draws])
    defined = value_R[np.isfinite(value_R)]
    low, high = _quantiles(defined, level) if len(names_U) > 1 else (np.nan, np.nan)
    return Interval(
        estimate=estimate(statistic, len(unit_N)),
        low=float(low),
        high=float(high),
        units=len(names_U),
        dropped=len(value_R) - len(defined),
    )


def paired_difference(
    units_N: ArrayLike, first: Statistic, second: Statistic, **options: Any
) -> Interval:
    """First minus second in the same resamples: what is hard for both models cancels."""
    return block_bootstrap(
        units_N, lambda weight_RN: first(weight_RN) - second(weight_RN), **options
    )


def _draws(
    unit_N: NDArray[np.intp], *, units: int, samples: int, seed: int
) -> Iterator[FloatArray]:
    """A unit drawn twice counts twice, with all its instants."""
    chance = np.random.default_rng(seed)
    at_once = max(1, WEIGHTS_AT_ONCE // len(unit_N))
    for start in range(0, samples, at_once):
        size = min(at_once, samples - start)
        times_drawn_RU = chance.multinomial(units, np.full(units, 1 / units), size=size)
        yield times_drawn_RU[:, unit_N].astype(np.float64)


def _quantiles(values: FloatArray, level: float) -> tuple[float, float]:
    if not len(values):
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return low, high


def _refuse_what_cannot_be_resampled(unit_N: NDArray[np.intp], samples: int, level: float) -> None:
    if unit_N.ndim != 1 or not len(unit_N):
        raise UserError(f"units: shape {unit_N.shape}, but one unit for each instant needed.")
    if samples < 1:
        raise UserError(f"samples: {samples}, but at least 1 needed.")
    if not 0 < level < 1:
        raise UserError(f"level: {level}, but more than 0 and less than 1 allowed, such as 0.95.")
