"""What a user can do wrong costs one line and exit code 2; nothing is written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from deliveries import deliver

from crosswatch import cli

RUN = [sys.executable, "-m", "crosswatch"]


def crosswatch(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [*RUN, *map(str, arguments)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=120, cwd=cwd
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--recipe", "itcs"], "--recipe itcs: unknown; recipes: fmformer-furnace, itsc"),
        (["run", "--set", "train.epoch=3"], "train: unknown key 'epoch' .* mean 'epochs'"),
        (["run", "--set", "trian.epochs=3"], "unknown key 'trian' .* mean 'train'"),
        (["run", "--set", "train.epochs=many"], "train.epochs: expected int, found str 'many'"),
        (["run", "--set", "train.optim.learning_rate=3e-4"], "YAML reads 3e-4 as text"),
        (["run", "--config", "absent.yaml"], "absent.yaml: cannot be read: No such file"),
        (["run"], "--batches is missing. Example: crosswatch run --batches"),
        (["run", "--batches", "here"], "--workspace is missing"),
        (["run", "--bathces", "here"], "[Nn]o such option.*--bathces.*mean.*--batches"),
        (["rum"], "no such command 'rum'. Did you mean 'run'"),
        (["train", "--batches", "b"], "--labels is missing. Example: crosswatch train"),
        (["refine", "--batches", "b", "--out", "o"], "b: holds no manifest.json"),
        (["ingest", "--arrivals", "nowhere", "--out", "o"], "nowhere"),
        (["promote", "m", "--version", "1", "--to", "Staging"], "holds no registry"),
        (["promote", "m", "--version", "1", "--to", "Stagging"], "'Stagging' is not one of"),
        (["simulate", "--out", "o", "--set", "simulate.minutes=0.1"], "0.1 minutes"),
    ],
)
def test_a_mistake_costs_one_line_and_exit_code_2(
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert ended.value.code == 2
    assert len(lines) == 1, lines
    assert lines[0].startswith("crosswatch")
    assert re.search(message, lines[0])
    assert list(tmp_path.iterdir()) == []


def test_a_malformed_configuration_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for text, message in (("train: [", "is not valid YAML"), ("- a\n", "expected keys and values")):
        file.write_text(text)
        ended = crosswatch("run", "--config", file, "--show-config")
        assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
        assert f"{file}: {message}" in ended.stderr


def test_a_workspace_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    deliver(tmp_path / "arrivals")
    (tmp_path / "file").write_text("x")
    workspace = tmp_path / "file" / "workspace"
    ended = crosswatch("run", "--batches", tmp_path / "arrivals", "--workspace", workspace)
    assert ended.returncode == 2
    assert f"--workspace {workspace}: cannot be written: Not a directory" in ended.stderr


@pytest.mark.parametrize("is_empty", [True, False], ids=["nothing there", "still arriving"])
def test_no_batches_is_a_mistake_that_names_what_is_there(tmp_path: Path, is_empty: bool) -> None:
    arrivals = tmp_path / "arrivals"
    arrivals.mkdir()
    if not is_empty:
        (deliver(arrivals) / "SHA256SUMS").unlink()
    ended = crosswatch("run", "--batches", arrivals, "--workspace", tmp_path / "workspace")
    assert ended.returncode == 2, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("crosswatch run: claim: ")
    assert "Traceback" not in ended.stderr
    assert is_empty or "batch-1" in last


def test_show_config_prints_what_it_takes(tmp_path: Path) -> None:
    first = crosswatch("run", "--recipe", "itsc", "--set", "train.epochs=9", "--show-config")
    assert first.returncode == 0
    assert "epochs: 9" in first.stdout
    (tmp_path / "all.yaml").write_text(first.stdout)
    again = crosswatch("run", "--config", tmp_path / "all.yaml", "--show-config")
    assert again.stdout == first.stdout


def test_help_needs_no_heavy_import() -> None:
    code = "import sys; from crosswatch.cli import main\ntry: main(['--help'])\nexcept SystemExit: "
    code += "print([m for m in ('torch', 'ray', 'mlflow', 'kfp', 'cv2') if m in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )
    assert ended.stdout.strip().splitlines()[-1] == "[]"


def test_version() -> None:
    ended = crosswatch("--version")
    assert (ended.returncode, ended.stdout.split()[0]) == (0, "crosswatch")
