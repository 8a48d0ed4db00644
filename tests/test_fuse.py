"""Two models that were trained apart, fused by their logits without training."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from made import TINY, deliver_with_events

from crosswatch import config, experiment, stages
from crosswatch.cli import crosswatch
from crosswatch.data.batches import open_set
from crosswatch.data.gather import windows_of
from crosswatch.errors import UserError
from crosswatch.evaluation.predictions import Predictions
from crosswatch.fuse import fuse
from crosswatch.models.detector import load_detector
from crosswatch.stages.evaluate import PREDICTIONS

VISUAL = ("model.modality=visual", "windows.signal_s=0", "windows.per_second=2")
CURRENT = ("model.modality=current", "model.pixel_head=false", "windows.frames=0")


def run(stage: str, *settings: str, **paths: Path) -> None:
    given = experiment.over(None, [*TINY, "train.epochs=1", *settings])
    stages.run(
        stage,
        values=config.plain(experiment.resolve("fmformer-furnace", given)),
        paths=paths,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    deliver_with_events(folder / "arrivals")
    run("ingest", arrivals=folder / "arrivals", out=folder / "batches", known=None)
    run("refine", "refine.masks=all", batches=folder / "batches", out=folder / "labels")
    where = {"batches": folder / "batches", "labels": folder / "labels"}
    run("train", *VISUAL, **where, out=folder / "visual", checkpoints=None)
    run("train", *CURRENT, **where, out=folder / "current", checkpoints=None)
    return folder


def test_the_fused_logits_are_the_sum_of_both(data: Path, tmp_path: Path) -> None:
    fuse(data / "visual", data / "current", tmp_path / "fused")
    fused, seen, measured = (
        load_detector(path) for path in (tmp_path / "fused", data / "visual", data / "current")
    )
    windows = windows_of(open_set(data / "batches"), fused.facts.windows, "evaluation")
    rows = np.arange(min(len(windows), 5))
    video, signal = fused.facts.read_windows(windows, rows)
    scores = fused.score((video, signal))
    alone = seen.score((video, None)), measured.score((None, signal))
    torch.testing.assert_close(scores.class_BK, alone[0].class_BK + alone[1].class_BK)
    torch.testing.assert_close(scores.pixel_BKHW, alone[0].pixel_BKHW)


def test_it_is_evaluated_as_any_other_checkpoint(data: Path, tmp_path: Path) -> None:
    command = ["fuse", "--visual", str(data / "visual"), "--current", str(data / "current"),
               "--out", str(tmp_path / "fused")]  # fmt: skip
    assert CliRunner().invoke(crosswatch, command).exit_code == 0
    run("evaluate", checkpoint=tmp_path / "fused", batches=data / "batches",
        labels=data / "labels", out=tmp_path / "out")  # fmt: skip
    predictions = Predictions.load(tmp_path / "out" / PREDICTIONS)
    assert len(predictions) > 5
    assert predictions.pixels_NKK is not None
    assert set(predictions.branches) >= {"video"}


def test_what_is_no_pair_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="is of modality current, and an FmFormer of modality visual is needed"
    ):
        fuse(data / "current", data / "visual", tmp_path / "fused")
    run("refine", "refine.masks=none", batches=data / "batches", out=tmp_path / "labels")
    run("train", *CURRENT, batches=data / "batches", labels=tmp_path / "labels",
        out=tmp_path / "current", checkpoints=None)  # fmt: skip
    with pytest.raises(UserError, match="were trained on different labels"):
        fuse(data / "visual", tmp_path / "current", tmp_path / "fused")
    assert not (tmp_path / "fused").exists()
    with pytest.raises(UserError, match="made by crosswatch fuse"):
        experiment.resolve("fmformer-furnace", {"model": {"name": "fmformer_fused"}})


def test_a_window_without_its_whole_history_is_scored_by_what_there_is(data: Path) -> None:
    detector = load_detector(data / "current")
    batch_set = open_set(data / "batches")
    masked = dataclasses.replace(detector.facts.windows, early="mask")
    facts = dataclasses.replace(detector.facts, windows=masked)
    windows = windows_of(batch_set, masked, "train")
    assert len(windows) > len(windows_of(batch_set, detector.facts.windows, "train"))
    rows = np.arange(len(windows))
    video, signal, valid = facts.read_windows(windows, rows)
    early = ~valid.all(1)
    assert early.any()
    quiet, loud = signal.clone(), signal.clone()
    quiet[~valid], loud[~valid] = 0.0, 1e3
    scores = [detector.score((video, each, valid)).class_BK for each in (quiet, loud)]
    assert torch.equal(*scores)
    whole = detector.score((video, signal[~early])).class_BK
    torch.testing.assert_close(scores[0][~early], whole, rtol=0, atol=1e-5)


def test_a_model_is_evaluated_over_other_lengths_without_training(
    data: Path, tmp_path: Path
) -> None:
    where = {"batches": data / "batches", "labels": data / "labels"}
    longer = ("evaluate.lengths.signal_s=12", "evaluate.lengths.pe_resize=interp")
    run("evaluate", *longer, **where, checkpoint=data / "current", out=tmp_path / "longer")
    run("evaluate", **where, checkpoint=data / "current", out=tmp_path / "same")
    two, one = (Predictions.load(tmp_path / name / PREDICTIONS) for name in ("longer", "same"))
    assert 0 < len(two) <= len(one)  # instants whose longer history is whole
    shared = one.rows["end_s"].isin(two.rows["end_s"]).to_numpy()
    assert np.abs(one.probability_NK[shared] - two.probability_NK).max() > 1e-6
    with pytest.raises(UserError, match=r"windows of other lengths .evaluate.lengths. than the"):
        run("register", **where, checkpoint=data / "current", evaluation=tmp_path / "longer",
            registry=tmp_path / "registry", out=tmp_path / "registration")  # fmt: skip
    with pytest.raises(UserError, match="pe_resize: slice cannot add any"):
        run("evaluate", "evaluate.lengths.signal_s=12", "evaluate.lengths.pe_resize=slice",
            **where, checkpoint=data / "current", out=tmp_path / "sliced")  # fmt: skip
