"""How well abnormal segments of videos are found and named: mean average precision (mAP) by IoU.

Two procedures. With `compat`, the one of the released VadCLIP and ClipFusionVAD evaluation: its
numbers can be held against published ones. Without it, the corrected form: only abnormal classes
that occur count, and no class and no short video can void the others. A curve that is constant
over a whole video holds no segment in either of them.

Shape letters: V videos, F frames of a video, K classes, D detections, G true segments, I IoU
thresholds, R resamples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from crosswatch.errors import UserError
from crosswatch.evaluation.bootstrap import (
    FloatArray,
    Statistic,
    estimate,
)
from crosswatch.evaluation.classification import mean_of_defined
from crosswatch.evaluation.segments import (
    Curve,
    IntArray,
    Ranked,
    detections_by_class,
    ranked_by_iou,
)

Spans = Sequence[tuple[int, int]]
"""First frame and the frame after the last."""

IOU_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)


def detection_map(
    predictions: Sequence[ArrayLike],
    segments: Sequence[Spans],
    labels: Sequence[Sequence[str]],
    classes: Sequence[str],
    *,
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    compat: bool = False,
) -> dict[float, float]:
    """mAP in percent by IoU threshold; nan where no abnormal class has a true segment.

    Args:
        predictions: class probabilities [F, K] of each video.
        segments: the true segments of each video, in frames.
        labels: their class names. With `compat` a name outside `classes` may occur, as in the
            released UCF-Crime labels: no class then has this segment.
        classes: classes[0] is the normal class.
        iou_thresholds: a detection is right if its IoU is at least this.
        compat: the released procedure, with its faults.

    Raises:
        UserError: arrays, segments or names that do not fit.
    """
    found = detection_statistics(
        predictions, segments, labels, classes, iou_thresholds=iou_thresholds, compat=compat
    )
    return {iou: estimate(found[_name(iou)], len(predictions)) for iou in iou_thresholds}


def detection_statistics(
    predictions: Sequence[ArrayLike],
    segments: Sequence[Spans],
    labels: Sequence[Sequence[str]],
    classes: Sequence[str],
    *,
    iou_thresholds: Sequence[float] = IOU_THRESHOLDS,
    compat: bool = False,
) -> dict[str, Statistic]:
    """`map_<iou>` and their mean `map`, as functions of how often each video was drawn.

    A video drawn twice counts as two videos. What is right in a video depends on no other video,
    so it is found once; a resample only ranks anew.
    """
    curves = [np.asarray(each) for each in predictions]
    _refuse_settings(classes, iou_thresholds)
    _refuse_lengths(curves, segments, labels)
    for video, curve_FK in enumerate(curves):
        _refuse_curve(video, curve_FK, len(classes), compat)
        _refuse_segments(video, len(curve_FK), segments[video], labels[video], classes, compat)
    truths = _truths(segments, labels, classes)
    every = detections_by_class(curves, len(classes), compat)
    ranked_KI = [
        ranked_by_iou(every[k], truths[k], len(curves), iou_thresholds, compat)
        for k in range(0 if compat else 1, len(classes))
    ]
    mean = _mean_released if compat else _mean
    at_iou = {
        _name(iou): mean([ranked_I[i] for ranked_I in ranked_KI])
        for i, iou in enumerate(iou_thresholds)
    }

    def average(weight_RV: FloatArray) -> FloatArray:
        return mean_of_defined(np.stack([of(weight_RV) for of in at_iou.values()], axis=1))

    return at_iou | {"map": average}


def _mean(ranked_K: Sequence[Ranked]) -> Statistic:
    """Over the classes that occur."""

    def percent(weight_RV: FloatArray) -> FloatArray:
        each = [ranked.average_precision(weight_RV) for ranked in ranked_K]
        return 100 * mean_of_defined(np.stack(each, axis=1))

    return percent


def _mean_released(ranked_K: Sequence[Ranked]) -> Statistic:
    """Over all classes: 0 for one that does not occur, all 0 if one is detected nowhere."""

    def percent(weight_RV: FloatArray) -> FloatArray:
        each = [np.nan_to_num(ranked.average_precision(weight_RV)) for ranked in ranked_K]
        all_detected_R = np.all([weight_RV @ ranked.found_V > 0 for ranked in ranked_K], axis=0)
        mean_R: FloatArray = 100 * np.mean(each, axis=0) * all_detected_R
        return mean_R

    return percent


def _truths(
    segments: Sequence[Spans], labels: Sequence[Sequence[str]], classes: Sequence[str]
) -> list[dict[int, IntArray]]:
    """By class, the true segments of each video that has one."""
    spans: list[dict[int, list[tuple[int, int]]]] = [defaultdict(list) for _ in classes]
    for video, (of_video, names) in enumerate(zip(segments, labels, strict=True)):
        for span, name in zip(of_video, names, strict=True):
            if name in classes:
                spans[classes.index(name)][video].append(span)
    return [
        {video: np.array(each, np.int64) for video, each in of_class.items()} for of_class in spans
    ]


def _refuse_settings(classes: Sequence[str], iou_thresholds: Sequence[float]) -> None:
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise UserError(f"classes {', '.join(classes)}; 2 or more different names needed.")
    if not iou_thresholds or not all(0 < iou <= 1 for iou in iou_thresholds):
        raise UserError(
            f"iou_thresholds {tuple(iou_thresholds)}; one or more above 0 and up to 1 needed."
        )


def _refuse_lengths(
    curves: Sequence[Curve], segments: Sequence[Spans], labels: Sequence[Sequence[str]]
) -> None:
    if not curves or not len(curves) == len(segments) == len(labels):
        raise UserError(
            f"predictions of {len(curves)} videos, segments of {len(segments)}, labels of "
            f"{len(labels)}; of the same videos, at least 1, needed."
        )


def _refuse_curve(video: int, curve_FK: Curve, classes: int, compat: bool) -> None:
    if curve_FK.ndim != 2 or curve_FK.shape[1] != classes or not len(curve_FK):
        raise UserError(
            f"video {video}: predictions of shape {curve_FK.shape}; one row a frame, at least 1, "
            f"of {classes} classes needed."
        )
    bad = np.isinf(curve_FK) if compat else ~np.isfinite(curve_FK)
    if bad.any():
        raise UserError(
            f"video {video}: {int(bad.any(axis=1).sum())} of {len(curve_FK)} frames have a "
            "prediction that is not finite."
        )


def _refuse_segments(
    video: int,
    frames: int,
    spans: Spans,
    names: Sequence[str],
    classes: Sequence[str],
    compat: bool,
) -> None:
    """The released procedure takes names and ends that the video does not have: so may `compat`."""
    if len(spans) != len(names):
        raise UserError(f"video {video}: {len(spans)} segments, but {len(names)} labels.")
    for start, stop in spans:
        if not all(isinstance(each, (int, np.integer)) for each in (start, stop)):
            raise UserError(f"video {video}: segment {start!r} to {stop!r}; whole frames needed.")
        if not 0 <= start < stop or (stop > frames and not compat):
            raise UserError(
                f"video {video}: segment [{start}, {stop}) is empty or outside of its {frames} "
                "frames. Cut it to the video, or leave it out."
            )
    unknown = [name for name in names if name not in classes]
    if unknown and not compat:
        raise UserError(
            f"video {video}: label {unknown[0]!r} is none of the classes {', '.join(classes)}."
        )


def _name(iou: float) -> str:
    return f"map_{iou:g}"
