"""The control tasks of a pipeline: validate, claim, summary; and how a task calls a stage."""

import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from crosswatch import artifacts, config, progress, stages
from crosswatch.data.deliveries import open_deliveries, refuse_nothing
from crosswatch.data.ingestion import IngestConfig
from crosswatch.data.ledger.ledger import Ledger
from crosswatch.data.library import DELIVERIES
from crosswatch.data.store.place import Place, parse_place
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.versions.revision import read_revision
from crosswatch.errors import ResourceError, UserError, explained
from crosswatch.stages import travel
from crosswatch.stages.claims import open_claims

OWNER_PID = "CROSSWATCH_OWNER_PID"
NOT_IN_RESULT = ("lineage", "transfer", "ledger")  # sections that change no result
ALREADY_DONE, BUSY = "already done", "busy"  # why a claim won nothing

Result = TypeVar("Result")


def run_stage(
    name: str,
    settings: str,
    *,
    workspace: str,
    run_id: str,
    store: str,
    lineage: Mapping[str, str] | None = None,
    **places: str,
) -> None:
    """The body of a stage's component: `settings` is the resolved configuration as JSON.

    What the stage quarantined is noted in the run's folder, for the summary. With a store, what it
    reads is brought from there and what it writes is sent there.
    """
    values = json.loads(settings)
    transfer = _transfer(values)
    cache = Path(workspace) / "cache"

    def work() -> None:
        claims = open_claims(workspace, run_id, store, values)
        values["lineage"] = {**values.get("lineage", {}), **_told(lineage or {}, store)}
        given = _given(name, places, store)
        out = Path(places["out"]).resolve()
        with claims.kept():
            for role, place in given.items():
                if isinstance(place, Path):
                    given[role] = travel.bring(place, cache=cache, transfer=transfer)
            claims.confirm()
            stages.call(name, values=values, paths=given)
            if store:
                out = travel.send(out, store, cache=cache, transfer=transfer)
        progress.emit("artifact", stage=name, path=str(out))
        claims.note_quarantined(artifacts.open_artifact(out, verify=False).quarantined)

    _as_task(name, work)


def validate(*, recipe: str, overrides: str) -> str:
    """Resolve the configuration, print it, and return it as JSON.

    Weights that some later stage would not find are told now, all at once.
    """
    from crosswatch import experiment
    from crosswatch.needs import refuse_missing

    def work() -> str:
        resolved = experiment.resolve(recipe, config.parse_yaml(overrides, where="overrides"))
        sys.stdout.write(config.to_yaml(resolved))
        refuse_missing(resolved)
        progress.outcome(f"recipe {recipe}")
        return config.to_json(resolved)

    return _as_task("validate", work)


def claim(
    *,
    settings: str,
    recipe: str,
    batches: str,
    workspace: str,
    run_id: str,
    store: str,
    data_revision: str,
    again: bool,
) -> str:
    """Claim the batches that have arrived: "proceed" if any was won, else why not."""

    def work() -> str:
        values = json.loads(settings)
        result = {key: value for key, value in values.items() if key not in NOT_IN_RESULT}
        basis = [recipe, result, artifacts.code_version()]
        ingest = config.build(IngestConfig, values["ingest"], where="ingest")
        deliveries = open_deliveries(
            parse_place(batches) if batches else None,
            _revision(data_revision, store) if data_revision else None,
            ingest=ingest,
            fetched=Path(workspace) / "batches" / DELIVERIES,
            transfer=_transfer(values),
        )
        found = deliveries.find()
        refuse_nothing(found, deliveries.name)
        claims = open_claims(workspace, run_id, store, values)
        owner = int(os.environ[OWNER_PID]) if OWNER_PID in os.environ else None
        keys = {item.id: artifacts.digest_of([item.digest, basis]) for item in found.arrivals}
        won = claims.take(keys, owner_pid=owner, again=again)
        return _decide(claims.ledger, keys, len(won))

    return _as_task("claim", work)


