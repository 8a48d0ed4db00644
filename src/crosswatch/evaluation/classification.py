"""How well instants are classed: class 0 is normal, every other class abnormal.

Of classes none of which is normal, such as topics, nothing is asked that sets normal against
abnormal. The decision is the most probable class. What has an empty denominator is nan: nothing
is added to hide it. Every statistic takes weights, so that a bootstrap evaluates its resamples at
once.

Shape letters: N instants, U units, K classes (true first, then decided), R resamples, A
abnormal and B normal instants, G groups of one score, H those that hold an abnormal instant, C
cells or corners.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosswatch.errors import UserError
from crosswatch.evaluation.bootstrap import FloatArray, Statistic, Units, estimate


def classification_metrics(
    labels_N: ArrayLike, probability_NK: ArrayLike, *, has_normal: bool = True
) -> dict[str, float]:
    """Each measure of `classification_statistics` of the data as they are."""
    together = Units.one(len(np.asarray(labels_N)))
    statistics = classification_statistics(
        labels_N, probability_NK, has_normal=has_normal, units=together
    )
    return {name: estimate(of, together.count) for name, of in statistics.items()}


def classification_statistics(
    labels_N: ArrayLike,
    probability_NK: ArrayLike,
    *,
    has_normal: bool = True,
    units: Units | None = None,
) -> dict[str, Statistic]:
    """The measures as functions of weights, for `block_bootstrap`; of the weights of `units` where
    they are given, so that a resample of many instants is a small product.

    Of normal and one abnormal class the BINARY, auc, ap and eer. Of more the MULTI_CLASS, auc and
    ap of every abnormal class against normal, and top5 of 6 classes or more. Where class 0 is not
    normal (`has_normal=False`) the MULTI_CLASS, and top5.
    """
    label_N, probabilities = _checked(labels_N, probability_NK)
    classes = probabilities.shape[1]
    units = units or Units.each(len(label_N))
    cell_N = label_N * classes + probabilities.argmax(axis=1)
    confusion_UC = _counted(cell_N, units, classes**2)
    binary = classes == 2 and has_normal
    measures = BINARY if binary else MULTI_CLASS
    statistics = {name: _of_confusion(of, confusion_UC, classes) for name, of in measures.items()}
    if classes > TOP:
        hits_U = units.sums(_among_the_top(label_N, probabilities))
        size_U = confusion_UC.sum(1)
        statistics[f"top{TOP}"] = lambda weight_RU: ratio(weight_RU @ hits_U, weight_RU @ size_U)
    if has_normal:
        # -p_0 ranks as 1 - p_0 does, and keeps apart what 1 - p_0 rounds to 1
        score_N = probabilities[:, 1] if binary else -probabilities[:, 0]
        ranked = RankedScores(label_N > 0, score_N)
        by_rank = {"auc": ranked.auc, "ap": ranked.average_precision}
        by_rank |= {"eer": ranked.equal_error_rate} if binary else {}
        statistics |= {name: units.statistic(of) for name, of in by_rank.items()}
    return statistics


def accuracy(confusion_RKK: FloatArray) -> FloatArray:
    return ratio(_diagonal(confusion_RKK).sum(-1), confusion_RKK.sum((-2, -1)))


def f1(confusion_RKK: FloatArray) -> FloatArray:
    """2PR/(P+R) as 2TP/(2TP+FP+FN): a model that finds nothing has 0, which can be compared."""
    hit_R = confusion_RKK[:, 1, 1]
    wrong_R = confusion_RKK[:, 0, 1] + confusion_RKK[:, 1, 0]
    return ratio(2 * hit_R, 2 * hit_R + wrong_R)


def fdr(confusion_RKK: FloatArray) -> FloatArray:
    """FP/(FP+TN): the furnace papers' false detection rate is the false positive rate."""
    return ratio(confusion_RKK[:, 0, 1], confusion_RKK[:, 0].sum(-1))


def mdr(confusion_RKK: FloatArray) -> FloatArray:
    """FN/(FN+TP): the missed share of the abnormal."""
    return ratio(confusion_RKK[:, 1, 0], confusion_RKK[:, 1].sum(-1))


def balanced_accuracy(confusion_RKK: FloatArray) -> FloatArray:
    """With two classes both have to occur."""
    recall_RK = ratio(_diagonal(confusion_RKK), confusion_RKK.sum(-1))
    mean_R: FloatArray = recall_RK.mean(-1)
    return mean_R


