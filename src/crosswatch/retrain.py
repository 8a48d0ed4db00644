"""The main job on this machine: run the retrain pipeline, then say what came of it."""

import dataclasses
import datetime
import json
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosswatch import artifacts, kubeflow
from crosswatch.data.batches import SET_INDEX
from crosswatch.data.store.place import Place
from crosswatch.errors import UserError
from crosswatch.experiment import DEFAULT_RECIPE
from crosswatch.progress import FAILURE, MISTAKE

DONE, QUARANTINE = 0, 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Closing:
    """What a run came to: the JSON object, and the lines that a person reads."""

    facts: dict[str, Any]
    lines: tuple[tuple[str, str], ...]


def retrain_here(
    batches: Place | None,
    workspace: Path,
    *,
    store: Place | None,
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
            "batches": _absolute(batches),
            "workspace": str(workspace.resolve()),
            "recipe": recipe,
            "overrides": json.dumps(overrides),
            "again": again,
            "store": _absolute(store),
            "data_revision": _absolute(Path(data_revision))
            if Path(data_revision).is_file()
            else data_revision,
        },
    )
    for folder in (workspace / "pipeline").glob("*/*/"):
        artifacts.sweep(folder)
    if run.returncode != 0 or run.failure is not None:
        return _say_what_failed(run, as_json=as_json)
    closing = _closing(run, workspace, recipe)
    _print(closing, as_json=as_json)
    return QUARANTINE if closing.facts["quarantined"] else DONE


def _absolute(place: Place | None) -> str:
    """As the tasks understand it, wherever they run."""
    if place is None:
        return ""
    return str(place.resolve() if isinstance(place, Path) else place)


def _refuse_unwritable(workspace: Path) -> None:
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=workspace).close()
    except OSError as error:
        raise UserError(
            f"--workspace {workspace}: cannot be written: {error.strerror}. "
            "Name a folder that you own."
        ) from error


def _say_what_failed(run: kubeflow.LocalRun, *, as_json: bool) -> int:
    """A user's mistake raises; a fault prints where to look."""
    failure = run.failure
    is_mistake = failure is not None and failure["code"] == MISTAKE
    if failure is None:
        what = f"{next(iter(run.unfinished), 'the pipeline')} ended without a word (killed?)"
    else:
        what = f"{failure['stage']}{'' if is_mistake else ' failed'}: {failure['message']}"
    if as_json:
        outcome = "mistake" if is_mistake else "failed"
        _print_json({"outcome": outcome, "message": what, "log": str(run.log)})
    if is_mistake:
        raise UserError(what)
    sys.stderr.write(
        f"crosswatch run: {what}\nLog: {run.log}\n"
        "Start the same command again: finished batches and epochs are not repeated.\n"
    )
    return FAILURE


def _closing(run: kubeflow.LocalRun, workspace: Path, recipe: str) -> Closing:
    facts: dict[str, Any] = {
        "quarantined": dict(run.quarantined),
        "metrics": {},
        "seconds": run.seconds,
        "paths": {"workspace": str(workspace), "log": str(run.log)},
    }
    if "register" in run.artifacts:
        lines = [*_data(run, facts), *_metrics(run, facts), *_verdict(run, facts)]
        lines += _places(run, facts, workspace)
    else:
        lines = _nothing_to_do(run, facts)
    return Closing(facts=facts, lines=(*lines, *_next(workspace, recipe)))


