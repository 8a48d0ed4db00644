"""Where something happens in each clip, in frames, and how well a detector finds it."""

import numpy as np

from crosswatch.data.batches import Batch, BatchSet
from crosswatch.evaluation.bootstrap import Interval, Statistic
from crosswatch.evaluation.detection import Spans, detection_statistics
from crosswatch.evaluation.measure import intervals
from crosswatch.evaluation.predictions import Floats, Predictions
from crosswatch.evaluation.settings import EvaluateConfig
from crosswatch.evaluation.units import units_of, videos_of
from crosswatch.models.tokens import BINARY


def measure_segments(
    predictions: Predictions, batch_set: BatchSet, evaluate: EvaluateConfig
) -> dict[str, Interval]:
    """`map`, corrected, and `map_released`: the mean over IoU 0.1 to 0.5, in percent, with
    intervals over the units of the clips. Of frames of clips alone: decisions about whole
    recordings have none."""
    if BINARY not in predictions.branches or evaluate.pool == "segment":
        return {}
    of_batch = {batch.id: batch for batch in batch_set.batches}
    curves, segments, labels = [], [], []
    clips = videos_of(predictions.rows).rows()
    for rows in clips:
        curves.append(predictions.probability_NK[rows])
        clip = predictions.rows.iloc[rows]
        found = segments_in(of_batch[str(clip["batch"].iloc[0])], clip["end_s"].to_numpy())
        segments.append(found[0])
        labels.append(found[1] or [batch_set.classes[0]] * len(found[0]))
    units = units_of(predictions, evaluate)
    of_clips = units.take(np.array([rows[0] for rows in clips]))  # a clip lies in one unit

    def statistic(*, compat: bool) -> Statistic:
        known = detection_statistics(curves, segments, labels, batch_set.classes, compat=compat)
        return of_clips.statistic(known["map"])

    statistics = {"map": statistic(compat=False), "map_released": statistic(compat=True)}
    return intervals(statistics, units, evaluate)


def segments_in(batch: Batch, times_s: Floats) -> tuple[Spans, list[str]]:
    """First frame and the one after the last of each event among frames, with its class; the whole
    clip, without a class, where there is none."""
    spans, names = [], []
    for event in batch.events:
        first, behind = np.searchsorted(times_s, [event.onset_s, event.offset_s])
        if behind > first:
            spans.append((int(first), int(behind)))
            names.append(event.class_name)
    return (spans, names) if spans else ([(0, len(times_s))], [])
