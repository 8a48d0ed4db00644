"""How well instants are classed: class 0 is normal, every other class abnormal.

Of classes none of which is normal, such as topics, nothing is asked that sets normal against
abnormal. The decision is the most probable class. What has an empty denominator is nan: nothing
is added to hide it. Every statistic takes weights, so that a bootstrap evaluates its resamples at
once.

Shape letters: N instants, K classes (true first, then decided), R resamples, G groups of one score.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosswatch.errors import UserError
from crosswatch.evaluation.bootstrap import FloatArray, Statistic, estimate


def classification_metrics(
    labels_N: ArrayLike, probability_NK: ArrayLike, *, has_normal: bool = True
) -> dict[str, float]:
    """Each measure of `classification_statistics` of the data as they are."""
    statistics = classification_statistics(labels_N, probability_NK, has_normal=has_normal)
    return {name: estimate(of, len(np.asarray(labels_N))) for name, of in statistics.items()}


def classification_statistics(
    labels_N: ArrayLike, probability_NK: ArrayLike, *, has_normal: bool = True
) -> dict[str, Statistic]:
    """The measures as functions of weights, for `block_bootstrap`.

    Of normal and one abnormal class the BINARY, auc, ap and eer. Of more the MULTI_CLASS, auc and
    ap of every abnormal class against normal, and top5 of 6 classes or more. Where class 0 is not
    normal (`has_normal=False`) the MULTI_CLASS, and top5.
    """
    label_N, probabilities = _checked(labels_N, probability_NK)
    classes = probabilities.shape[1]
    decided_N = probabilities.argmax(axis=1)
    cell_NC = np.eye(classes**2)[label_N * classes + decided_N]
    binary = classes == 2 and has_normal
    measures = BINARY if binary else MULTI_CLASS
    statistics = {name: _of_confusion(of, cell_NC, classes) for name, of in measures.items()}
    if classes > TOP:
        hit_N = _among_the_top(label_N, probabilities)
        statistics[f"top{TOP}"] = lambda weight_RN: ratio(weight_RN @ hit_N, weight_RN.sum(-1))
    if has_normal:
        # -p_0 ranks as 1 - p_0 does, and keeps apart what 1 - p_0 rounds to 1
        score_N = probabilities[:, 1] if binary else -probabilities[:, 0]
        ranked = RankedScores(label_N > 0, score_N)
        statistics |= {"auc": ranked.auc, "ap": ranked.average_precision}
        statistics |= {"eer": ranked.equal_error_rate} if binary else {}
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
    """Scores sorted once for all resamples; equal scores form one group, as in scikit-learn."""

    def __init__(self, abnormal_N: NDArray[np.bool_], score_N: FloatArray) -> None:
        self.order_N = np.argsort(-score_N, kind="stable")
        self.abnormal_N = abnormal_N[self.order_N]
        falling_N = score_N[self.order_N]
        self.group_starts_G = np.flatnonzero(np.r_[True, falling_N[1:] != falling_N[:-1]])

    def auc(self, weight_RN: FloatArray) -> FloatArray:
        """Chance that a random abnormal instant outscores a random normal one; ties count half."""
        abnormal_RG, normal_RG = self._groups(weight_RN)
        below_RG = normal_RG.sum(-1, keepdims=True) - normal_RG.cumsum(-1)
        won_R = (abnormal_RG * (below_RG + normal_RG / 2)).sum(-1)
        return ratio(won_R, abnormal_RG.sum(-1) * normal_RG.sum(-1))

    def average_precision(self, weight_RN: FloatArray) -> FloatArray:
        """Precision at each threshold, weighted by the recall it adds."""
        abnormal_RG, normal_RG = self._groups(weight_RN)
        found_RG = abnormal_RG.cumsum(-1)
        precision_RG = ratio(found_RG, found_RG + normal_RG.cumsum(-1))
        gained_R = np.where(abnormal_RG > 0, abnormal_RG * precision_RG, 0.0).sum(-1)
        return ratio(gained_R, abnormal_RG.sum(-1))

    def equal_error_rate(self, weight_RN: FloatArray) -> FloatArray:
        """Where as large a share of the normal is alarmed as of the abnormal is missed.

        Thresholds between groups of equal scores give the corners of the ROC curve; between the
        two corners around equality both shares are interpolated linearly. Less is better.
        """
        abnormal_RG, normal_RG = self._groups(weight_RN)
        alarmed_RG = ratio(normal_RG.cumsum(-1), normal_RG.sum(-1, keepdims=True))
        found_RG = ratio(abnormal_RG.cumsum(-1), abnormal_RG.sum(-1, keepdims=True))
        excess_RG = alarmed_RG + found_RG - 1  # alarmed less missed: from -1 up to 1
        behind_R = (excess_RG < 0).sum(-1, keepdims=True)  # the first corner at or past equality
        start = ((0, 0), (1, 0))  # nothing is alarmed, all is missed
        alarmed_RG = np.pad(alarmed_RG, start)
        excess_RG = np.pad(excess_RG, start, constant_values=-1.0)
        corners = np.concatenate((behind_R, np.minimum(behind_R + 1, excess_RG.shape[1] - 1)), 1)
        alarmed_R2 = np.take_along_axis(alarmed_RG, corners, 1)
        excess_R2 = np.take_along_axis(excess_RG, corners, 1)
        share_R = ratio(-excess_R2[:, 0], np.diff(excess_R2)[:, 0])
        rate_R: FloatArray = alarmed_R2[:, 0] + share_R * np.diff(alarmed_R2)[:, 0]
        return rate_R

    def _groups(self, weight_RN: FloatArray) -> tuple[FloatArray, FloatArray]:
        sorted_RN = weight_RN[:, self.order_N]
        abnormal_RG = np.add.reduceat(sorted_RN * self.abnormal_N, self.group_starts_G, axis=1)
        normal_RG = np.add.reduceat(sorted_RN * ~self.abnormal_N, self.group_starts_G, axis=1)
        return abnormal_RG, normal_RG


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
    measure: Callable[[FloatArray], FloatArray], cell_NC: FloatArray, classes: int
) -> Statistic:
    return lambda weight_RN: measure((weight_RN @ cell_NC).reshape(-1, classes, classes))


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