def macro_recall(confusion_RKK: FloatArray) -> FloatArray:
    """Balanced accuracy over the classes that occur, of many of which a resample may miss some."""
    return mean_of_defined(ratio(_diagonal(confusion_RKK), confusion_RKK.sum(-1)))


def macro_f1(confusion_RKK: FloatArray) -> FloatArray:
    """Over the classes that occur or were decided, as scikit-learn counts them."""
    either_RK = confusion_RKK.sum(-1) + confusion_RKK.sum(-2)
    return mean_of_defined(ratio(2 * _diagonal(confusion_RKK), either_RK))


def weighted_f1(confusion_RKK: FloatArray) -> FloatArray:
    """Each class's F1 by how often the class occurs, as scikit-learn's average="weighted"."""
    occurs_RK = confusion_RKK.sum(-1)
    f1_RK = ratio(2 * _diagonal(confusion_RKK), occurs_RK + confusion_RKK.sum(-2))
    return ratio((occurs_RK * np.nan_to_num(f1_RK)).sum(-1), occurs_RK.sum(-1))


TOP = 5
BINARY = {
    "accuracy": accuracy,
    "f1": f1,
    "fdr": fdr,
    "mdr": mdr,
    "balanced_accuracy": balanced_accuracy,
}
MULTI_CLASS = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "weighted_f1": weighted_f1,
    "balanced_accuracy": macro_recall,
}


