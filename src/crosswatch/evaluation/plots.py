"""What an evaluation looks like: scores over time, curves, the confusion matrix."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay

from crosswatch.evaluation.predictions import Predictions
from crosswatch.models.tokens import BINARY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BATCHES = 12  # of more, an axis each, nobody sees anything, and drawing takes minutes


def plot_evaluation(
    predictions: Predictions, classes: Sequence[str], folder: Path, *, has_normal: bool
) -> None:
    """Write confusion.png; where normal and abnormal rows occur also curves.png, and scores.png
    unless every batch is one decision."""
    rows = predictions.rows
    _confusion(predictions, classes, folder / "confusion.png")
    if has_normal and (rows["label"] > 0).nunique() == 2:
        _curves(predictions, folder / "curves.png")
        if rows["batch"].duplicated().any():
            _scores(predictions, classes, folder / "scores.png")


def _confusion(predictions: Predictions, classes: Sequence[str], path: Path) -> None:
    from matplotlib.figure import Figure

    side = 2.5 + 0.35 * len(classes)
    figure = Figure(figsize=(side, side), layout="constrained")
    ConfusionMatrixDisplay.from_predictions(
        predictions.rows["label"].to_numpy(),
        predictions.probability_NK.argmax(1),
        labels=range(len(classes)),
        display_labels=classes,
        colorbar=False,
        cmap="Blues",
        xticks_rotation=45,
        ax=figure.subplots(),
    )
    figure.savefig(path, dpi=110)


def _curves(predictions: Predictions, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    abnormal = predictions.rows["label"].to_numpy() > 0
    for display, axis in ((RocCurveDisplay, left), (PrecisionRecallDisplay, right)):
        display.from_predictions(
            abnormal, predictions.anomaly_N, ax=axis, name="anomaly score", plot_chance_level=True
        )
    left.set(xlabel="alarmed share of the normal", ylabel="alarmed share of the abnormal (recall)")
    right.set(xlabel="alarmed share of the abnormal (recall)", ylabel="abnormal share of alarms")
    figure.savefig(path, dpi=110)


def _scores(predictions: Predictions, classes: Sequence[str], path: Path) -> None:
    """How abnormal each row is over time, the first batches of many."""
    from matplotlib.figure import Figure

    batch = predictions.rows["batch"].to_numpy()
    batches = sorted(set(batch))
    shown = batches[:MOST_BATCHES]
    figure = Figure(figsize=(9, 1 + 1.5 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    named = classes[1] if len(classes) == 2 else "abnormal"
    for axis, name in zip(axes, shown, strict=True):
        mine = predictions.take(np.flatnonzero(batch == name))
        draw = _over_clips if _are_clips(mine) else _over_instants
        draw(axis, mine, f"{named} (expert)")
        axis.set(title=name, ylim=(0, 1.02), ylabel="anomaly score")
    axes[0].legend(loc="upper right", fontsize="small")
    axes[-1].set(xlabel="time in s")
    if len(shown) < len(batches):
        figure.suptitle(f"the first {len(shown)} of {len(batches)} batches")
    figure.savefig(path, dpi=110)


def _are_clips(predictions: Predictions) -> bool:
    """Frames of clips have a start_s, too, that of their clip."""
    return "start_s" in predictions.rows and BINARY not in predictions.branches


def _over_instants(axis: "Axes", predictions: Predictions, named: str) -> None:
    order: npt.NDArray[np.intp] = np.argsort(predictions.rows["end_s"].to_numpy(), kind="stable")
    at_s = predictions.rows["end_s"].to_numpy()[order]
    abnormal = predictions.rows["label"].to_numpy()[order] > 0
    axis.fill_between(at_s, abnormal, step="mid", alpha=0.25, color="tab:red", label=named)
    axis.plot(at_s, predictions.anomaly_N[order], lw=1, label="score")


def _over_clips(axis: "Axes", predictions: Predictions, named: str) -> None:
    start_s, end_s = (predictions.rows[name].to_numpy() for name in ("start_s", "end_s"))
    abnormal = predictions.rows["label"].to_numpy() > 0
    spans = list(zip(start_s[abnormal], (end_s - start_s)[abnormal], strict=True))
    axis.broken_barh(spans, (0, 1), alpha=0.25, color="tab:red", lw=0, label=named)
    axis.hlines(predictions.anomaly_N, start_s, end_s, lw=2, color="tab:blue", label="score")
