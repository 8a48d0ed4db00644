"""Curves of a training."""

from collections.abc import Sequence
from pathlib import Path


def plot_curves(history: Sequence[dict[str, float]], path: Path, *, metric: str) -> None:
    """Loss and the selection metric over epochs, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    for name, style in (("train_loss", "o-"), ("validation_loss", "s--")):
        if all(name in row for row in history):
            left.plot(epochs, [row[name] for row in history], style, label=name.replace("_", " "))
    left.set(xlabel="epoch", ylabel="loss")
    left.legend()
    name = f"validation_{metric}"
    if all(name in row for row in history):
        right.plot(epochs, [row[name] for row in history], "s-")
    right.set(xlabel="epoch", ylabel=name.replace("_", " "), ylim=(0, 1))
    figure.savefig(path, dpi=110)