class RankedScores:
    """Scores sorted once for all resamples; equal scores form one group, as in scikit-learn.

    Abnormal and normal instants are summed apart, each from the highest score down, so that what
    changes with the abnormal alone is looked up at the few groups that hold one.
    """

    def __init__(self, abnormal_N: NDArray[np.bool_], score_N: FloatArray) -> None:
        order_N = np.argsort(-score_N, kind="stable")
        is_abnormal_N = abnormal_N[order_N]
        self.abnormal_A, self.normal_B = order_N[is_abnormal_N], order_N[~is_abnormal_N]
        falling_N = score_N[order_N]
        starts_G = np.flatnonzero(np.r_[True, falling_N[1:] != falling_N[:-1]])
        edges = np.append(starts_G, len(order_N))  # the last group ends behind all
        self.abnormal_before = np.r_[0, is_abnormal_N.cumsum()][edges]
        self.normal_before = edges - self.abnormal_before
        self.holds_abnormal_H = np.flatnonzero(np.diff(self.abnormal_before))

    def auc(self, weight_RN: FloatArray) -> FloatArray:
        """Chance that a random abnormal instant outscores a random normal one; ties count half."""
        found_RA, alarmed_RB = self._from_above(weight_RN)
        gained_RH = self._gained(found_RA)
        above_RH = alarmed_RB[:, self.normal_before[self.holds_abnormal_H]]
        not_below_RH = alarmed_RB[:, self.normal_before[self.holds_abnormal_H + 1]]
        won_R = (gained_RH * (alarmed_RB[:, -1:] - (above_RH + not_below_RH) / 2)).sum(-1)
        return ratio(won_R, found_RA[:, -1] * alarmed_RB[:, -1])

    def average_precision(self, weight_RN: FloatArray) -> FloatArray:
        """Precision at each threshold, weighted by the recall it adds."""
        found_RA, alarmed_RB = self._from_above(weight_RN)
        gained_RH = self._gained(found_RA)
        found_RH = found_RA[:, self.abnormal_before[self.holds_abnormal_H + 1]]
        alarmed_RH = alarmed_RB[:, self.normal_before[self.holds_abnormal_H + 1]]
        precision_RH = ratio(found_RH, found_RH + alarmed_RH)
        gained_R = np.where(gained_RH > 0, gained_RH * precision_RH, 0.0).sum(-1)
        return ratio(gained_R, found_RA[:, -1])

    def equal_error_rate(self, weight_RN: FloatArray) -> FloatArray:
        """Where as large a share of the normal is alarmed as of the abnormal is missed.

        Thresholds between groups of equal scores give the corners of the ROC curve, from where
        nothing is alarmed on; between the two corners around equality both shares are
        interpolated linearly. Less is better.
        """
        found_RA, alarmed_RB = self._from_above(weight_RN)
        found_RC = ratio(found_RA[:, self.abnormal_before], found_RA[:, -1:])
        alarmed_RC = ratio(alarmed_RB[:, self.normal_before], alarmed_RB[:, -1:])
        excess_RC = alarmed_RC + found_RC - 1  # alarmed less missed: from -1 up to 1
        behind_R = (excess_RC[:, 1:] < 0).sum(-1, keepdims=True)  # the corner before equality
        corners = np.concatenate((behind_R, np.minimum(behind_R + 1, excess_RC.shape[1] - 1)), 1)
        alarmed_R2 = np.take_along_axis(alarmed_RC, corners, 1)
        excess_R2 = np.take_along_axis(excess_RC, corners, 1)
        share_R = ratio(-excess_R2[:, 0], np.diff(excess_R2)[:, 0])
        rate_R: FloatArray = alarmed_R2[:, 0] + share_R * np.diff(alarmed_R2)[:, 0]
        return rate_R

    def _from_above(self, weight_RN: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Weights of the abnormal and of the normal down to each, from 0 on."""
        found_RA = np.zeros((len(weight_RN), len(self.abnormal_A) + 1))
        alarmed_RB = np.zeros((len(weight_RN), len(self.normal_B) + 1))
        np.cumsum(np.take(weight_RN, self.abnormal_A, axis=1), axis=1, out=found_RA[:, 1:])
        np.cumsum(np.take(weight_RN, self.normal_B, axis=1), axis=1, out=alarmed_RB[:, 1:])
        return found_RA, alarmed_RB

    def _gained(self, found_RA: FloatArray) -> FloatArray:
        """Weight of the abnormal in each group that holds some."""
        before_H = self.abnormal_before[self.holds_abnormal_H]
        behind_H = self.abnormal_before[self.holds_abnormal_H + 1]
        return found_RA[:, behind_H] - found_RA[:, before_H]


def ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """nan where the whole is empty."""
    share: FloatArray = np.full(np.shape(part), np.nan)
    np.divide(part, whole, out=share, where=whole > 0)
    return share


def mean_of_defined(value_RK: FloatArray) -> FloatArray:
    """nan where none is."""
    defined_RK = np.isfinite(value_RK)
    return ratio(np.where(defined_RK, value_RK, 0.0).sum(-1), defined_RK.sum(-1))


def _among_the_top(label_N: NDArray[np.int64], probability_NK: FloatArray) -> FloatArray:
    """1 where fewer than TOP classes come before the true one; of equal ones the first does."""
    of_true_N1 = np.take_along_axis(probability_NK, label_N[:, None], 1)
    earlier_NK = np.arange(probability_NK.shape[1]) < label_N[:, None]
    before_NK = (probability_NK > of_true_N1) | (earlier_NK & (probability_NK == of_true_N1))
    hit_N: FloatArray = (before_NK.sum(1) < TOP).astype(np.float64)
    return hit_N


def _diagonal(confusion_RKK: FloatArray) -> FloatArray:
    return np.diagonal(confusion_RKK, axis1=-2, axis2=-1)


def _of_confusion(
    measure: Callable[[FloatArray], FloatArray], confusion_UC: FloatArray, classes: int
) -> Statistic:
    return lambda weight_RU: measure((weight_RU @ confusion_UC).reshape(-1, classes, classes))


def _counted(cell_N: NDArray[np.int64], units: Units, cells: int) -> FloatArray:
    """How often each unit has each cell (U, C)."""
    counts = np.bincount(units.unit_N * cells + cell_N, minlength=units.count * cells)
    return counts.reshape(units.count, cells).astype(np.float64)


def _checked(
    labels_N: ArrayLike, probability_NK: ArrayLike
) -> tuple[NDArray[np.int64], FloatArray]:
    label_N = np.asarray(labels_N).astype(np.int64)
    probabilities = np.asarray(probability_NK, dtype=np.float64)
    if label_N.ndim != 1 or probabilities.ndim != 2 or len(label_N) != len(probabilities):
        raise UserError(
            f"labels of shape {label_N.shape} and probabilities of shape {probabilities.shape}; "
            "N labels and N x K probabilities needed."
        )
    classes = probabilities.shape[1]
    if classes < 2 or not len(label_N):
        raise UserError(
            f"{len(label_N)} instants of {classes} classes; at least 1 of 2 classes needed."
        )
    if label_N.min() < 0 or label_N.max() >= classes:
        raise UserError(
            f"labels from {label_N.min()} to {label_N.max()}; with {classes} classes 0 to "
            f"{classes - 1} allowed."
        )
    if not np.isfinite(probabilities).all():
        count = int((~np.isfinite(probabilities)).any(axis=1).sum())
        raise UserError(
            f"{count} of {len(label_N)} instants have a probability that is not finite."
        )
    return label_N, probabilities
