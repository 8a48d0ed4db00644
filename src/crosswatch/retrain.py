"""The main job on this machine: run the retrain pipeline, then say what came of it."""

import dataclasses
import datetime
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosswatch import artifacts, kubeflow
from crosswatch.data.batches import SET_INDEX
from crosswatch.errors import UserError

DONE, FAILURE, MISTAKE, QUARANTINE = 0, 1, 2, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Closing:
    """What a run came to: the JSON object, and the lines that a person reads."""

    facts: dict[str, Any]
    lines: tuple[tuple[str, str], ...]


def retrain_here(
    batches: Path,
    workspace: Path,
    *,
    recipe: str,
    overrides: Mapping[str, Any],
    again: bool,
    data_revision: str,
    as_json: bool,
) -> int:
    """Run, close with a table (and one JSON line if asked), and return the exit code.

    Raises:
        UserError: the workspace cannot be written, or a task refused what it was given.
    """
    _refuse_unwritable(workspace)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    run = kubeflow.run_local(
        "retrain",
        workspace=workspace.resolve(),
        log=workspace / "logs" / f"retrain-{stamp}.log",
        arguments={
            "batches": str(batches.resolve()),
            "workspace": str(workspace.resolve()),
            "recipe": recipe,
            "overrides": json.dumps(overrides),
            "again": again,
            "data_revision": data_revision,
        },
    )
    for folder in (workspace / "pipeline").glob("*/*/"):
        artifacts.sweep(folder)
    code = _refused_or_failed(run)
    if code:
        return code
    closing = _closing(run, workspace)
    _print(closing, as_json=as_json)
    return QUARANTINE if closing.facts["quarantined"] else DONE


def _refuse_unwritable(workspace: Path) -> None:
    probe = workspace / ".writable"
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"--workspace {workspace}: cannot be written: {error.strerror}. "
            "Name a folder that you own."
        ) from error


def _refused_or_failed(run: kubeflow.LocalRun) -> int:
    """0 if all went well; a user's mistake raises, a fault prints where to look."""
    if run.failure is not None and run.failure["code"] == MISTAKE:
        raise UserError(f"{run.failure['stage']}: {run.failure['message']}")
    if run.returncode == 0:
        return DONE
    if run.failure is not None:
        what = f"{run.failure['stage']} failed: {run.failure['message']}"
    else:
        stage = next(iter(run.unfinished), "the pipeline")
        what = f"{stage} ended without a word (killed?)"
    sys.stderr.write(
        f"crosswatch run: {what}\nLog: {run.log}\n"
        "Start the same command again: finished batches and epochs are not repeated.\n"
    )
    return FAILURE


def _closing(run: kubeflow.LocalRun, workspace: Path) -> Closing:
    facts: dict[str, Any] = {
        "outcome": run.outcomes.get("claim", ""),
        "quarantined": {},
        "metrics": {},
        "seconds": run.seconds,
        "paths": {"workspace": str(workspace), "log": str(run.log)},
    }
    if "register" not in run.artifacts:
        return Closing(facts=facts, lines=(("outcome", facts["outcome"]), *_next(workspace)))
    lines = [*_data(run, facts), *_metrics(run, facts), *_verdict(run, facts)]
    lines += _places(run, facts, workspace)
    return Closing(facts=facts, lines=(*lines, *_next(workspace)))


def _data(run: kubeflow.LocalRun, facts: dict[str, Any]) -> list[tuple[str, str]]:
    folder = run.artifacts["ingest"]
    manifest = artifacts.open_artifact(folder, verify=False)
    index = artifacts.read_json(folder / SET_INDEX)
    facts["quarantined"] = dict(manifest.quarantined)
    facts["batches"] = [entry["id"] for entry in index["batches"]]
    facts["warnings"] = list(manifest.warnings)
    lines = [("data", f"{len(facts['batches'])} batches: {', '.join(facts['batches'])}")]
    lines += [("quarantined", f"{name}: {why}") for name, why in manifest.quarantined.items()]
    for name in facts["batches"]:
        sync = artifacts.read_json(folder / name / "sync.json")
        bound_s = sync.get("bound_half_width_s")
        if bound_s is not None:
            offset = f"camera {sync['camera_offset_s']:+.3f} ± {bound_s:.3f} s"
            lines.append(("sync", f"{name}: {offset} against the control system's clock"))
    return lines


def _metrics(run: kubeflow.LocalRun, facts: dict[str, Any]) -> list[tuple[str, str]]:
    measured = artifacts.read_json(run.artifacts["evaluate"] / "metrics.json")
    facts["metrics"], facts["intervals"] = measured["metrics"], measured["intervals"]
    facts["evaluation_set"] = measured["evaluation_set"]
    return [
        (
            "metric",
            f"{name:<18} {_number(i['estimate'])}  [{_number(i['low'])}, {_number(i['high'])}]",
        )
        for name, i in measured["intervals"].items()
    ]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _verdict(run: kubeflow.LocalRun, facts: dict[str, Any]) -> list[tuple[str, str]]:
    registered = artifacts.read_json(run.artifacts["register"] / "registration.json")
    promoted = registered["verdict"]["promote"]
    facts["outcome"] = "promoted" if promoted else "refused"
    facts |= {key: registered[key] for key in ("model", "version", "verdict", "tracking_uri")}
    what = f"{registered['model']} version {registered['version']}"
    now = "is champion and in Production" if promoted else "was not promoted"
    why = "; ".join(registered["verdict"]["reasons"])
    return [("registry", f"{what} {now}: {why}")]


def _places(
    run: kubeflow.LocalRun, facts: dict[str, Any], workspace: Path
) -> list[tuple[str, str]]:
    places = {
        "MLflow": facts["tracking_uri"],
        "plots": str(run.artifacts["evaluate"]),
        "checkpoint": str(run.artifacts["train"]),
        "history": str(workspace / "history"),
        "pipeline": str(kubeflow.shipped("retrain")),
        "log": str(run.log),
    }
    facts["paths"] |= places
    return list(places.items())


def _next(workspace: Path) -> list[tuple[str, str]]:
    return [
        ("next", "make ui: the runs, curves and models in MLflow"),
        ("next", f"crosswatch run --batches SRC --workspace {workspace}: retrain on more batches"),
        ("next", "crosswatch run --show-config: every setting; --set train.epochs=8 changes one"),
    ]


def _print(closing: Closing, *, as_json: bool) -> None:
    before = ""
    for label, text in closing.lines:
        sys.stdout.write(f"{label if label != before else '':<12}{text}\n")
        before = label
    if as_json:
        sys.stdout.write(json.dumps(closing.facts, sort_keys=True) + "\n")
