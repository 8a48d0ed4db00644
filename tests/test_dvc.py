"""The research loop: dvc repro runs the same stages, and only those that a change reaches."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from made import TINY

from crosswatch import config

ROOT = Path(__file__).parents[1]
SMALL = (
    *TINY,
    "simulate.batches=1",
    "simulate.minutes=2.0",
    "simulate.frame_px=64",
    "simulate.events_min=4",
    "simulate.events_max=6",
    "sync.estimate=given",
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    params = config.override(config.read_yaml(ROOT / "params.yaml"), SMALL)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"]):
        call(tmp_path, *command)
    return tmp_path


def call(folder: Path, *command: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path}
    ended = subprocess.run(
        command, check=False, cwd=folder, capture_output=True, text=True, timeout=250,
        env=environment,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_repro_runs_every_stage_then_none_then_those_behind_a_change(repository: Path) -> None:
    out = call(repository, "dvc", "repro")
    for stage in ("simulate", "ingest", "refine", "train", "evaluate"):
        assert f"Running stage '{stage}'" in out
    metrics = json.loads(call(repository, "dvc", "metrics", "show", "--json"))
    found = metrics[""]["data"]["data/evaluation/metrics.json"]["data"]["metrics"]
    assert 0 <= found["accuracy"] <= 1
    for plot in yaml.safe_load((repository / "dvc.yaml").read_text())["plots"]:
        assert (repository / plot).stat().st_size > 0

    assert "Running stage" not in call(repository, "dvc", "repro")

    params = config.override(config.read_yaml(repository / "params.yaml"), ["train.seed=9"])
    (repository / "params.yaml").write_text(yaml.safe_dump(params))
    out = call(repository, "dvc", "repro")
    assert "Running stage 'train'" in out
    assert "Running stage 'evaluate'" in out
    assert "Running stage 'refine'" not in out