def _nothing_to_do(run: kubeflow.LocalRun, facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Claim won nothing, and said why."""
    assert run.idle is not None, "a run that registered nothing was idle, or it failed"
    message = run.outcomes.get("claim", "")
    facts |= {**run.idle, "message": message}
    return [("outcome", message), *_quarantined(facts)]


def _data(run: kubeflow.LocalRun, facts: dict[str, Any]) -> list[tuple[str, str]]:
    folder = run.artifacts["ingest"]
    manifest = artifacts.open_artifact(folder, verify=False)
    index = artifacts.read_json(folder / SET_INDEX)
    facts["quarantined"] |= {**manifest.quarantined, **_without_features(run)}
    facts["batches"] = [entry["id"] for entry in index["batches"]]
    facts["warnings"] = list(manifest.warnings)
    lines = [("data", f"{len(facts['batches'])} batches: {', '.join(facts['batches'])}")]
    lines += _quarantined(facts)
    for name in facts["batches"]:
        sync = artifacts.read_json(folder / name / "sync.json")
        against = "control system's" if "signal" in sync["streams"] else "camera's"
        for stream, told in sync["streams"].items():
            bound_s = told["bound_s"]["half_width"]
            if bound_s is None or told.get("left_out"):
                continue
            device = {"video": "camera", "audio": "sound"}[stream]
            offset = f"{device} {told['offset_s']:+.3f} ± {bound_s:.3f} s"
            lines.append(("sync", f"{name}: {offset} against the {against} clock"))
    return lines


def _without_features(run: kubeflow.LocalRun) -> dict[str, str]:
    """Batches that a captioner or an encoder refused."""
    found: dict[str, list[str]] = {}
    for stage in ("caption", "extract"):
        manifest = artifacts.open_artifact(run.artifacts[stage], verify=False)
        for batch, reason in manifest.quarantined.items():
            found.setdefault(batch, []).append(reason)
    return {batch: "; ".join(reasons) for batch, reasons in found.items()}


def _quarantined(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("quarantined", f"{name}: {why}") for name, why in facts["quarantined"].items()]


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
    facts["message"] = "; ".join(registered["verdict"]["reasons"])
    what = f"{registered['model']} version {registered['version']}"
    now = "is champion and in Production" if promoted else "was not promoted"
    return [("registry", f"{what} {now}: {facts['message']}")]


def _places(
    run: kubeflow.LocalRun, facts: dict[str, Any], workspace: Path
) -> list[tuple[str, str]]:
    places = {
        "MLflow": facts["tracking_uri"],
        "plots": str(run.artifacts["evaluate"]),
        "checkpoint": str(run.artifacts["train"]),
        **_encoded(run),
        "history": str(workspace / "history"),
        "pipeline": str(kubeflow.shipped("retrain")),
        "log": str(run.log),
    }
    facts["paths"] |= places
    return list({**places, "MLflow": _interface(facts["tracking_uri"])}.items())


def _encoded(run: kubeflow.LocalRun) -> dict[str, str]:
    """Captions and features, where the recipe needs them."""
    found = {"captions": run.artifacts["caption"], "features": run.artifacts["extract"]}
    return {
        name: str(folder)
        for name, folder in found.items()
        if not artifacts.open_artifact(folder, verify=False).note
    }


def _interface(tracking_uri: str) -> str:
    """How to look at what MLflow holds; a server has pages of its own."""
    if tracking_uri.startswith("http"):
        return tracking_uri
    return f"mlflow ui --backend-store-uri {shlex.quote(tracking_uri)}"


def _next(workspace: Path, recipe: str) -> list[tuple[str, str]]:
    run = f"{_command()} run" + ("" if recipe == DEFAULT_RECIPE else f" --recipe {recipe}")
    is_default = workspace.resolve() == Path("workspace").resolve()
    return [
        *([("next", "make ui: the runs, curves and models in MLflow")] if is_default else []),
        (
            "next",
            f"{run} --batches SRC --workspace {workspace}: retrain on more batches",
        ),
        (
            "next",
            f"{run} --show-config: every setting; --set train.epochs=8 changes one",
        ),
    ]


def _command() -> str:
    """How this program can be called again from here."""
    here = Path(sys.argv[0])
    if shutil.which("crosswatch") or here.name != "crosswatch":
        return "crosswatch"
    return os.path.relpath(here)


def _print(closing: Closing, *, as_json: bool) -> None:
    before = ""
    for label, text in closing.lines:
        sys.stdout.write(f"{label if label != before else '':<12}{text}\n")
        before = label
    if as_json:
        _print_json(closing.facts)


def _print_json(facts: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(facts, sort_keys=True) + "\n")
