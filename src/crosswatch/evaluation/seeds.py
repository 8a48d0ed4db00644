"""Metrics of a model that was trained with several seeds: their mean, in the same resamples.

Training again with another seed is no new evidence on the data, so units are resampled and the
seeds averaged within each resample.

Shape letters: U units, R resamples.
"""

from collections.abc import Sequence

import numpy as np

from crosswatch.errors import UserError
from crosswatch.evaluation.bootstrap import (
    FloatArray,
    Interval,
    Statistic,
    Units,
    estimate,
    paired_difference,
)
from crosswatch.evaluation.measure import intervals, statistics_of
from crosswatch.evaluation.predictions import Predictions
from crosswatch.evaluation.settings import EvaluateConfig
from crosswatch.evaluation.units import at_rows, shared_rows, units_of

Seeds = Sequence[Predictions]
"""The same instants or clips, scored by the model of each seed."""


def measure_seeds(seeds: Seeds, evaluate: EvaluateConfig) -> dict[str, Interval]:
    """Every metric that needs no threshold, averaged over the seeds, with its interval.

    Raises:
        UserError: the seeds were not scored on the same instants.
    """
    pooled = [each.pooled(evaluate.pool) for each in _aligned(seeds)]
    units = units_of(pooled[0], evaluate)
    return intervals(_averaged(pooled, evaluate, units), units, evaluate)


def compare(
    first: Predictions, second: Predictions, metric: str, evaluate: EvaluateConfig
) -> tuple[float, float, Interval]:
    """`compare_seeds` of one model each."""
    return compare_seeds([first], [second], metric, evaluate)


def compare_seeds(
    first: Seeds, second: Seeds, metric: str, evaluate: EvaluateConfig
) -> tuple[float, float, Interval]:
    """A metric of both models on the instants they share, each averaged over its seeds, and first
    minus second, paired.

    Raises:
        UserError: no shared instant, seeds of one model that were not scored on the same instants,
            labels that differ, or a metric that one of the models lacks.
    """
    models = [_aligned(seeds) for seeds in (first, second)]
    rows = shared_rows(models[0][0], models[1][0])
    pooled = [
        [at_rows(each, kept).pooled(evaluate.pool) for each in seeds]
        for seeds, kept in zip(models, rows, strict=True)
    ]
    units = units_of(pooled[0][0], evaluate)
    known = [_averaged(seeds, evaluate, units) for seeds in pooled]
    for statistics in known:
        if metric not in statistics:
            raise UserError(f"metric {metric!r} is not among {', '.join(statistics)}")
    one, other = (statistics[metric] for statistics in known)
    difference = paired_difference(
        np.arange(units.count),
        one,
        other,
        samples=evaluate.samples,
        seed=evaluate.seed,
        level=evaluate.level,
    )
    return estimate(one, units.count), estimate(other, units.count), difference


def _aligned(seeds: Seeds) -> list[Predictions]:
    """All in the order of the first."""
    aligned = [seeds[0]]
    aligned += [at_rows(each, shared_rows(seeds[0], each)[1]) for each in seeds[1:]]
    counts = {*map(len, seeds), *map(len, aligned)}
    if len(counts) > 1:
        raise UserError(
            f"the seeds were scored on different instants: {min(counts)} are shared of "
            f"{max(counts)}. Score all of them on the same folds."
        )
    return aligned


def _averaged(seeds: Seeds, evaluate: EvaluateConfig, units: Units) -> dict[str, Statistic]:
    known = [statistics_of(each, evaluate, units) for each in seeds]
    return {name: _mean([statistics[name] for statistics in known]) for name in known[0]}


def _mean(of_seeds: Sequence[Statistic]) -> Statistic:
    def mean(weight_RU: FloatArray) -> FloatArray:
        mean_R: FloatArray = np.mean([of(weight_RU) for of in of_seeds], axis=0)
        return mean_R

    return mean
