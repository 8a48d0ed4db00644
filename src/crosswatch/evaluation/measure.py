"""Headline numbers with intervals over independent units, and paired comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from crosswatch.evaluation.alarms import alarm_statistics
from crosswatch.evaluation.bootstrap import (
    Interval,
    Statistic,
    Units,
    block_bootstrap,
)
from crosswatch.evaluation.classification import classification_statistics
from crosswatch.evaluation.frames import frame_statistics
from crosswatch.evaluation.segmentation import segmentation_statistics
from crosswatch.evaluation.settings import EvaluateConfig
from crosswatch.evaluation.timeline import events_of_labels
from crosswatch.evaluation.units import recordings_of, units_of, videos_of
from crosswatch.models.tokens import BINARY

if TYPE_CHECKING:
    from crosswatch.evaluation.predictions import Predictions

WITHIN = ("ano_auc", "ano_ap", "within_auc")  # of frames; a recording that is one row has none
LEAST_INSTANTS = 2  # of a recording, for its rows to be a course of time


def measure(
    predictions: Predictions, evaluate: EvaluateConfig, *, threshold: float | None = None
) -> dict[str, Interval]:
    """Every metric that the predictions allow, with its bootstrap interval.

    `threshold`, of how abnormal a row is, was chosen on validation; alarms are counted by it where
    rows are instants in time.
    """
    pooled = predictions.pooled(evaluate.pool)
    units = units_of(pooled, evaluate)
    statistics = statistics_of(pooled, evaluate, units)
    if threshold is not None and evaluate.has_normal:
        statistics |= _at_threshold(pooled, evaluate, threshold, units)
    return intervals(statistics, units, evaluate)


def intervals(
    statistics: dict[str, Statistic], units: Units, evaluate: EvaluateConfig
) -> dict[str, Interval]:
    """Of each statistic of the units' weights."""
    each = np.arange(units.count)
    return {
        name: block_bootstrap(
            each, of, samples=evaluate.samples, seed=evaluate.seed, level=evaluate.level
        )
        for name, of in statistics.items()
    }


def statistics_of(
    predictions: Predictions, evaluate: EvaluateConfig, units: Units | None = None
) -> dict[str, Statistic]:
    """Of rows as they are, as functions of the weights of their units, or of their own.

    `auc`, `ap` and `eer` rank by `Predictions.anomaly_N`. Frames of clips (rows with a binary
    branch) have auc2, ap2 and so on by the class branch, too.
    """
    units = units or Units.each(len(predictions))
    label = predictions.rows["label"].to_numpy()
    probability_NK = predictions.probability_NK
    has_moments = BINARY in predictions.branches
    found = classification_statistics(
        label, probability_NK, has_normal=evaluate.has_normal, units=units
    )
    if has_moments:
        left_out = {*(() if "eer" in found else ("eer",))}  # of two classes alone
        left_out |= {*(WITHIN if evaluate.pool == "segment" else ())}
        clips = videos_of(predictions.rows).unit_N
        by_branch = {"": predictions.anomaly_N, "2": 1.0 - probability_NK[:, 0]}
        for mark, score_N in by_branch.items():
            ranked = frame_statistics(label > 0, score_N, clips, units=units)
            found |= {f"{name}{mark}": of for name, of in ranked.items() if name not in left_out}
    for name, of_branch_NK in predictions.branches.items():
        if name != BINARY:
            alone = classification_statistics(label, of_branch_NK, has_normal=False, units=units)
            found[f"accuracy_{name}"] = alone["accuracy"]
    if predictions.pixels_NKK is not None:
        of_rows = segmentation_statistics(predictions.pixels_NKK)
        found |= {name: units.statistic(of) for name, of in of_rows.items()}
    return found


def _at_threshold(
    predictions: Predictions, evaluate: EvaluateConfig, threshold: float, units: Units
) -> dict[str, Statistic]:
    """Alarms, of rows that follow each other in time within a recording."""
    rows = predictions.rows
    is_clip = "start_s" in rows and BINARY not in predictions.branches
    if is_clip or evaluate.pool == "segment":
        return {}
    if np.bincount(recordings_of(rows).unit_N).max() < LEAST_INSTANTS:
        return {}
    recording = (rows["batch"].astype(str) + ":" + rows["segment"].astype(str)).to_numpy(object)
    times_s = rows["end_s"].to_numpy()
    of_rows = alarm_statistics(
        recording,
        times_s,
        predictions.anomaly_N,
        events_of_labels(recording, times_s, rows["label"].to_numpy()),
        threshold=threshold,
        merge_s=evaluate.alarm_merge_s,
        least_s=evaluate.alarm_least_s,
    )
    return {name: units.statistic(of) for name, of in of_rows.items()}
