"""Headline numbers with intervals over independent units, and paired comparisons."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from crosswatch.errors import UserError
from crosswatch.evaluation.alarms import LEAST_S, MERGE_S, alarm_statistics
from crosswatch.evaluation.bootstrap import (
    Interval,
    Statistic,
    block_bootstrap,
    paired_difference,
)
from crosswatch.evaluation.classification import classification_statistics
from crosswatch.evaluation.frames import frame_statistics
from crosswatch.evaluation.segmentation import segmentation_statistics
from crosswatch.evaluation.timeline import events_of_labels
from crosswatch.models.tokens import BINARY

if TYPE_CHECKING:
    import pandas as pd

    from crosswatch.evaluation.predictions import Predictions

WITHIN = ("ano_auc", "ano_ap", "within_auc")  # of frames; a recording that is one row has none
LEAST_INSTANTS = 2  # of a recording, for its rows to be a course of time


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthsConfig:
    """Windows of other lengths than an FmFormer was trained with, without training again; None: as
    it was trained. A study of the model: the gate takes no such evaluation."""

    frames: int | None = None
    stride: int | None = None
    signal_s: float | None = None
    pe_resize: Literal["interp", "end_crop", "slice"] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    pool: Literal["window", "segment"] = "window"  # segment: one decision a recording
    unit: Literal["auto", "batch"] = "auto"  # of the bootstrap; auto: blocks, pooled: recordings
    block_s: float = 20.0  # time blocks
    samples: int = 1000
    level: float = 0.95
    seed: int = 0
    has_normal: bool = True  # false: the first class is a class like the others, not normal
    lengths: LengthsConfig = dataclasses.field(default_factory=LengthsConfig)
    alarm_merge_s: float = MERGE_S  # alarms that are closer together are one
    alarm_least_s: float = LEAST_S  # shorter alarms are none

    def __post_init__(self) -> None:
        if self.block_s <= 0 or self.samples < 1 or not 0 < self.level < 1:
            raise UserError(
                f"block_s {self.block_s} has to be above 0, samples {self.samples} at least 1, "
                f"level {self.level} between 0 and 1"
            )
        for name in ("alarm_merge_s", "alarm_least_s"):
            if getattr(self, name) < 0:
                raise UserError(f"{name} is {getattr(self, name)}; allowed 0 and above")


def measure(
    predictions: Predictions, evaluate: EvaluateConfig, *, threshold: float | None = None
) -> dict[str, Interval]:
    """Every metric that the predictions allow, with its bootstrap interval.

    `threshold`, of how abnormal a row is, was chosen on validation; alarms are counted by it where
    rows are instants in time.
    """
    pooled = predictions.pooled(evaluate.pool)
    statistics = statistics_of(pooled, evaluate)
    if threshold is not None and evaluate.has_normal:
        statistics |= _at_threshold(pooled, evaluate, threshold)
    return intervals(statistics, units_of(pooled, evaluate), evaluate)


def intervals(
    statistics: dict[str, Statistic], units: npt.NDArray[np.object_], evaluate: EvaluateConfig
) -> dict[str, Interval]:
    """Of each statistic, over the unit (N,) that each row belongs to."""
    return {
        name: block_bootstrap(
            units, of, samples=evaluate.samples, seed=evaluate.seed, level=evaluate.level
        )
        for name, of in statistics.items()
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
    statistics = [statistics_of(each, evaluate) for each in (first, second)]
    for known in statistics:
        if metric not in known:
            raise UserError(f"metric {metric!r} is not among {', '.join(known)}")
    one, other = (known[metric] for known in statistics)
    everything = np.ones((1, len(first)))
    difference = paired_difference(
        units_of(first, evaluate),
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


def statistics_of(predictions: Predictions, evaluate: EvaluateConfig) -> dict[str, Statistic]:
    """Of rows as they are; `auc` and `ap` rank by `Predictions.anomaly_N`.

    Frames of clips (rows with a binary branch) have auc2, ap2 and so on by the other branch, too.
    """
    label = predictions.rows["label"].to_numpy()
    probability_NK = predictions.probability_NK
    has_moments = BINARY in predictions.branches
    found = classification_statistics(label, probability_NK, has_normal=evaluate.has_normal)
    if has_moments:
        videos = videos_of(predictions.rows)
        found |= frame_statistics(label > 0, predictions.anomaly_N, videos)
        second = frame_statistics(label > 0, 1.0 - probability_NK[:, 0], videos)
        found |= {f"{name}2": of for name, of in second.items()}
        if evaluate.pool == "segment":
            found = {name: of for name, of in found.items() if name.rstrip("2") not in WITHIN}
    for name, of_branch_NK in predictions.branches.items():
        if name != BINARY:
            alone = classification_statistics(label, of_branch_NK, has_normal=False)
            found[f"accuracy_{name}"] = alone["accuracy"]
    if predictions.pixels_NKK is not None:
        found |= segmentation_statistics(predictions.pixels_NKK)
    return found


def videos_of(rows: pd.DataFrame) -> npt.NDArray[np.object_]:
    """Which clip a frame belongs to, by name."""
    named = rows["batch"].astype(str) + ":" + rows["start_s"].astype(str)
    return named.to_numpy(dtype=object)


def _at_threshold(
    predictions: Predictions, evaluate: EvaluateConfig, threshold: float
) -> dict[str, Statistic]:
    """Alarms, of rows that follow each other in time within a recording."""
    rows = predictions.rows
    is_clip = "start_s" in rows and BINARY not in predictions.branches
    if is_clip or evaluate.pool == "segment":
        return {}
    if rows.groupby(["batch", "segment"]).size().max() < LEAST_INSTANTS:
        return {}
    recording = (rows["batch"].astype(str) + ":" + rows["segment"].astype(str)).to_numpy(object)
    times_s = rows["end_s"].to_numpy()
    return alarm_statistics(
        recording,
        times_s,
        predictions.anomaly_N,
        events_of_labels(recording, times_s, rows["label"].to_numpy()),
        threshold=threshold,
        merge_s=evaluate.alarm_merge_s,
        least_s=evaluate.alarm_least_s,
    )


def units_of(predictions: Predictions, evaluate: EvaluateConfig) -> npt.NDArray[np.object_]:
    """Names of batches; of recordings where one is one decision, of clips for their frames, and
    of blocks of time for all else."""
    rows = predictions.rows
    batch = rows["batch"].astype(str)
    if evaluate.unit == "batch":
        return batch.to_numpy(dtype=object)
    if BINARY in predictions.branches:
        return videos_of(rows)
    if evaluate.pool == "segment":
        unit = rows["segment"]
    else:
        unit = (rows["end_s"] // evaluate.block_s).astype(int)
    return (batch + ":" + unit.astype(str)).to_numpy(dtype=object)
