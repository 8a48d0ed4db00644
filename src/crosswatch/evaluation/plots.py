"""What an evaluation looks like: scores over time, curves, the confusion matrix."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.metrics import ConfusionMatrixDisplay, PrecisionRecallDisplay, RocCurveDisplay

from crosswatch.evaluation.predictions import Predictions


def plot_evaluation(predictions: Predictions, classes: Sequence[str], folder: Path) -> None:
    """Write confusion.png, and where there are two classes curves.png and scores.png."""
    label = predictions.rows["label"].to_numpy()
    _confusion(label, predictions, classes, folder / "confusion.png")
    if len(classes) == 2 and len(np.unique(label)) == 2:
        _curves(label, predictions, folder / "curves.png")
        _scores(predictions, classes, folder / "scores.png")


def _confusion(
    label: npt.NDArray[np.int64],
    predictions: Predictions,
    classes: Sequence[str],
    path: Path,
) -> None:
    from matplotlib.figure import Figure

    side = 2.5 + 0.35 * len(classes)
    figure = Figure(figsize=(side, side), layout="constrained")
    ConfusionMatrixDisplay.from_predictions(
        label,
        predictions.probability_NK.argmax(1),
        labels=range(len(classes)),
        display_labels=classes,
        colorbar=False,
        cmap="Blues",
        xticks_rotation=45,
        ax=figure.subplots(),
    )
    figure.savefig(path, dpi=110)


def _curves(label: npt.NDArray[np.int64], predictions: Predictions, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    score = predictions.probability_NK[:, 1]
    RocCurveDisplay.from_predictions(label, score, ax=left, plot_chance_level=True)
    PrecisionRecallDisplay.from_predictions(label, score, ax=right, plot_chance_level=True)
    figure.savefig(path, dpi=110)


def _scores(predictions: Predictions, classes: Sequence[str], path: Path) -> None:
    from matplotlib.figure import Figure

    batches = sorted(predictions.rows["batch"].unique())
    figure = Figure(figsize=(9, 1 + 1.5 * len(batches)), layout="constrained")
    axes = figure.subplots(len(batches), 1, squeeze=False)[:, 0]
    for axis, batch in zip(axes, batches, strict=True):
        mine = (predictions.rows["batch"] == batch).to_numpy()
        at = predictions.rows["end_s"].to_numpy()[mine]
        axis.fill_between(
            at, predictions.rows["label"].to_numpy()[mine], step="mid", alpha=0.25, color="tab:red",
            label=f"{classes[1]} (expert)",
        )  # fmt: skip
        axis.plot(at, predictions.probability_NK[mine, 1], lw=1, label="score")
        axis.set(title=batch, ylim=(0, 1.02), ylabel="probability")
    axes[0].legend(loc="upper right", fontsize="small")
    axes[-1].set(xlabel="s on the control system's clock")
    figure.savefig(path, dpi=110)
