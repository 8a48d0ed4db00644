"""How well instants are classed: class 0 is normal, every other class abnormal.

The decision is the most probable class. What has an empty denominator is nan: nothing is added
to hide it. Every statistic takes weights, so that a bootstrap evaluates its resamples at once.

Shape letters: N instants, K classes (true first, then decided), R resamples, G groups of one score.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosswatch.errors import UserError
from crosswatch.evaluation.bootstrap import FloatArray, Statistic, estimate


def classification_metrics(labels_N: ArrayLike, probability_NK: ArrayLike) -> dict[str, float]:
    """accuracy, f1, fdr, mdr, auc, ap, balanced_accuracy; of 3 classes or more the MULTI_CLASS."""
    statistics = classification_statistics(labels_N, probability_NK)
    return {name: estimate(of, len(np.asarray(labels_N))) for name, of in statistics.items()}


def classification_statistics(
    labels_N: ArrayLike, probability_NK: ArrayLike
) -> dict[str, Statistic]:
    """The same measures as functions of weights, for `block_bootstrap`."""
    label_N, probabilities = _checked(labels_N, probability_NK)
    classes = probabilities.shape[1]
    decided_N = probabilities.argmax(axis=1)
    cell_NC = np.eye(classes**2)[label_N * classes + decided_N]
    measures = BINARY if classes == 2 else MULTI_CLASS
    statistics = {name: _of_confusion(of, cell_NC, classes) for name, of in measures.items()}
    if classes == 2:
        ranked = RankedScores(label_N == 1, probabilities[:, 1])
        statistics |= {"auc": ranked.auc, "ap": ranked.average_precision}
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
    return _mean_of_defined(ratio(_diagonal(confusion_RKK), confusion_RKK.sum(-1)))


def macro_f1(confusion_RKK: FloatArray) -> FloatArray:
    """Over the classes that occur or were decided, as scikit-learn counts them."""
    either_RK = confusion_RKK.sum(-1) + confusion_RKK.sum(-2)
    return _mean_of_defined(ratio(2 * _diagonal(confusion_RKK), either_RK))


BINARY = {
    "accuracy": accuracy,
    "f1": f1,
    "fdr": fdr,
    "mdr": mdr,
    "balanced_accuracy": balanced_accuracy,
}
MULTI_CLASS = {"accuracy": accuracy, "macro_f1": macro_f1, "balanced_accuracy": macro_recall}


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


def _mean_of_defined(value_RK: FloatArray) -> FloatArray:
    defined_RK = np.isfinite(value_RK)
    return ratio(np.where(defined_RK, value_RK, 0.0).sum(-1), defined_RK.sum(-1))


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
