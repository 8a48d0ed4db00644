"""Metrics of a model that was trained with several seeds: their mean, in the same resamples.

Training again with another seed is no new evidence on the data, so units are resampled and the
seeds averaged within each resample.

Shape letters: R resamples.
"""

from collections.abc import Sequence

import numpy as np

from crosswatch.errors import UserError
from crosswatch.evaluation.bootstrap import (
    FloatArray,
    Interval,
    Statistic,
    estimate,
    paired_difference,
)
from crosswatch.evaluation.measure import (
    EvaluateConfig,
    intervals,
    shared,
    statistics_of,
    units_of,
)
from crosswatch.evaluation.predictions import Predictions

Seeds = Sequence[Predictions]
"""The same instants or clips, scored by the model of each seed."""


def measure_seeds(seeds: Seeds, evaluate: EvaluateConfig) -> dict[str, Interval]:
    """Every metric that needs no threshold, averaged over the seeds, with its interval.

    Raises:
        UserError: the seeds were not scored on the same instants.
    """
    pooled = [each.pooled(evaluate.pool) for each in _aligned(seeds)]
    return intervals(_averaged(pooled, evaluate), units_of(pooled[0], evaluate), evaluate)


def compare_seeds(
    first: Seeds, second: Seeds, metric: str, evaluate: EvaluateConfig
) -> tuple[float, float, Interval]:
    """A metric of both models, each averaged over its seeds, and first minus second, paired.

    Raises:
        UserError: they were not scored on the same instants, their labels differ, or one of them
            lacks the metric.
    """
    every = [each.pooled(evaluate.pool) for each in _aligned([*first, *second])]
    known = [_averaged(part, evaluate) for part in (every[: len(first)], every[len(first) :])]
    for statistics in known:
        if metric not in statistics:
            raise UserError(f"metric {metric!r} is not among {', '.join(statistics)}")
    one, other = (statistics[metric] for statistics in known)
    difference = paired_difference(
        units_of(every[0], evaluate),
        one,
        other,
        samples=evaluate.samples,
        seed=evaluate.seed,
        level=evaluate.level,
    )
    count = len(every[0])
    return estimate(one, count), estimate(other, count), difference


def _aligned(seeds: Seeds) -> list[Predictions]:
    """All in one order."""
    aligned = [_in_order(shared(seeds[0], each)[1]) for each in seeds]
    counts = {len(seeds[0]), *map(len, seeds), *map(len, aligned)}
    if len(counts) > 1:
        raise UserError(
            f"the seeds were scored on different instants: {min(counts)} are shared of "
            f"{max(counts)}. Score all of them on the same folds."
        )
    return aligned


def _in_order(predictions: Predictions) -> Predictions:
    rows = predictions.rows.sort_values(["batch", "end_s"], kind="stable")
    return predictions.take(predictions.rows.index.get_indexer(rows.index))


def _averaged(seeds: Seeds, evaluate: EvaluateConfig) -> dict[str, Statistic]:
    known = [statistics_of(each, evaluate) for each in seeds]
    return {name: _mean([statistics[name] for statistics in known]) for name in known[0]}


def _mean(of_seeds: Sequence[Statistic]) -> Statistic:
    def mean(weight_RN: FloatArray) -> FloatArray:
        mean_R: FloatArray = np.mean([of(weight_RN) for of in of_seeds], axis=0)
        return mean_R

    return mean
