"""What a user can do wrong costs one line and exit code 2; nothing is written."""

import concurrent.futures
import contextlib
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from deliveries import deliver
from made import deliver_with_events, tiny_options

from crosswatch import artifacts, cli, retrain
from crosswatch.kubeflow import LocalRun
from crosswatch.tracking.registry import ModelRegistry, RegistryPlace

RUN = [sys.executable, "-m", "crosswatch"]


def crosswatch(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [*RUN, *map(str, arguments)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=120, cwd=cwd
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--recipe", "itcs"], "--recipe itcs: unknown; recipes: .*fmformer-furnace, itsc"),
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


def test_many_runs_may_try_one_workspace_at_once(tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(retrain._refuse_unwritable, [tmp_path / "workspace"] * 200))
    assert list((tmp_path / "workspace").iterdir()) == []


@pytest.mark.parametrize("is_empty", [True, False], ids=["nothing there", "still arriving"])
def test_no_batches_is_a_mistake_that_names_what_is_there(tmp_path: Path, is_empty: bool) -> None:
    arrivals = tmp_path / "arrivals"
    arrivals.mkdir()
    if not is_empty:
        (deliver(arrivals) / "SHA256SUMS").unlink()
    workspace = tmp_path / "workspace"
    ended = crosswatch("run", "--batches", arrivals, "--workspace", workspace, "--json")
    assert ended.returncode == 2, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("crosswatch run: claim: ")
    facts = json.loads(ended.stdout.splitlines()[-1])
    assert facts["outcome"] == "mistake"
    assert last == f"crosswatch run: {facts['message']}"
    assert Path(facts["log"]).is_file()
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


def test_no_arguments_is_the_whole_help(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for arguments in ([], ["--help"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[0].count("\n") > 20


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with one model of one version, which is champion."""
    place = RegistryPlace(folder=tmp_path_factory.mktemp("registry") / "workspace")
    models = ModelRegistry(place)
    models.client.create_registered_model("furnace")
    models.client.create_model_version("furnace", source=place.folder.as_uri())
    models.move("furnace", "1", "Production", action="promoted")
    return place.folder


def test_a_champion_that_leaves_production_leaves_none(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def promote(*arguments: str) -> list[str]:
        call = ["promote", "furnace", "--version", "1", "--workspace", str(workspace)]
        with pytest.raises(SystemExit) as ended:
            cli.main([*call, *arguments])
        assert ended.value.code == 0
        return capsys.readouterr().out.splitlines()

    gone = ["furnace version 1 is in Archived", "furnace has no champion now"]
    assert promote("--to", "Archived") == gone
    back = ["furnace version 1 is in Production, champion"]
    assert promote("--to", "Production", "--override", "it was good") == back


def test_the_history_of_an_unknown_model_names_the_known_ones(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, code in (("furnace", 0), ("furnaces", 2)):
        with pytest.raises(SystemExit) as ended:
            cli.main(["history", name, "--workspace", str(workspace)])
        assert ended.value.code == code
    told = capsys.readouterr()
    assert "version 1" in told.out
    assert "furnaces: nothing is recorded of such a model; recorded here: furnace" in told.err


def test_a_stopped_run_leaves_no_process_behind(tmp_path: Path) -> None:
    deliver_with_events(tmp_path / "arrivals")
    command = [*RUN, "run", "--batches", str(tmp_path / "arrivals")]
    command += ["--workspace", str(tmp_path / "workspace"), *tiny_options()]
    command += ["--set", "train.epochs=100000"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    told = iter(run.stderr.readline, "")
    assert any(line.startswith("refine ") for line in told), "ended before it trained"
    children = psutil.Process(run.pid).children(recursive=True)
    try:
        assert len(children) >= 2  # the driver and the task that trains
        run.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(children, timeout=20)
        assert [child for child in left if child.status() != psutil.STATUS_ZOMBIE] == []
        assert run.wait(timeout=20) == 130
        assert "stopped" in run.stderr.read()
    finally:
        for process in (*children, run):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.mark.parametrize(
    ("claimed", "outcome", "batches"),
    [
        ("already done: batch-1, batch-2, batch-3", "already done", ["batch-1", "batch-2"]),
        ("batch-1: in the hands of run r (process 3 on h)", "busy", ["batch-1"]),
    ],
)
def test_nothing_to_do_is_one_word_and_keeps_what_is_quarantined(
    tmp_path: Path, claimed: str, outcome: str, batches: list[str]
) -> None:
    run = LocalRun(log=tmp_path / "log", outcomes={"claim": claimed})
    run.note({"event": "quarantined", "batch": "batch-3", "reason": "video.mp4 is empty"})
    run.note({"event": "idle", "outcome": outcome, "batches": batches})
    closing = retrain._closing(run, tmp_path, "fmformer-furnace")
    assert (closing.facts["outcome"], closing.facts["message"]) == (outcome, claimed)
    assert closing.facts["batches"] == batches
    assert closing.facts["quarantined"] == {"batch-3": "video.mp4 is empty"}
    assert ("quarantined", "batch-3: video.mp4 is empty") in closing.lines


def test_a_run_that_was_killed_ends_with_its_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = LocalRun(log=tmp_path / "log", returncode=1, unfinished=["train"])
    assert retrain._say_what_failed(run, as_json=True) == 1
    assert json.loads(capsys.readouterr().out) == {
        "outcome": "failed",
        "message": "train ended without a word (killed?)",
        "log": str(tmp_path / "log"),
    }


def test_the_command_for_mlflow_names_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = "sqlite:////some where/mlflow.db"
    assert retrain._interface(uri) == f"mlflow ui --backend-store-uri '{uri}'"
    assert retrain._interface("http://mlflow:5000") == "http://mlflow:5000"
    for name, offered in (("workspace", True), ("elsewhere", False)):
        assert any("make ui" in text for _, text in retrain._next(Path(name), "itsc")) == offered


def test_an_undefined_number_is_printed_as_such() -> None:
    assert [retrain._number(value) for value in (None, 0.5)] == ["undefined", "0.5000"]


def test_what_nobody_foresaw_costs_a_traceback_and_exit_code_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the unforeseen")

    monkeypatch.setattr("crosswatch.stages.run", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main(["ingest", "--arrivals", str(tmp_path), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert "Traceback" in said
    assert "RuntimeError: the unforeseen" in said


def test_a_stage_command_quarantines_a_bad_batch_and_ends_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deliver_with_events(tmp_path / "arrivals", name="good")
    bad = deliver(tmp_path / "arrivals", name="bad")
    (bad / "signal.csv").write_text("changed behind the checksum")
    paths = ["--arrivals", str(tmp_path / "arrivals"), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        cli.main(["ingest", *paths, *tiny_options()])
    assert ended.value.code == 0
    manifest = artifacts.open_artifact(tmp_path / "out")
    assert "signal.csv: checksum mismatch" in manifest.quarantined["bad"]
    assert "bad quarantined: signal.csv" in capsys.readouterr().err
