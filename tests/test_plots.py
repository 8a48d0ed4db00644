"""The pictures of an evaluation: what they rank by, and how many there are."""

from pathlib import Path

import matplotlib.axes
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from crosswatch.evaluation.plots import MOST_BATCHES, plot_evaluation
from crosswatch.evaluation.predictions import Predictions
from crosswatch.models.tokens import BINARY

ALL = {"confusion.png", "curves.png", "scores.png"}


def made(
    batches: int = 1, each: int = 8, classes: int = 2, *, clips: bool = False, binary: bool = False
) -> Predictions:
    """Row n of a batch is at n + 1 s; its label goes round through the classes."""
    chance = np.random.default_rng(7)
    count = batches * each
    end_s = np.tile(np.arange(each) + 1.0, batches)
    rows = pd.DataFrame({
        "batch": np.repeat([f"b{at:03d}" for at in range(batches)], each), "end_s": end_s,
        "segment": 0, "label": np.arange(count) % classes,
    })  # fmt: skip
    drawn = chance.dirichlet(np.ones(2), count)
    return Predictions(
        rows=rows.assign(start_s=end_s - 1) if clips else rows,
        probability_NK=chance.dirichlet(np.ones(classes), count),
        branches={BINARY: drawn} if binary else {},
    )


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Each figure by the file that it was written to; they are written all the same."""
    found = {}
    save = Figure.savefig

    def remember(figure: Figure, path: Path, **options: object) -> None:
        found[path.name] = figure
        save(figure, path, **options)

    monkeypatch.setattr(Figure, "savefig", remember)
    return found


def plot(predictions: Predictions, folder: Path, *, has_normal: bool = True) -> set[str]:
    classes = ["normal", "a", "b"][: predictions.probability_NK.shape[1]]
    plot_evaluation(predictions, classes, folder, has_normal=has_normal)
    return {path.name for path in folder.iterdir()}


def line(axis: matplotlib.axes.Axes) -> np.ndarray:
    return np.asarray(axis.lines[0].get_ydata(), float)


@pytest.mark.parametrize(("classes", "binary"), [(2, False), (3, False), (2, True), (3, True)])
def test_curves_and_scores_rank_by_what_auc_ranks_by(
    tmp_path: Path, figures: dict[str, Figure], classes: int, binary: bool
) -> None:
    predictions = made(each=24, classes=classes, binary=binary)
    assert plot(predictions, tmp_path) == ALL
    np.testing.assert_array_equal(line(figures["scores.png"].axes[0]), predictions.anomaly_N)
    area = roc_auc_score(predictions.rows["label"] > 0, predictions.anomaly_N)
    legend = figures["curves.png"].axes[0].get_legend()
    assert f"AUC = {area:.2f}" in legend.get_texts()[0].get_text()


def test_what_has_no_normal_class_has_no_curves(tmp_path: Path) -> None:
    assert plot(made(classes=3), tmp_path, has_normal=False) == {"confusion.png"}


def test_of_many_batches_the_first_are_drawn_and_it_says_so(
    tmp_path: Path, figures: dict[str, Figure]
) -> None:
    plot(made(batches=MOST_BATCHES + 3, each=4), tmp_path)
    drawn = figures["scores.png"]
    assert [axis.get_title() for axis in drawn.axes] == [f"b{at:03d}" for at in range(12)]
    assert drawn.get_suptitle() == "the first 12 of 15 batches"
    plot(made(batches=MOST_BATCHES, each=4), tmp_path)
    assert len(figures["scores.png"].axes) == MOST_BATCHES
    assert figures["scores.png"].get_suptitle() == ""


def test_batches_of_one_decision_each_have_no_course(tmp_path: Path) -> None:
    assert plot(made(batches=40, each=1), tmp_path) == {"confusion.png", "curves.png"}


def test_a_clip_is_a_step_over_its_span(tmp_path: Path, figures: dict[str, Figure]) -> None:
    predictions = made(each=4, clips=True)
    plot(predictions, tmp_path)
    axis = figures["scores.png"].axes[0]
    assert not axis.lines
    steps = axis.collections[1].get_segments()
    expected = [[[at, y], [at + 1, y]] for at, y in enumerate(predictions.anomaly_N)]
    np.testing.assert_allclose(steps, expected)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("time in s", "anomaly score")


def test_frames_of_clips_are_a_line(tmp_path: Path, figures: dict[str, Figure]) -> None:
    predictions = made(each=6, clips=True, binary=True)
    plot(predictions, tmp_path)
    assert len(line(figures["scores.png"].axes[0])) == 6
