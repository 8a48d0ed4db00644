"""Headline numbers with intervals over independent units, and paired comparisons."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from crosswatch.errors import UserError
from crosswatch.evaluation.bootstrap import (
    Interval,
    Statistic,
    block_bootstrap,
    paired_difference,
)
from crosswatch.evaluation.classification import classification_statistics
from crosswatch.evaluation.segmentation import segmentation_statistics

if TYPE_CHECKING:
    import pandas as pd

    from crosswatch.evaluation.scoring import Predictions


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    pool: Literal["window", "segment"] = "window"  # segment: one decision a recording
    block_s: float = 20.0  # time blocks are the units of the bootstrap; recordings where pooled
    samples: int = 1000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.block_s <= 0 or self.samples < 1 or not 0 < self.level < 1:
            raise UserError(
                f"block_s {self.block_s} has to be above 0, samples {self.samples} at least 1, "
                f"level {self.level} between 0 and 1"
            )


def measure(predictions: Predictions, evaluate: EvaluateConfig) -> dict[str, Interval]:
    """Every metric that the predictions allow, with its bootstrap interval."""
    pooled = predictions.pooled(evaluate.pool)
    units = _units(pooled.rows, evaluate)
    return {
        name: block_bootstrap(
            units, of, samples=evaluate.samples, seed=evaluate.seed, level=evaluate.level
        )
        for name, of in _statistics(pooled).items()
    }


def compare(
    first: Predictions, second: Predictions, metric: str, evaluate: EvaluateConfig
) -> tuple[float, float, Interval]:
    """A metric of both on the instants they share, and first minus second, paired.

    Raises:
        UserError: no shared instant, labels that differ, or a metric that one of them lacks.
    """
    first, second = shared(first, second)
    first, second = first.pooled(evaluate.pool), second.pooled(evaluate.pool)
    statistics = [_statistics(each) for each in (first, second)]
    for known in statistics:
        if metric not in known:
            raise UserError(f"metric {metric!r} is not among {', '.join(known)}")
    one, other = (known[metric] for known in statistics)
    everything = np.ones((1, len(first)))
    difference = paired_difference(
        _units(first.rows, evaluate),
        one,
        other,
        samples=evaluate.samples,
        seed=evaluate.seed,
        level=evaluate.level,
    )
    return float(one(everything)[0]), float(other(everything)[0]), difference


def shared(first: Predictions, second: Predictions) -> tuple[Predictions, Predictions]:
    """Both restricted to the instants that both have, in one order."""
    import pandas as pd

    keys = [
        pd.MultiIndex.from_arrays([each.rows["batch"], each.rows["end_s"].round(4)])
        for each in (first, second)
    ]
    both = keys[0].intersection(keys[1], sort=None)
    if not len(both):
        raise UserError("the two were scored on no common instant")
    first, second = (
        each.take(key.get_indexer(both).astype(np.int64))
        for each, key in zip((first, second), keys, strict=True)
    )
    if (first.rows["label"].to_numpy() != second.rows["label"].to_numpy()).any():
        raise UserError("the two were scored against different labels")
    return first, second


def _statistics(predictions: Predictions) -> dict[str, Statistic]:
    found = classification_statistics(predictions.rows["label"], predictions.probability_NK)
    if predictions.pixels_NKK is not None:
        found |= segmentation_statistics(predictions.pixels_NKK)
    return found


def _units(rows: pd.DataFrame, evaluate: EvaluateConfig) -> npt.NDArray[np.object_]:
    """Names of time blocks, or of recordings where a recording is one decision."""
    if evaluate.pool == "segment":
        unit = rows["segment"]
    else:
        unit = (rows["end_s"] // evaluate.block_s).astype(int)
    return (rows["batch"].astype(str) + ":" + unit.astype(str)).to_numpy(dtype=object)
