"""The control tasks of a pipeline: validate, claim, summary; and how a task calls a stage."""

import dataclasses
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from crosswatch import artifacts, config, progress, stages
from crosswatch.data.adapters import open_adapter
from crosswatch.data.ingestion import IngestConfig
from crosswatch.data.ledger import Claim, Ledger
from crosswatch.errors import UserError

OWNER_PID = "CROSSWATCH_OWNER_PID"
QUARANTINED = "quarantined.json"
ALREADY_DONE, BUSY = "already done", "busy"  # why a claim won nothing

Result = TypeVar("Result")


def run_stage(
    name: str,
    settings: str,
    *,
    lineage: Mapping[str, str] | None = None,
    run_folder: str | None = None,
    **paths: str,
) -> None:
    """The body of a stage's component: `settings` is the resolved configuration as JSON.

    What the stage quarantined is noted in `run_folder`, for the summary.
    """
    values = json.loads(settings)
    values["lineage"] = {**values.get("lineage", {}), **(lineage or {})}
    folders = {role: Path(path) for role, path in paths.items()}

    def work() -> None:
        stages.run(name, values=values, paths=folders)
        progress.emit("artifact", stage=name, path=str(folders["out"].resolve()))
        quarantined = artifacts.open_artifact(folders["out"], verify=False).quarantined
        if run_folder is not None:
            artifacts.replace_json(Path(run_folder) / QUARANTINED, dict(quarantined))

    _as_task(name, work)


def validate(*, recipe: str, overrides: str) -> str:
    """Resolve the configuration, print it, and return it as JSON."""
    from crosswatch import experiment

    def work() -> str:
        resolved = experiment.resolve(recipe, config.parse_yaml(overrides, where="overrides"))
        sys.stdout.write(config.to_yaml(resolved))
        progress.outcome(f"recipe {recipe}")
        return config.to_json(resolved)

    return _as_task("validate", work, framed=True)


def claim(
    *, settings: str, recipe: str, batches: str, workspace: str, run_id: str, again: bool
) -> str:
    """Claim the batches that have arrived: "proceed" if any was won, else why not."""

    def work() -> str:
        values = json.loads(settings)
        values.pop("lineage", None)
        basis = [recipe, values, artifacts.code_version()]
        ingest = config.build(IngestConfig, values["ingest"], where="ingest")
        found = open_adapter(ingest).find(Path(batches))
        if not found.arrivals:
            waiting = ", ".join(found.not_arrived) or "nothing"
            raise UserError(f"{batches}: no batch has arrived; found without SHA256SUMS: {waiting}")
        ledger = Ledger(folder=Path(workspace) / "claims")
        owner = int(os.environ[OWNER_PID]) if OWNER_PID in os.environ else None
        keys = {item.id: artifacts.digest_of([item.digest, basis]) for item in found.arrivals}
        claims = [
            ledger.claim(key, run=run_id, owner_pid=owner, subject=subject, again=again)
            for subject, key in keys.items()
        ]
        won = [dataclasses.asdict(item) for item in claims if item is not None]
        artifacts.replace_json(_claims_file(Path(workspace), run_id), won)
        return _decide(ledger, keys, len(won))

    return _as_task("claim", work, framed=True)


def summary(*, workspace: str, run_id: str, state: str) -> None:
    """Close the run's claims, whatever happened, and say how the run ended."""

    def work() -> None:
        path = _claims_file(Path(workspace), run_id)
        won = [Claim(**entry) for entry in artifacts.read_json(path)] if path.exists() else []
        noted = path.with_name(QUARANTINED)
        quarantined = artifacts.read_json(noted) if noted.exists() else {}
        ledger = Ledger(folder=Path(workspace) / "claims")
        ended = "done" if state == "SUCCEEDED" else "failed"
        for item in won:
            if ended == "failed":
                ledger.close(item, "failed")
            elif item.subject in quarantined:
                ledger.close(item, "quarantined", reason=quarantined[item.subject])
            else:
                ledger.close(item, "done")
        artifacts.replace_json(
            path.with_name("summary.json"), {"run": run_id, "state": state, "claims": len(won)}
        )
        progress.outcome(f"{len(won)} claims {ended}" if won else "nothing was claimed")

    _as_task("summary", work, framed=True)


def _decide(ledger: Ledger, keys: Mapping[str, str], won: int) -> str:
    for subject, key in keys.items():
        if ledger.state(key) == "quarantined":
            progress.emit("quarantined", batch=subject, reason=ledger.entry(key)["reason"])
    if won:
        progress.outcome(f"{won} of {len(keys)} batches to work on")
        return "proceed"
    states = {subject: ledger.state(key) for subject, key in keys.items()}
    busy = [subject for subject, state in states.items() if state == "claimed"]
    if busy:
        entry = ledger.entry(keys[busy[0]])
        progress.outcome(f"{', '.join(busy)}: in the hands of run {entry['run']} "
                         f"(process {entry['pid']} on {entry['host']})")  # fmt: skip
        progress.emit("idle", outcome=BUSY, batches=busy)
        return BUSY
    progress.outcome(f"{ALREADY_DONE}: {', '.join(keys)}")
    done = [subject for subject, state in states.items() if state == "done"]
    progress.emit("idle", outcome=ALREADY_DONE, batches=done)
    return ALREADY_DONE


def _claims_file(workspace: Path, run_id: str) -> Path:
    assert run_id
    assert "/" not in run_id
    return workspace / "runs" / run_id / "claims.json"


def _as_task(name: str, work: Callable[[], Result], *, framed: bool = False) -> Result:
    """Do a task's work; a user's mistake ends it with one line and exit code 2."""
    try:
        if not framed:
            return work()
        with progress.stage(name):
            return work()
    except UserError as error:
        progress.emit("failed", stage=name, code=progress.MISTAKE, message=str(error))
        sys.stderr.write(f"crosswatch {name}: {error}\n")
        sys.exit(progress.MISTAKE)
    except Exception as error:
        last = traceback.format_exception_only(error)[-1].strip()
        progress.emit("failed", stage=name, code=progress.FAILURE, message=last)
        raise
