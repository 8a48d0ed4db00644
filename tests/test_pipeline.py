"""The main job through the real command: promoted, already done, quarantine, killed, rolled back.

Tests of one workspace run in their order and build on each other, as a plant's days do.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from deliveries import deliver, seal
from made import deliver_with_events
from plants import MODEL, Plant, facts

from crosswatch.data.ledger.ledger import Ledger
from crosswatch.data.store.opening import open_objects
from crosswatch.data.store.settings import TransferConfig
from crosswatch.tracking.history import History


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    plant = Plant(tmp_path_factory.mktemp("plant"))
    deliver_with_events(plant.arrivals)
    return plant


def test_killed_in_ingest_the_run_says_where_to_look_and_leaves_nothing_half_written(
    plant: Plant,
) -> None:
    ended = plant.run(die_in="crosswatch.data.ingestion:write_batch")
    assert ended.returncode == 1
    assert "crosswatch run: ingest ended without a word (killed?)" in ended.stderr
    log = next(line for line in ended.stderr.splitlines() if line.startswith("Log: "))
    assert "Executing task" in Path(log.removeprefix("Log: ")).read_text()
    assert not (plant.workspace / "mlflow.db").exists()


def test_the_next_run_completes_and_promotes_the_first_version(plant: Plant) -> None:
    ended = plant.run()
    assert ended.returncode == 0, ended.stderr
    found = facts(ended)
    assert (found["outcome"], found["model"], found["version"]) == ("promoted", MODEL, "1")
    assert set(found["metrics"]) == {
        "accuracy", "f1", "fdr", "mdr", "auc", "ap", "balanced_accuracy", "miou", "frame_accuracy",
        "eer", "accuracy_video", "accuracy_signal", "accuracy_pixels",
        "false_alarms_per_hour", "detection_delay_s", "detected_share",
    }  # fmt: skip
    assert found["intervals"]["accuracy"]["low"] <= found["metrics"]["accuracy"]
    assert found["evaluation_set"]["version"] == 1
    for name in ("plots", "checkpoint", "pipeline", "log"):
        assert Path(found["paths"][name]).exists()
    plots = {path.name for path in Path(found["paths"]["plots"]).glob("*.png")}
    assert plots == {"confusion.png", "curves.png", "scores.png"}
    assert not plant.half_written()


def test_the_version_carries_its_lineage_and_loads_through_mlflow(plant: Plant) -> None:
    import numpy as np

    version = plant.registry.champion(MODEL)
    assert version.current_stage == "Production"
    expected = {
        "kfp_run_id", "mlflow_run_id", "code_version", "checkpoint_digest", "batch_set_digest",
        "labels_digest", "evaluation_set_version", "evaluation_set_digest", "verdict", "gate",
        "arrival.batch-1",
    }  # fmt: skip
    assert expected <= set(version.tags)
    import mlflow

    model = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
    video = np.zeros((2, 4, 32, 32, 3), np.uint8)
    chance = model.predict({"video": video, "signal": np.full((2, 12, 3), 9e3, np.float32)})
    np.testing.assert_allclose(chance.sum(1), 1, atol=1e-5)
    run = plant.registry.client.get_run(version.tags["mlflow_run_id"])
    assert run.data.params["train.epochs"] == "2"
    history = plant.registry.client.get_metric_history(run.info.run_id, "train_loss")
    assert [entry.step for entry in history] == [1, 2]


def test_the_same_trigger_again_is_already_done(plant: Plant) -> None:
    ended = plant.run()
    assert ended.returncode == 0
    assert facts(ended)["outcome"] == "already done"
    assert facts(ended)["batches"] == ["batch-1"]
    assert "ingest" not in facts(ended)["seconds"]
    assert len(plant.registry.client.search_model_versions(f"name = '{MODEL}'")) == 1


def test_a_run_in_other_hands_is_left_alone(plant: Plant) -> None:
    option = ("--set", "train.seed=77")
    ended = plant.run(*option, die_in="crosswatch.stages.control:run_stage")
    assert ended.returncode == 1
    ledger = Ledger(open_objects(plant.workspace, TransferConfig()))
    (failed,) = [entry for entry in ledger.list() if entry.state == "failed"]
    mine = ledger.claim(failed.key, run="somebody", owner_pid=os.getpid(), subject="batch-1")
    assert mine is not None
    ended = plant.run(*option)
    assert ended.returncode == 0
    assert facts(ended)["outcome"] == "busy"
    assert facts(ended)["message"].startswith("batch-1: in the hands of run somebody")
    assert ledger.fail(mine)


def test_bad_deliveries_are_quarantined_and_the_good_one_retrains(plant: Plant) -> None:
    deliver_with_events(plant.arrivals, "batch-2", seed=3)
    truncated = deliver(plant.arrivals, name="batch-3")
    seal(truncated, lambda at: (at / "video.mp4").write_bytes(b"") and None)
    changed = deliver(plant.arrivals, name="batch-4")
    with (changed / "signal.csv").open("a") as stream:
        stream.write("999,1,1,1\n")
    (deliver(plant.arrivals, name="batch-5") / "SHA256SUMS").unlink()
    before = {path: path.read_bytes() for path in plant.arrivals.rglob("*") if path.is_file()}
    ended = plant.run("--set", "train.seed=2")
    assert ended.returncode == 3, ended.stderr
    found = facts(ended)
    assert set(found["quarantined"]) == {"batch-3", "batch-4"}
    assert "video.mp4" in found["quarantined"]["batch-3"]
    assert "signal.csv" in found["quarantined"]["batch-4"]
    assert any("batch-5: not arrived yet" in text for text in found["warnings"])
    assert found["batches"] == ["batch-1", "batch-2"]
    assert found["evaluation_set"]["version"] == 2
    verdict = found["verdict"]
    assert verdict["evaluation_set"] == "2"
    assert verdict["difference"]["low"] <= verdict["candidate"] - verdict["champion"]
    assert found["outcome"] == ("promoted" if verdict["promote"] else "refused")
    after = {path: path.read_bytes() for path in plant.arrivals.rglob("*") if path.is_file()}
    assert after == before


def test_triggered_again_the_quarantined_deliveries_are_still_named(plant: Plant) -> None:
    ended = plant.run("--set", "train.seed=2")
    assert ended.returncode == 3
    found = facts(ended)
    assert (found["outcome"], set(found["quarantined"])) == ("already done", {"batch-3", "batch-4"})


def test_only_bad_deliveries_are_a_mistake(tmp_path: Path) -> None:
    plant = Plant(tmp_path / "bad")
    changed = deliver(plant.arrivals, name="batch-1")
    (changed / "signal.csv").unlink()
    ended = plant.run()
    assert ended.returncode == 2, ended.stderr
    assert "no batch is left" in ended.stderr.splitlines()[-1]
    assert "signal.csv" in ended.stderr.splitlines()[-1]
    assert not plant.half_written()


def test_killed_in_train_the_next_run_goes_on_behind_the_last_epoch(plant: Plant) -> None:
    option = ("--set", "train.seed=3")
    ended = plant.run(*option, die_in="crosswatch.stages.train:_write")
    assert ended.returncode == 1
    assert "train ended without a word" in ended.stderr
    versions = len(plant.registry.client.search_model_versions(f"name = '{MODEL}'"))
    ended = plant.run(*option)
    assert ended.returncode == 3, ended.stderr
    assert "resumed behind epoch 2" in ended.stderr
    found = plant.registry.client.search_model_versions(f"name = '{MODEL}'")
    assert len(found) == versions + 1


def test_promotion_and_rollback_by_hand(plant: Plant) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, "-m", "crosswatch", *arguments]
        call += ["--workspace", str(plant.workspace)]
        return subprocess.run(call, check=False, capture_output=True, text=True, timeout=120)

    before = str(plant.registry.champion(MODEL).version)
    newest = str(len(plant.registry.client.search_model_versions(f"name = '{MODEL}'")))
    reason = "the shift leader wants it"
    if before == newest:
        newest = "1"
    ended = command(
        "promote", MODEL, "--version", newest, "--to", "Production", "--override", reason
    )
    assert ended.returncode == 0, ended.stderr
    assert str(plant.registry.champion(MODEL).version) == newest
    ended = command("rollback", MODEL)
    assert ended.returncode == 0, ended.stderr
    assert f"version {before} is champion again" in ended.stdout
    assert plant.registry.champion(MODEL).current_stage == "Production"
    assert reason in command("history", MODEL).stdout
    history = History(folder=plant.workspace / "history").entries(MODEL)
    assert history[0]["action"] == "promote"
    assert history[-1]["action"] == "rollback"
