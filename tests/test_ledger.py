"""A delivery is worked on once, by one run at a time."""

import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from crosswatch.data import ledger as ledger_module
from crosswatch.data.ledger import Claim, Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(folder=tmp_path / "claims")


def take(ledger: Ledger, run: str = "r", **options) -> Claim | None:
    options = {"owner_pid": os.getpid(), "subject": "batch-1"} | options
    return ledger.claim("key", run=run, **options)


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(timeout=30)
    return process.pid


def race(folder: Path, number: int) -> bool:
    ledger = Ledger(folder=folder)
    return ledger.claim("key", run=f"r{number}", owner_pid=None, subject="batch-1") is not None


def test_of_many_that_race_one_wins(ledger: Ledger) -> None:
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(8, mp_context=context) as pool:
        won = list(pool.map(race, [ledger.folder] * 16, range(16)))
    assert sum(won) == 1
    assert ledger.state("key") == "claimed"


def test_a_live_claim_is_left_alone_and_a_done_one_stays_done(ledger: Ledger) -> None:
    claim = take(ledger)
    assert claim is not None
    assert take(ledger, "other") is None
    assert ledger.close(claim, "done")
    assert ledger.state("key") == "done"
    assert take(ledger, "other") is None
    assert take(ledger, "other", again=True).generation == 2


def test_again_does_not_take_work_from_a_live_run(ledger: Ledger) -> None:
    assert take(ledger) is not None
    assert take(ledger, "other", again=True) is None


def test_a_failed_claim_is_free_and_its_successor_is_the_only_one_to_close_it(
    ledger: Ledger,
) -> None:
    first = take(ledger)
    assert ledger.close(first, "failed")
    second = take(ledger, "second")
    assert second.generation == 2
    assert not ledger.close(first, "done")
    assert ledger.close(second, "done")
    assert not ledger.close(second, "failed")
    assert ledger.state("key") == "done"


def test_a_claim_whose_process_is_gone_is_taken_over_at_once(ledger: Ledger) -> None:
    assert take(ledger, owner_pid=dead_pid()) is not None
    assert take(ledger, "second").generation == 2


def test_a_clock_that_is_set_does_not_free_a_live_claim(ledger: Ledger, monkeypatch) -> None:
    assert take(ledger) is not None
    begun = ledger_module._started(os.getpid())
    monkeypatch.setattr(ledger_module, "_started", lambda pid: begun + 5.0)
    assert take(ledger, "second") is None
    monkeypatch.setattr(ledger_module, "_started", lambda pid: begun + 500.0)  # its number, reused
    assert take(ledger, "second").generation == 2


def test_a_claim_without_a_process_holds_until_its_lease_ends(ledger: Ledger, monkeypatch) -> None:
    assert take(ledger, owner_pid=None) is not None
    assert take(ledger, "second") is None
    now = ledger_module.time.time()
    monkeypatch.setattr(ledger_module.time, "time", lambda: now + ledger_module.LEASE_S + 1)
    assert take(ledger, "second").generation == 2


def test_the_entry_says_who_has_it(ledger: Ledger) -> None:
    take(ledger, "run-7")
    entry = ledger.entry("key")
    assert (entry["run"], entry["pid"], entry["subject"]) == ("run-7", os.getpid(), "batch-1")
    assert ledger.state("other") is None
