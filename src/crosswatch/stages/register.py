"""Register a checkpoint in MLflow and promote it if it beats the champion."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crosswatch import artifacts, config, progress
from crosswatch.errors import UserError
from crosswatch.evaluation.predictions import Predictions
from crosswatch.evaluation.scoring import score_block
from crosswatch.evaluation.settings import EvaluateConfig, LengthsConfig
from crosswatch.examples.opening import Sources
from crosswatch.models.detector import Detector, load_detector, selected_on_evaluation
from crosswatch.stages.evaluate import EVALUATION, PREDICTIONS
from crosswatch.stages.train import CHECKPOINT
from crosswatch.tracking.lineage import LineageConfig, lineage_tags
from crosswatch.tracking.promotion import (
    GATE,
    SELECTED_ON_EVALUATION,
    Gate,
    RegisterConfig,
    Verdict,
    unjudged,
    weigh,
)
from crosswatch.tracking.registry import ModelRegistry, RegistryPlace
from crosswatch.tracking.tracker import tracked_run

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

REGISTRATION = "registration"


def register(
    *,
    checkpoint: Path,
    evaluation: Path,
    batches: Path,
    labels: Path,
    features: Path | None = None,
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
    selected_by = load_detector(checkpoint).selected_by
    sources = Sources.open(batches, labels, features)
    batch_set = sources.batch_set
    if evaluated.config["evaluate"]["lengths"] != config.plain(LengthsConfig()):
        raise UserError(
            f"{evaluation}: was made over windows of other lengths (evaluate.lengths) than the "
            "model was trained with. Evaluate it without."
        )
    place = RegistryPlace(folder=registry, tracking_uri=register.tracking_uri)
    name, models = register.model_name, ModelRegistry(place)
    settings = {"register": config.plain(register), "evaluate": config.plain(evaluate)}
    parents = {"checkpoint": trained.digest, "evaluation": evaluated.digest}
    gate = Gate(primary=register.primary, min_gain=register.min_gain, evaluate=evaluate)
    with artifacts.create(out, kind=REGISTRATION, config=settings, parents=parents) as draft:
        tags = {
            **lineage_tags(
                lineage,
                checkpoint=trained,
                evaluation=evaluated,
                arrivals={batch.id: batch.digest for batch in batch_set.batches},
                evaluation_set=batch_set.evaluation_set,
                selected_by=selected_by,
            ),
            GATE: config.to_json(gate),
        }
        made_of = [path for path in (batches, labels, features) if path is not None]
        logged = [*(artifacts.open_artifact(path, verify=False) for path in made_of),
                  trained, evaluated]  # fmt: skip
        version = _log(place, logged, (checkpoint, evaluation), name, tags)
        candidate = Predictions.load(evaluation / PREDICTIONS)
        rivalry = _Rivalry(models=models, sources=sources, gate=gate)
        candidate.save(rivalry.kept(trained.digest))
        with place.locked():
            if selected_on_evaluation(selected_by):
                verdict = unjudged(candidate, gate, rivalry.number, SELECTED_ON_EVALUATION)
            else:
                verdict = rivalry.verdict(candidate, models.champion(name))
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
    logged: list[artifacts.Manifest],
    folders: tuple[Path, Path],
    name: str,
    tags: dict[str, str],
) -> str:
    """One MLflow run with every section of the configuration, and the new version."""
    checkpoint, evaluation = folders
    progress.emit("progress", what="logging to MLflow", done=0, total=1)
    run_name = tags["checkpoint_digest"][:12]
    with tracked_run(place, experiment=name, name=run_name) as run:
        for manifest in logged:
            run.parameters(manifest.config)
        for row in artifacts.read_json(checkpoint / "curves.json"):
            run.metrics({key: row[key] for key in row if key != "epoch"}, step=int(row["epoch"]))
        run.metrics(artifacts.read_json(evaluation / "metrics.json")["metrics"])
        run.folder(evaluation, "evaluation")
        version = run.model(checkpoint, name=name, requirements=_requirements())
        ModelRegistry(place).tag(name, version, {**tags, "mlflow_run_id": run.run_id})
        return version


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Rivalry:
    """Candidate and champion on one evaluation-set version."""

    models: ModelRegistry
    sources: Sources
    gate: Gate

    @property
    def number(self) -> int:
        return int(self.sources.batch_set.evaluation_set["version"])

    def verdict(self, candidate: Predictions, champion: "ModelVersion | None") -> Verdict:
        number = self.number
        if champion is None:
            return weigh(candidate, None, self.gate, number)
        try:
            detector = load_detector(self.models.checkpoint(champion))
            rival = self._scores(detector, champion)
            # What the champion was trained on, under another split, says nothing about it.
            digests = {batch.id: batch.digest for batch in self.sources.batch_set.batches}
            unseen = rival.outside(detector.seen, digests)
            return weigh(candidate, unseen, self.gate, number)
        except UserError as error:
            why = f"the champion (version {champion.version}) cannot be compared: {error}"
            return unjudged(candidate, self.gate, number, why)

    def kept(self, checkpoint_digest: str) -> Path:
        digest = self.sources.batch_set.evaluation_set["digest"]
        labels_digest = self.sources.labels_digest
        path = self.models.place.predictions(digest, labels_digest, checkpoint_digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _scores(self, detector: Detector, champion: "ModelVersion") -> Predictions:
        """The champion's kept scores; scored now if they are missing."""
        kept = self.kept(self.models.tag_of(champion, "checkpoint_digest"))
        if kept.exists():
            return Predictions.load(kept)
        meter = progress.Meter(f"champion (version {champion.version}): window")
        predictions = score_block(
            detector, self.sources, pool=self.gate.evaluate.pool, progress=meter
        )
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
