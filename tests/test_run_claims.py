"""A run keeps its claims while it works, stops where it lost one, and a person can end them."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from deliveries import deliver

from crosswatch import config, experiment
from crosswatch.data.ledger.ledger import Ledger
from crosswatch.errors import ResourceError, UserError
from crosswatch.ledger_commands import ledger as ledger_command
from crosswatch.stages import control
from crosswatch.stages.claims import RunClaims, open_claims, open_ledger

KEYS = {"batch-1": "1" * 64, "batch-2": "2" * 64}


@pytest.fixture(params=["", "bucket"], ids=["workspace", "bucket"])
def store(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("bucket")) if request.param else ""


@pytest.fixture
def workspace(tmp_path: Path) -> str:
    return str(tmp_path / "workspace")


def won(workspace: str, store: str, run: str = "r-1", keys: dict[str, str] = KEYS) -> RunClaims:
    claims = open_claims(workspace, run, store)
    claims.take(keys, owner_pid=os.getpid(), again=False)
    return claims


def states(ledger: Ledger) -> dict[str, str]:
    return {entry.subject: entry.state for entry in ledger.list()}


def test_what_a_run_won_its_later_tasks_find_and_close(workspace: str, store: str) -> None:
    won(workspace, store)
    later = open_claims(workspace, "r-1", store)
    assert [claim.subject for claim in later.noted()] == ["batch-1", "batch-2"]
    with later.kept():
        later.confirm()
    later.note_quarantined({"batch-2": "video.mp4 is empty"})
    assert later.close("SUCCEEDED") == ()
    assert states(later.ledger) == {"batch-1": "done", "batch-2": "quarantined"}
    assert later.ledger.entry(KEYS["batch-2"]).reason == "video.mp4 is empty"
    assert won(workspace, store, "r-2").noted() == ()


def test_a_run_that_failed_frees_its_batches(workspace: str, store: str) -> None:
    assert won(workspace, store).close("FAILED") == ()
    assert len(won(workspace, store, "r-2").noted()) == 2


def test_a_run_without_claims_has_nothing_to_keep(workspace: str, store: str) -> None:
    claims = open_claims(workspace, "r-0", store)
    with claims.kept():
        claims.confirm()
    assert claims.close("SUCCEEDED") == ()


def test_a_run_that_was_taken_over_stops_and_closes_nothing(workspace: str, store: str) -> None:
    first = won(workspace, store)
    ledger = Ledger(first.ledger.objects, clock=lambda: first.ledger.now() + 7201)
    taken = ledger.claim(KEYS["batch-1"], run="r-2", owner_pid=None, subject="batch-1")
    with pytest.raises(
        UserError,
        match=r"^batch-1: taken over by run r-2 \(.+\)\. This run stops here; nothing was reg",
    ):
        first.confirm()
    assert [claim.subject for claim in first.close("FAILED")] == ["batch-1"]
    assert states(ledger) == {"batch-1": "claimed", "batch-2": "failed"}
    assert ledger.finish(taken)


def test_a_run_whose_claim_a_person_released_says_why(workspace: str, store: str) -> None:
    claims = won(workspace, store)
    claims.ledger.release("batch-2", reason="wrong camera")
    with pytest.raises(UserError, match=r"^batch-2: released by hand \(wrong camera\)\. This run"):
        claims.confirm()
    claims.ledger.objects.delete(f"claims/{KEYS['batch-1']}.json")
    with pytest.raises(UserError, match=r"^batch-1: somebody removed the record of its claim"):
        claims.confirm()


class Flaky:
    """Objects that fail on one key."""

    def __init__(self, objects: Any, key: str) -> None:
        self._objects, self._key = objects, key

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objects, name)

    def get(self, key: str) -> Any:
        if self._key in key:
            raise ResourceError("the network is gone")
        return self._objects.get(key)


def flaky(claims: RunClaims, key: str) -> RunClaims:
    objects = Flaky(claims.ledger.objects, key)
    return RunClaims(run=claims.run, ledger=Ledger(objects), note=claims.note)


def test_what_was_won_before_the_store_failed_is_noted(workspace: str, store: str) -> None:
    claims = open_claims(workspace, "r-1", store)
    with pytest.raises(ResourceError):
        flaky(claims, KEYS["batch-2"]).take(KEYS, owner_pid=None, again=False)
    assert [claim.subject for claim in claims.noted()] == ["batch-1"]
    claims.close("FAILED")
    assert states(claims.ledger) == {"batch-1": "failed"}


def test_a_store_that_fails_on_one_claim_does_not_keep_the_others(
    workspace: str, store: str
) -> None:
    claims = won(workspace, store)
    with pytest.raises(ResourceError):
        flaky(claims, KEYS["batch-1"]).close("SUCCEEDED")
    assert states(claims.ledger) == {"batch-1": "claimed", "batch-2": "done"}
    assert claims.close("SUCCEEDED") == ()
    assert states(claims.ledger) == {"batch-1": "done", "batch-2": "done"}


@pytest.fixture(scope="module")
def arrivals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plant") / "arrivals"
    deliver(folder)
    return folder


def claim(arrivals: Path, workspace: str, run: str, *assignments: str, store: str = "") -> str:
    recipe = experiment.DEFAULT_RECIPE
    resolved = experiment.resolve(recipe, experiment.over(None, assignments))
    return control.claim(
        settings=config.to_json(resolved), recipe=recipe, batches=str(arrivals),
        workspace=workspace, run_id=run, store=store, data_revision="", again=False,
    )  # fmt: skip


def test_how_data_travel_and_claims_are_kept_changes_no_claim(
    arrivals: Path, workspace: str, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(control.OWNER_PID, str(os.getpid()))
    assert claim(arrivals, workspace, "r-1", store=store) == "proceed"
    other = ("ledger.lease_s=60", "transfer.concurrency=2")
    assert claim(arrivals, workspace, "r-2", *other, store=store) == control.BUSY
    assert claim(arrivals, workspace, "r-3", "train.seed=77", store=store) == "proceed"
    control.summary(workspace=workspace, run_id="r-1", state="SUCCEEDED", store=store)
    assert claim(arrivals, workspace, "r-4", *other, store=store) == control.ALREADY_DONE


def test_the_lease_is_the_configured_one(arrivals: Path, workspace: str) -> None:
    assert claim(arrivals, workspace, "r-1", "ledger.lease_s=600") == "proceed"
    (entry,) = open_ledger(workspace, "", {}).list()
    assert entry.lease_until == entry.claimed_at + 600


def test_a_stage_of_a_run_that_was_taken_over_writes_nothing(
    workspace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    won(workspace, "").ledger.release("batch-1", reason="wrong camera")
    out = tmp_path / "arrivals"
    with pytest.raises(SystemExit) as ended:
        control.run_stage(
            "simulate", "{}", workspace=workspace, run_id="r-1", store="", out=str(out)
        )
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "crosswatch simulate: batch-1: released by hand (wrong camera). This run stops here; "
        "nothing was registered."
    ]
    assert not out.exists()


class Called:
    """The command, called as a terminal calls it."""

    def __init__(self, workspace: str, store: str) -> None:
        place = ["--store", store] if store else ["--workspace", workspace]
        self._place = place

    def __call__(self, *arguments: str) -> list[str]:
        ended = CliRunner().invoke(
            ledger_command, [*arguments, *self._place], standalone_mode=False
        )
        if ended.exception is not None:
            raise ended.exception
        return ended.stdout.splitlines()


@pytest.fixture
def called(workspace: str, store: str) -> Iterator[Called]:
    first = won(workspace, store)
    first.note_quarantined({"batch-2": "video.mp4 is empty"})
    first.close("SUCCEEDED")
    won(workspace, store, "r-2", {"batch-3": "3" * 64, "batch\x1b[31m\n4": "4" * 64})
    open_ledger(workspace, store, {}).claim("5" * 64, run="r-3", owner_pid=2**22 + 1, subject="b5")
    return Called(workspace, store)


def test_the_list_is_a_table_of_one_line_a_claim(called: Called) -> None:
    head, *lines = called("list")
    assert head.split() == ["batch", "state", "gen", "run", "owner", "claimed", "lease", "claim"]
    assert len(lines) == 5
    seen = {re.split("  +", line)[0]: re.split("  +", line) for line in lines}
    assert [cells[1] for cells in seen.values()] == [
        "abandoned", "claimed", "done", "quarantined", "claimed",
    ]  # fmt: skip
    assert seen["batch?[31m?4"][3] == "r-2"
    assert seen["batch-3"][6] in ("1 h", "2 h")
    assert seen["batch-3"][4].startswith(f"process {os.getpid()} on ")
    assert seen["b5"][7] == "5" * 12


def test_the_list_ends_with_one_json_object_if_asked(called: Called) -> None:
    facts = json.loads(called("list", "--json")[-1])
    found = {entry["subject"]: entry for entry in facts["claims"]}
    assert {name: entry["held"] for name, entry in found.items()} == {
        "b5": False, "batch-1": False, "batch-2": False, "batch-3": True, "batch\x1b[31m\n4": True,
    }  # fmt: skip
    assert found["batch-2"]["reason"] == "video.mp4 is empty"
    assert found["batch-3"]["lease_left_s"] <= 7200
    assert {"age_s", "generation", "run", "owner", "state", "key"} <= found["batch-1"].keys()
    assert found["batch-1"]["ended_ago_s"] >= 0


def test_release_says_what_it_ended_and_the_next_run_takes_it(
    called: Called, workspace: str, store: str
) -> None:
    (line,) = called("release", "batch-3", "--reason", "the node is gone")
    assert line.startswith("batch-3: released (was generation 1, run r-2, process ")
    assert line.endswith("; the next run takes it")
    _, last = called("release", "batch-1", "--done", "--reason", "wrong camera", "--json")
    released = json.loads(last)["released"]
    assert (released["state"], released["reason"]) == ("released", "wrong camera")
    again = won(workspace, store, "r-9", {"batch-1": KEYS["batch-1"], "batch-3": "3" * 64})
    assert [claim.generation for claim in again.noted()] == [2, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["release", "batch-1", "--reason", "x"], "is done by run 'r-1'. .* with --done"),
        (["release", "batch-2", "--reason", "x"], "is quarantined by run 'r-1'. .* with --done"),
        (["release", "batch", "--reason", "x"], "fits 2 claims in"),
        (["release", "nothing", "--reason", "x"], "no claim or batch of this name"),
        (["release", "batch-3"], "Missing option '--reason'"),
        (["list", "--sotre", "x"], "No such option"),
    ],
)
@pytest.mark.parametrize("store", [""], indirect=True)
def test_a_mistake_is_one_line(called: Called, arguments: list[str], message: str) -> None:
    with pytest.raises((UserError, click.UsageError)) as error:
        called(*arguments)
    is_usage = isinstance(error.value, click.UsageError)
    line = error.value.format_message() if is_usage else str(error.value)
    assert re.search(message, line)
    assert "\n" not in line


def test_a_workspace_without_claims_is_named(workspace: str) -> None:
    with pytest.raises(UserError, match=f"^--workspace {workspace}: holds no claims. Name another"):
        Called(workspace, "")("list")


def test_an_empty_store_says_so(tmp_path: Path) -> None:
    place = str(tmp_path / "store")
    text, last = Called("", place)("list", "--json")
    assert text == f"nothing was ever claimed in {place}"
    assert json.loads(last)["claims"] == []
