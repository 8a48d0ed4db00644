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
"""From how often each instant was drawn, weight_RN, to the value in each resample, value_R. Where
what counts is gathered by unit, from how often each unit was drawn, weight_RU."""

WEIGHTS_AT_ONCE = 500_000  # that stay near the processor while they are summed


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """The independent unit, 0 to `count` - 1, that each instant belongs to."""

    unit_N: NDArray[np.intp]
    count: int

    @classmethod
    def named(cls, names_N: ArrayLike) -> Units:
        """In the order of their names."""
        names_U, unit_N = np.unique(np.asarray(names_N), return_inverse=True)
        return cls(unit_N=unit_N, count=len(names_U))

    @classmethod
    def each(cls, instants: int) -> Units:
        """Every instant by itself."""
        return cls(unit_N=np.arange(instants), count=instants)

    @classmethod
    def one(cls, instants: int) -> Units:
        """All instants together, for what is only estimated."""
        return cls(unit_N=np.zeros(instants, np.intp), count=1)

    def take(self, rows_M: NDArray[np.intp]) -> Units:
        """The same units of fewer instants."""
        return Units(unit_N=self.unit_N[rows_M], count=self.count)

    def rows(self) -> list[NDArray[np.intp]]:
        """The instants of each unit, as they come."""
        order_N = np.argsort(self.unit_N, kind="stable")
        return np.split(order_N, np.bincount(self.unit_N, minlength=self.count).cumsum()[:-1])

    def sums(self, value_N: NDArray[np.generic]) -> FloatArray:
        """Over the instants of each unit (U,)."""
        sums_U = np.bincount(self.unit_N, weights=value_N, minlength=self.count)
        return sums_U.astype(np.float64)

    def statistic(self, of: Statistic) -> Statistic:
        """A statistic of the instants' weights as one of the units' weights, in pieces that fit
        into memory."""
        at_once = max(1, WEIGHTS_AT_ONCE // len(self.unit_N))

        def of_units(weight_RU: FloatArray) -> FloatArray:
            pieces = [weight_RU[at : at + at_once] for at in range(0, len(weight_RU), at_once)]
            return np.concatenate([of(np.take(piece, self.unit_N, axis=1)) for piece in pieces])

        return of_units


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
    names_N = np.asarray(units_N)
    _refuse_what_cannot_be_resampled(names_N, samples, level)
    units = Units.named(names_N)
    of_units = units.statistic(statistic)
    draws = _draws(units.count, samples=samples, seed=seed)
    value_R = np.concatenate([of_units(weight_RU) for weight_RU in draws])
    defined = value_R[np.isfinite(value_R)]
    low, high = _quantiles(defined, level) if units.count > 1 else (np.nan, np.nan)
    return Interval(
        estimate=estimate(statistic, len(names_N)),
        low=float(low),
        high=float(high),
        units=units.count,
        dropped=len(value_R) - len(defined),
    )


def paired_difference(
    units_N: ArrayLike, first: Statistic, second: Statistic, **options: Any
) -> Interval:
    """First minus second in the same resamples: what is hard for both models cancels."""
    return block_bootstrap(
        units_N, lambda weight_RN: first(weight_RN) - second(weight_RN), **options
    )


def _draws(units: int, *, samples: int, seed: int) -> Iterator[FloatArray]:
    """A unit drawn twice counts twice, with all its instants."""
    chance = np.random.default_rng(seed)
    at_once = max(1, WEIGHTS_AT_ONCE // units)
    for start in range(0, samples, at_once):
        size = min(at_once, samples - start)
        times_drawn_RU = chance.multinomial(units, np.full(units, 1 / units), size=size)
        yield times_drawn_RU.astype(np.float64)


def _quantiles(values: FloatArray, level: float) -> tuple[float, float]:
    if not len(values):
        return np.nan, np.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return low, high


def _refuse_what_cannot_be_resampled(
    names_N: NDArray[np.generic], samples: int, level: float
) -> None:
    if names_N.ndim != 1 or not len(names_N):
        raise UserError(f"units: shape {names_N.shape}, but one unit for each instant needed.")
    if samples < 1:
        raise UserError(f"samples: {samples}, but at least 1 needed.")
    if not 0 < level < 1:
        raise UserError(f"level: {level}, but more than 0 and less than 1 allowed, such as 0.95.")
