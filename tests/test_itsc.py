"""The motor's recipe: current alone, 13 classes, one decision a recording."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_adapters import REAL_ITSC, motor_file

from crosswatch import artifacts, crossvalidate

SMALL = (
    "windows.per_second=5",
    "model.width=8",
    "model.depth=1",
    "model.heads=1",
    "model.head_width=8",
    "model.feed_forward_width=16",
    "train.epochs=1",
    "train.workers=0",
    "train.threads=1",
    "evaluate.samples=50",
)
REPETITIONS = [f"repetition-{number:02d}" for number in range(1, 6)]


def last_line(*arguments: str | Path, settings: tuple[str, ...] = SMALL) -> dict:
    command = [sys.executable, "-m", "crosswatch", *map(str, arguments), "--recipe", "itsc"]
    command += [part for setting in settings for part in ("--set", setting)]
    ended = subprocess.run(
        [*command, "--json"], check=False, capture_output=True, text=True, timeout=1500
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_a_motor_file_becomes_a_champion(tmp_path: Path) -> None:
    motor = motor_file(tmp_path / "motor")
    facts = last_line("run", "--batches", motor, "--workspace", tmp_path / "workspace")
    assert (facts["outcome"], facts["model"]) == ("promoted", "itsc")
    assert facts["batches"] == REPETITIONS
    assert 0 <= facts["metrics"]["accuracy"] <= 1


def test_each_repetition_evaluates_once(tmp_path: Path) -> None:
    facts = last_line("crossvalidate", "--batches", motor_file(tmp_path / "motor"))
    assert [fold["evaluation"] for fold in facts["folds"]] == REPETITIONS
    by_fold = [fold["metrics"]["accuracy"] for fold in facts["folds"]]
    assert facts["metrics"]["accuracy"] == pytest.approx(sum(by_fold) / 5)
    assert facts["intervals"]["accuracy"]["units"] == 65


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not REAL_ITSC.is_dir(), reason="../shared/data/itsc_motor_current is absent")
def test_the_real_motor_is_diagnosed_far_better_than_by_chance(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    facts = last_line(
        "run", "--batches", REAL_ITSC, "--workspace", workspace, settings=("train.workers=0",)
    )
    assert facts["metrics"]["accuracy"] > 0.6


def test_a_metric_that_a_fold_leaves_undefined_is_no_number() -> None:
    folds = [{"metrics": {"auc": value, "ap": None}} for value in (None, 0.5, 0.7)]
    mean = crossvalidate._over_folds(folds, np.mean, least=1)
    assert mean == {"auc": pytest.approx(0.6), "ap": None}
    assert [crossvalidate._number(value) for value in mean.values()] == ["0.6000", "undefined"]
    assert crossvalidate._over_folds(folds, np.std, least=3) == {"auc": None, "ap": None}
    assert artifacts.finite({"low": float("nan")}) == {"low": None}
