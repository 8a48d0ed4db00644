"""Register a checkpoint in MLflow and promote it if it beats the champion."""

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosswatch import artifacts, config, progress
from crosswatch.annotation.labels import open_labels, verify_labels
from crosswatch.data.batches import BatchSet, open_set
from crosswatch.errors import UserError
from crosswatch.evaluation.measure import EvaluateConfig
from crosswatch.evaluation.scoring import Predictions, score_block
from crosswatch.models.detector import load_detector
from crosswatch.stages.evaluate import EVALUATION, PREDICTIONS
from crosswatch.stages.train import CHECKPOINT
from crosswatch.tracking.lineage import LineageConfig, lineage_tags
from crosswatch.tracking.promotion import GATE, Gate, RegisterConfig, Verdict, weigh
from crosswatch.tracking.registry import ModelRegistry, RegistryPlace
from crosswatch.tracking.tracker import Tracker, tracked_run

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

REGISTRATION = "registration"


def register(
    *,
    checkpoint: Path,
    evaluation: Path,
    batches: Path,
    labels: Path,
    registry: Path,
    out: Path,
    register: RegisterConfig,
    evaluate: EvaluateConfig,
    lineage: LineageConfig,
) -> None:
    """`registry` holds MLflow's database, its artifacts and the promotion history."""
    trained = artifacts.open_artifact(checkpoint, kind=CHECKPOINT)
    evaluated = artifacts.open_artifact(evaluation, kind=EVALUATION)
    if evaluated.parents["checkpoint"] != trained.digest:
        raise UserError(f"{evaluation}: is of another checkpoint than {checkpoint}")
    batch_set = open_set(batches)
    verify_labels(labels, batch_set_digest=batch_set.digest)
    place = RegistryPlace(folder=registry, tracking_uri=register.tracking_uri)
    name = register.model_name
    with artifacts.create(out, kind=REGISTRATION, parents={"checkpoint": trained.digest}) as draft:
        models = ModelRegistry(place)
        version, tags = _log(
            place, trained, evaluated, (checkpoint, evaluation), batch_set, register, lineage
        )
        gate = Gate(primary=register.primary, min_gain=register.min_gain, evaluate=evaluate)
        models.tag(name, version, {**tags, GATE: config.to_json(gate)})
        candidate = Predictions.load(evaluation / PREDICTIONS)
        kept = place.predictions(batch_set.evaluation_set["digest"], trained.digest)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(evaluation / PREDICTIONS, kept)
        with place.locked():
            champion = models.champion(name)
            rival = _rival(models, champion, batch_set, labels)
            verdict = weigh(candidate, rival, gate, batch_set.evaluation_set["version"])
            models.tag(name, version, {"verdict": "; ".join(verdict.reasons)})
            _act(models, name, version, verdict)
        artifacts.write_json(draft / "registration.json", {
            "model": name, "version": version, "verdict": verdict.plain(),
            "metrics": artifacts.read_json(evaluation / "metrics.json")["metrics"],
            "tracking_uri": place.uri, "tags": tags,
        })  # fmt: skip
    action = "promoted" if verdict.promote else "not promoted"
    progress.outcome(f"{name} version {version} {action}: {'; '.join(verdict.reasons)}")


def _log(
    place: RegistryPlace,
    trained: artifacts.Manifest,
    evaluated: artifacts.Manifest,
    folders: tuple[Path, Path],
    batch_set: BatchSet,
    register: RegisterConfig,
    lineage: LineageConfig,
) -> tuple[str, dict[str, str]]:
    """One MLflow run with everything, and the new version."""
    checkpoint, evaluation = folders
    progress.emit("progress", what="logging to MLflow", done=0, total=1)
    name = register.model_name
    with tracked_run(place, experiment=name, name=trained.digest[:12], tags={}) as run:
        run.parameters(trained.config)
        _log_curves(run, checkpoint)
        run.metrics(artifacts.read_json(evaluation / "metrics.json")["metrics"])
        run.folder(evaluation, "evaluation")
        version = run.model(checkpoint, name=name, requirements=_requirements())
        arrivals = {batch.id: batch.digest for batch in batch_set.batches}
        return version, lineage_tags(
            lineage,
            mlflow_run_id=run.run_id,
            checkpoint=trained,
            evaluation=evaluated,
            arrivals=arrivals,
            evaluation_set=batch_set.evaluation_set,
        )


def _log_curves(run: Tracker, checkpoint: Path) -> None:
    for row in artifacts.read_json(checkpoint / "curves.json"):
        run.metrics({key: row[key] for key in row if key != "epoch"}, step=int(row["epoch"]))


def _rival(
    models: ModelRegistry, champion: "ModelVersion | None", batch_set: BatchSet, labels: Path
) -> Predictions | None:
    """The champion's predictions on this evaluation-set version, scored now if they are missing."""
    if champion is None:
        return None
    digest = batch_set.evaluation_set["digest"]
    kept = models.place.predictions(digest, champion.tags["checkpoint_digest"])
    if kept.exists():
        return Predictions.load(kept)
    detector = load_detector(models.checkpoint(champion))
    of_batches = tuple(open_labels(labels, batch) for batch in batch_set.batches)
    meter = progress.Meter(f"champion (version {champion.version}): window")
    predictions = score_block(detector, batch_set, of_batches, progress=meter)
    kept.parent.mkdir(parents=True, exist_ok=True)
    predictions.save(kept)
    return predictions


def _act(models: ModelRegistry, name: str, version: str, verdict: Verdict) -> None:
    facts: dict[str, Any] = {"verdict": dataclasses.asdict(verdict)}
    if verdict.promote:
        models.move(name, version, "Production", action="promote", **facts)
    else:
        models.place.history.append(name, action="refuse", version=version, champion=False, **facts)


def _requirements() -> tuple[str, ...]:
    import importlib.metadata

    return (f"crosswatch=={importlib.metadata.version('crosswatch')}",)
