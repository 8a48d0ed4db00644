"""Segments of class curves: which frames stand out, how strongly, and which of them are right.

Shape letters: V videos, F frames of a video, K classes, D detections, G true segments, I IoU
thresholds, T detections that are right, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crosswatch.evaluation.bootstrap import FloatArray
from crosswatch.evaluation.classification import ratio

IntArray = NDArray[np.int64]
Curve = NDArray[np.floating]

BAR = 0.6  # a segment lies above max - BAR (max - min) of its class curve
STRENGTH = 0.7  # weight of the class's strength in the whole video in a detection's score
TOP = 16  # the strength is the mean of the highest 1/TOP of the frames
LEAST_FRAMES = 2


@dataclass(frozen=True, kw_only=True)
class Detections:
    """Of one class in all videos, in the order of the videos."""

    video_D: IntArray
    start_D: IntArray
    stop_D: IntArray
    score_D: FloatArray

    def take(self, rows: NDArray[np.intp]) -> Detections:
        return Detections(
            video_D=self.video_D[rows],
            start_D=self.start_D[rows],
            stop_D=self.stop_D[rows],
            score_D=self.score_D[rows],
        )


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """The detections of one class at one IoU, so far as average precision asks for them.

    Attributes:
        video_T: whose detection it is, best score first.
        before_VT: how many detections of each video rank before it.
        right_before_VT: how many of these are right.
        found_V, truths_V: detections and true segments of each video.
    """

    video_T: IntArray
    before_VT: FloatArray
    right_before_VT: FloatArray
    found_V: FloatArray
    truths_V: FloatArray

    def average_precision(self, weight_RV: FloatArray) -> FloatArray:
        """Mean over the true segments of the precision where each was found; nan without any.

        The copies of a video drawn several times rank one after the other, so that integer
        weights give exactly what repeating the video gives.
        """
        copies_RT = weight_RV[:, self.video_T]
        ranked_RT = weight_RV @ self.before_VT
        right_RT = weight_RV @ self.right_before_VT
        gained_RT = np.zeros_like(copies_RT)
        for copy in range(int(np.ceil(copies_RT.max(initial=0.0)))):
            share_RT = np.clip(copies_RT - copy, 0.0, 1.0)
            precision_RT = ratio(right_RT + copy + share_RT, ranked_RT + copy + share_RT)
            gained_RT += np.where(share_RT > 0, share_RT * precision_RT, 0.0)
        return ratio(gained_RT.sum(-1), weight_RV @ self.truths_V)


def detections_by_class(curves: Sequence[Curve], classes: int, compat: bool) -> list[Detections]:
    """The runs of all videos, by class."""
    parts = [_runs_of_video(curve, compat) for curve in curves]
    video_D = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    class_D, start_D, stop_D, score_D = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    every = Detections(video_D=video_D, start_D=start_D, stop_D=stop_D, score_D=score_D)
    return [every.take(np.flatnonzero(class_D == k)) for k in range(classes)]


def _runs_of_video(
    prediction_FK: Curve, compat: bool
) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
    """Class, start, stop and score of the maximal runs of frames above each class's bar.

    Runs do not overlap, so the released suppression of overlaps would change nothing.
    """
    frames, classes = prediction_FK.shape
    curve_KF = np.ascontiguousarray(prediction_FK.T, dtype=np.float64)
    top = frames // TOP if compat else max(1, frames // TOP)
    strength_K = np.full(classes, np.nan)
    if top:
        strength_K = np.partition(curve_KF, frames - top, axis=1)[:, frames - top :].mean(1)
    if compat:  # the mean of no frame is nan: a video under TOP frames loses all its curves
        curve_KF = curve_KF * (strength_K > 0)[:, None]
    high_K, low_K = curve_KF.max(1), curve_KF.min(1)
    bar_K = high_K - BAR * (high_K - low_K)
    width = frames + 1  # the column behind the last frame ends a run before the next class
    above = np.zeros((classes, width), bool)
    above[:, :frames] = curve_KF > bar_K[:, None]
    padded = np.zeros((classes, width))
    padded[:, :frames] = curve_KF
    edges = np.flatnonzero(np.diff(above.ravel(), prepend=False))
    starts, stops = edges[::2], edges[1::2]
    peaks = np.maximum.reduceat(padded.ravel(), edges)[::2] if len(edges) else np.zeros(0)
    kept = stops - starts >= LEAST_FRAMES
    starts, stops, peaks = starts[kept], stops[kept], peaks[kept]
    class_D = starts // width
    return class_D, starts % width, stops % width, peaks + STRENGTH * strength_K[class_D]


def ranked_by_iou(
    every: Detections,
    truths: Mapping[int, IntArray],
    videos: int,
    iou_thresholds: Sequence[float],
    compat: bool,
) -> list[Ranked]:
    """By IoU threshold."""
    # the released order among equal scores is what numpy's default makes of it
    order = np.argsort(-every.score_D, kind="quicksort" if compat else "stable")
    every = every.take(order)
    right_ID = np.zeros((len(iou_thresholds), len(every.video_D)), bool)
    for video, spans_G2 in truths.items():
        mine = np.flatnonzero(every.video_D == video)
        iou_DG = _iou(every.start_D[mine], every.stop_D[mine], spans_G2)
        for i, least in enumerate(iou_thresholds):
            right_ID[i, mine[_matched(iou_DG, least)]] = True
    truths_V = np.zeros(videos)
    truths_V[list(truths)] = [len(spans_G2) for spans_G2 in truths.values()]
    return [_rank(every.video_D, right_D, truths_V) for right_D in right_ID]


def _rank(video_D: IntArray, right_D: NDArray[np.bool_], truths_V: FloatArray) -> Ranked:
    videos, at_T = len(truths_V), np.flatnonzero(right_D)
    found_V = np.bincount(video_D, minlength=videos).astype(np.float64)
    # the right one behind each: its own number for a right one would be the next
    next_D = np.searchsorted(at_T, np.arange(len(video_D)), side="right")
    shape = (videos, len(at_T) + 1)
    counts = np.bincount(video_D * shape[1] + next_D, minlength=videos * shape[1]).reshape(shape)
    mine_VT = np.zeros((videos, len(at_T)))
    mine_VT[video_D[at_T], np.arange(len(at_T))] = 1
    return Ranked(
        video_T=video_D[at_T],
        before_VT=counts[:, : len(at_T)].cumsum(1).astype(np.float64),
        right_before_VT=mine_VT.cumsum(1) - mine_VT,
        found_V=found_V,
        truths_V=truths_V,
    )


def _matched(iou_DG: FloatArray, least: float) -> IntArray:
    """Rows that find a segment which none before has found: the one that they overlap most."""
    free_DG, right = iou_DG.copy(), []
    for row in np.flatnonzero(iou_DG.max(1, initial=0.0) >= least):
        best = int(free_DG[row].argmax())
        if free_DG[row, best] >= least:
            free_DG[:, best] = -1.0
            right.append(row)
    return np.array(right, np.int64)


def _iou(start_D: IntArray, stop_D: IntArray, spans_G2: IntArray) -> FloatArray:
    start_G, stop_G = spans_G2.T
    shared_DG = np.minimum(stop_D[:, None], stop_G) - np.maximum(start_D[:, None], start_G)
    shared_DG = np.maximum(shared_DG, 0)
    either_DG = (stop_D - start_D)[:, None] + (stop_G - start_G) - shared_DG
    iou_DG: FloatArray = shared_DG / either_DG
    return iou_DG
