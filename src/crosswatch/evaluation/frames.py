"""How well scores rank abnormal frames above normal ones, over all videos and within each.

A score made by snippet stands for many frames. `frame_runs` joins frames that no measure tells
apart, so that a million frames can be resampled by units in seconds.

Shape letters: N frames (or runs of them), M runs, U units, V videos, G groups of one video and
score, R resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosswatch.errors import UserError
from crosswatch.evaluation.bootstrap import FloatArray, Statistic, Units, estimate
from crosswatch.evaluation.classification import RankedScores, ratio


@dataclass(frozen=True, kw_only=True)
class FrameRuns:
    """Neighbouring frames of one video, unit, label and score as one row; `frames_M` says how many,
    `units` whose weight it has."""

    label_M: NDArray[np.bool_]
    score_M: FloatArray
    video_M: NDArray[np.generic]
    frames_M: FloatArray
    units: Units

    def statistics(self) -> dict[str, Statistic]:
        """As `frame_statistics`."""
        by_run = _statistics(self.label_M, self.score_M, self.video_M, self.frames_M)
        return {name: self.units.statistic(of) for name, of in by_run.items()}


def frame_metrics(label_N: ArrayLike, score_N: ArrayLike, video_N: ArrayLike) -> dict[str, float]:
    """Each measure of `frame_statistics` of the data as they are."""
    together = Units.one(len(np.asarray(label_N)))
    statistics = frame_statistics(label_N, score_N, video_N, units=together)
    return {name: estimate(of, together.count) for name, of in statistics.items()}


def frame_statistics(
    label_N: ArrayLike, score_N: ArrayLike, video_N: ArrayLike, *, units: Units | None = None
) -> dict[str, Statistic]:
    """auc, ap, eer, ano_auc, ano_ap and within_auc as functions of the frames' weights, or of those
    of the `units` that they belong to.

    ano: over the frames of the videos with an abnormal frame, together. within_auc: the mean of
    the AUC within each video that has both classes; a video counts by the mean of its weights.
    """
    units = units or Units.each(len(np.asarray(label_N)))
    return frame_runs(label_N, score_N, video_N, units).statistics()


def frame_runs(
    label_N: ArrayLike, score_N: ArrayLike, video_N: ArrayLike, units: Units
) -> FrameRuns:
    label, score, video = _checked(label_N, score_N, video_N)
    columns = (label, score, video, units.unit_N)
    differs = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    starts_M = np.flatnonzero(np.r_[True, differs])
    return FrameRuns(
        label_M=label[starts_M],
        score_M=score[starts_M],
        video_M=video[starts_M],
        frames_M=np.diff(starts_M, append=len(label)).astype(np.float64),
        units=units.take(starts_M),
    )


def _statistics(
    label_N: NDArray[np.bool_],
    score_N: FloatArray,
    name_N: NDArray[np.generic],
    frames_N: FloatArray,
) -> dict[str, Statistic]:
    video_N = np.unique(name_N, return_inverse=True)[1]
    positives_V = np.bincount(video_N, weights=label_N)
    mixed_V = (positives_V > 0) & (positives_V < np.bincount(video_N))
    everything = RankedScores(label_N, score_N)
    abnormal_N = np.flatnonzero((positives_V > 0)[video_N])
    mixed_N = np.flatnonzero(mixed_V[video_N])
    found: dict[str, Statistic] = {
        "auc": lambda weight_RN: everything.auc(weight_RN * frames_N),
        "ap": lambda weight_RN: everything.average_precision(weight_RN * frames_N),
        "eer": lambda weight_RN: everything.equal_error_rate(weight_RN * frames_N),
    }
    if len(abnormal_N):
        of_abnormal = RankedScores(label_N[abnormal_N], score_N[abnormal_N])
        some_N = frames_N[abnormal_N]
        found |= {
            "ano_auc": lambda weight_RN: of_abnormal.auc(weight_RN[:, abnormal_N] * some_N),
            "ano_ap": lambda weight_RN: of_abnormal.average_precision(
                weight_RN[:, abnormal_N] * some_N
            ),
        }
    else:
        found |= {"ano_auc": _undefined, "ano_ap": _undefined}
    if len(mixed_N):
        within = _WithinVideos(label_N, score_N, video_N, frames_N, mixed_N)
        return found | {"within_auc": within.mean_auc}
    return found | {"within_auc": _undefined}


class _WithinVideos:
    """Frames of videos with both classes, sorted once by video and score for all resamples."""

    def __init__(
        self,
        label_N: NDArray[np.bool_],
        score_N: FloatArray,
        video_N: NDArray[np.intp],
        frames_N: FloatArray,
        mixed_N: NDArray[np.intp],
    ) -> None:
        order = np.lexsort((-score_N[mixed_N], video_N[mixed_N]))
        self.order_N = mixed_N[order]
        self.frames_N = frames_N[self.order_N]
        self.abnormal_N = label_N[self.order_N]
        score, video = score_N[self.order_N], video_N[self.order_N]
        new_video_N = np.r_[True, video[1:] != video[:-1]]
        self.group_starts_G = np.flatnonzero(new_video_N | np.r_[True, score[1:] != score[:-1]])
        self.video_starts_V = np.flatnonzero(new_video_N[self.group_starts_G])
        self.groups_V = np.diff(self.video_starts_V, append=len(self.group_starts_G))
        frames_G = np.add.reduceat(self.frames_N, self.group_starts_G)
        self.frames_V = np.add.reduceat(frames_G, self.video_starts_V)

    def mean_auc(self, weight_RN: FloatArray) -> FloatArray:
        sorted_RN = weight_RN[:, self.order_N] * self.frames_N
        abnormal_RG = np.add.reduceat(sorted_RN * self.abnormal_N, self.group_starts_G, axis=1)
        normal_RG = np.add.reduceat(sorted_RN * ~self.abnormal_N, self.group_starts_G, axis=1)
        abnormal_RV, normal_RV = self._by_video(abnormal_RG), self._by_video(normal_RG)
        earlier_RV = normal_RV.cumsum(-1)  # with the video itself
        below_RG = np.repeat(earlier_RV, self.groups_V, axis=1) - normal_RG.cumsum(-1)
        won_RV = self._by_video(abnormal_RG * (below_RG + normal_RG / 2))
        auc_RV = ratio(won_RV, abnormal_RV * normal_RV)
        of_video_RV = (abnormal_RV + normal_RV) / self.frames_V
        defined_RV = np.isfinite(auc_RV)
        sum_R = np.where(defined_RV, of_video_RV * auc_RV, 0.0).sum(-1)
        return ratio(sum_R, np.where(defined_RV, of_video_RV, 0.0).sum(-1))

    def _by_video(self, value_RG: FloatArray) -> FloatArray:
        sums_RV: FloatArray = np.add.reduceat(value_RG, self.video_starts_V, axis=1)
        return sums_RV


def _undefined(weight_RN: FloatArray) -> FloatArray:
    return np.full(len(weight_RN), np.nan)


def _checked(
    label_N: ArrayLike, score_N: ArrayLike, video_N: ArrayLike
) -> tuple[NDArray[np.bool_], FloatArray, NDArray[np.generic]]:
    label, video = np.asarray(label_N), np.asarray(video_N)
    score = np.asarray(score_N, dtype=np.float64)
    if not label.shape == score.shape == video.shape or label.ndim != 1 or not len(label):
        raise UserError(
            f"labels of shape {label.shape}, scores of {score.shape}, videos of {video.shape}; "
            "one of each for every frame, at least 1 frame, needed."
        )
    abnormal = label == 1
    if not (abnormal | (label == 0)).all():
        other = label[~(abnormal | (label == 0))][0]
        raise UserError(f"labels hold {other}; 0 for normal and 1 for abnormal frames needed.")
    if not np.isfinite(score).all():
        count = int((~np.isfinite(score)).sum())
        raise UserError(f"{count} of {len(score)} frames have a score that is not finite.")
    return abnormal, score, video