def summary(*, workspace: str, run_id: str, store: str, state: str) -> None:
    """Close the run's claims, whatever happened, and say how the run ended."""

    def work() -> None:
        claims = open_claims(workspace, run_id, store)
        won = claims.noted()
        lost = claims.close(state)
        artifacts.replace_json(
            claims.note.with_name("summary.json"),
            {"run": run_id, "state": state, "claims": len(won), "lost": len(lost)},
        )
        ended = "done" if state == "SUCCEEDED" else "failed"
        closed = f"{len(won) - len(lost)} claims {ended}" if won else "nothing was claimed"
        progress.outcome(closed + (f", {len(lost)} no longer this run's" if lost else ""))

    _as_task("summary", work)


def _decide(ledger: Ledger, keys: Mapping[str, str], won: int) -> str:
    found = {subject: ledger.entry(key) for subject, key in keys.items()}
    entries = {subject: entry for subject, entry in found.items() if entry is not None}
    for subject, entry in entries.items():
        if entry.state == "quarantined":
            progress.emit("quarantined", batch=subject, reason=entry.reason)
    if won:
        progress.outcome(f"{won} of {len(keys)} batches to work on")
        return "proceed"
    busy = [subject for subject, entry in entries.items() if not entry.is_finished]
    if busy:
        entry = entries[busy[0]]
        holder = f"run {entry.run} ({entry.owner})"
        progress.outcome(f"{', '.join(busy)}: in the hands of {holder}")
        progress.emit("idle", outcome=BUSY, batches=busy)
        return BUSY
    progress.outcome(f"{ALREADY_DONE}: {', '.join(keys)}")
    done = [subject for subject, entry in entries.items() if entry.state == "done"]
    progress.emit("idle", outcome=ALREADY_DONE, batches=done)
    return ALREADY_DONE


def _given(name: str, places: Mapping[str, str], store: str) -> dict[str, Place]:
    """A stage's places as its function takes them; an empty one was not given."""
    given = {role: parse_place(text) for role, text in places.items() if text}
    if places.get("revision"):
        given["revision"] = _revision(places["revision"], store)
    if store and "store" in stages.paths_of(name):
        given["store"] = parse_place(store)
    return given


def _told(lineage: Mapping[str, str], store: str) -> dict[str, str]:
    """What only the pipeline knows, with a data revision's name and digest for its place."""
    if not lineage.get("data_revision"):
        return dict(lineage)
    revision = read_revision(_revision(lineage["data_revision"], store))
    return {**lineage, "data_revision": f"{revision.revision}@{revision.digest}"}


def _revision(text: str, store: str) -> Place:
    """A revision may be named by its digest alone: then it lies in the store."""
    is_digest = re.fullmatch(r"[0-9a-f]{64}", text) is not None
    return parse_place(f"{store}/revisions/{text}.json" if store and is_digest else text)


def _transfer(values: Mapping[str, Any]) -> TransferConfig:
    return config.build(TransferConfig, values.get("transfer", {}), where="transfer")


def _as_task(name: str, work: Callable[[], Result]) -> Result:
    """Do a task's work; a user's mistake ends it with one line and exit code 2, a fault of the
    disk or the network with one line and 1."""
    try:
        with progress.stage(name):
            return work()
    except UserError as error:
        progress.emit("failed", stage=name, code=progress.MISTAKE, message=str(error))
        sys.stderr.write(f"crosswatch {name}: {error}\n")
        sys.exit(progress.MISTAKE)
    except (ResourceError, OSError) as error:
        line = explained(error)
        if line is None:
            raise
        progress.emit("failed", stage=name, code=progress.FAILURE, message=line)
        sys.stderr.write(f"crosswatch {name}: {line}\n")
        sys.exit(progress.FAILURE)
    except Exception as error:
        last = traceback.format_exception_only(error)[-1].strip()
        progress.emit("failed", stage=name, code=progress.FAILURE, message=last)
        raise
