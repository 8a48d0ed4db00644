"""How well pixels are classed; the confusion is kept by instant, so that units can be resampled.

Shape letters: N instants, H W pixels, K classes (true first, then decided), R resamples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosswatch.errors import UserError
from crosswatch.evaluation.bootstrap import FloatArray, Statistic, estimate
from crosswatch.evaluation.classification import ratio


def pixel_confusion(
    true_NHW: ArrayLike, decided_NHW: ArrayLike, *, classes: int
) -> NDArray[np.int64]:
    """Pixel counts confusion_NKK; those of several batches of instants concatenate."""
    true, decided = (np.asarray(x).astype(np.int64) for x in (true_NHW, decided_NHW))
    if true.shape != decided.shape or true.ndim != 3:
        raise UserError(f"masks of shape {true.shape} and {decided.shape}; N x H x W twice needed.")
    for mask in (true, decided):
        if mask.size and (mask.min() < 0 or mask.max() >= classes):
            raise UserError(
                f"mask values from {mask.min()} to {mask.max()}; with {classes} classes 0 to "
                f"{classes - 1} allowed."
            )
    cell_NHW = true * classes + decided + np.arange(len(true))[:, None, None] * classes**2
    counts = np.bincount(cell_NHW.ravel(), minlength=len(true) * classes**2)
    return counts.reshape(len(true), classes, classes)


def segmentation_metrics(confusion_NKK: ArrayLike) -> dict[str, float]:
    """miou and frame_accuracy."""
    statistics = segmentation_statistics(confusion_NKK)
    return {name: estimate(of, len(np.asarray(confusion_NKK))) for name, of in statistics.items()}


def segmentation_statistics(confusion_NKK: ArrayLike) -> dict[str, Statistic]:
    """As functions of weights, for `block_bootstrap`; an instant without pixels is not counted."""
    confusions = np.asarray(confusion_NKK, dtype=np.float64)
    count, classes, _ = confusions.shape
    cell_NC = confusions.reshape(count, classes**2)
    known_N = (confusions.sum((1, 2)) > 0).astype(np.float64)
    agreed_N = known_N * _alarm_agrees(confusions)
    return {
        "miou": lambda weight_RN: mean_iou((weight_RN @ cell_NC).reshape(-1, classes, classes)),
        "frame_accuracy": lambda weight_RN: ratio(weight_RN @ agreed_N, weight_RN @ known_N),
    }


def mean_iou(confusion_RKK: FloatArray) -> FloatArray:
    """Mean over classes of TP/(TP+FP+FN); nan if a class neither occurs nor is decided."""
    both_RK = np.diagonal(confusion_RKK, axis1=-2, axis2=-1)
    either_RK = confusion_RKK.sum(-1) + confusion_RKK.sum(-2) - both_RK
    iou_RK = ratio(both_RK, either_RK)
    mean_R: FloatArray = iou_RK.mean(-1)
    return mean_R


def _alarm_agrees(confusion_NKK: FloatArray) -> NDArray[np.bool_]:
    """1 where any pixel decided abnormal coincides with any pixel being abnormal."""
    abnormal_N = confusion_NKK[:, 1:, :].sum((1, 2)) > 0
    alarmed_N = confusion_NKK[:, :, 1:].sum((1, 2)) > 0
    agrees_N: NDArray[np.bool_] = abnormal_N == alarmed_N
    return agrees_N
