"""Score a checkpoint on the evaluation set, with intervals and plots."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from crosswatch import artifacts, config, progress
from crosswatch.evaluation.bootstrap import Interval
from crosswatch.evaluation.explanations import EXPLANATIONS, Explanations
from crosswatch.evaluation.measure import measure
from crosswatch.evaluation.plots import plot_evaluation
from crosswatch.evaluation.scoring import score_block
from crosswatch.evaluation.settings import EvaluateConfig
from crosswatch.evaluation.truth import measure_segments
from crosswatch.examples.opening import Sources
from crosswatch.models.detector import (
    BRAND,
    load_detector,
    of_other_lengths,
    selected_on_evaluation,
)
from crosswatch.stages.train import CHECKPOINT

EVALUATION = "evaluation"
PREDICTIONS = "predictions.parquet"
HEADLINE = ("f1", "macro_f1", "auc", "accuracy", "miou", "map")
UNITS = {"instants": "window", "clips": "clip", "moments": "clip"}


def evaluate(
    *,
    checkpoint: Path,
    batches: Path,
    labels: Path,
    features: Path | None = None,
    captions: Path | None = None,
    out: Path,
    evaluate: EvaluateConfig,
) -> None:
    """The evaluation set is read here and nowhere before."""
    trained = artifacts.open_artifact(checkpoint, kind=CHECKPOINT)
    sources = Sources.open(batches, labels, features)
    batch_set = sources.batch_set
    detector = of_other_lengths(load_detector(checkpoint), **dataclasses.asdict(evaluate.lengths))
    told = Explanations(captions, batch_set)
    parents = {"checkpoint": trained.digest, **sources.digests(), **told.digests()}
    settings = {"evaluate": config.plain(evaluate)}
    with artifacts.create(out, kind=EVALUATION, config=settings, parents=parents) as draft:
        meter = progress.Meter(UNITS[detector.facts.model.task])
        predictions = score_block(
            detector, sources, pool=evaluate.pool, progress=meter, explained=told.hear
        )
        predictions.save(draft / PREDICTIONS)
        told.save(draft / EXPLANATIONS)
        measured = measure(predictions, evaluate, threshold=detector.threshold)
        measured |= measure_segments(predictions, batch_set, evaluate)
        selected_by = detector.selected_by
        facts = {"threshold": detector.threshold, "selected_by": selected_by}
        metrics = {**_plain(measured, batch_set.evaluation_set), **facts}
        if selected_on_evaluation(selected_by):
            metrics["warning"] = draft.note = f"{BRAND} ({selected_by})"
            progress.warn(f"{draft.note}: these numbers flatter the model")
        artifacts.write_json(draft / "metrics.json", metrics)
        plot_evaluation(
            predictions.pooled(evaluate.pool), batch_set.classes, draft.path,
            has_normal=evaluate.has_normal,
        )  # fmt: skip
        draft.counts["instants"] = len(predictions)
    brand = f"{draft.note}: " if selected_on_evaluation(selected_by) else ""
    progress.outcome(brand + headline(measured))


def headline(measured: Mapping[str, Interval]) -> str:
    """The first metrics in one line, with their intervals."""
    shown = [(name, measured[name]) for name in HEADLINE if name in measured]
    return ", ".join(f"{name} {i.estimate:.3f} [{i.low:.3f}, {i.high:.3f}]" for name, i in shown)


def _plain(
    measured: Mapping[str, Interval], evaluation_set: Mapping[str, object]
) -> dict[str, object]:
    return {
        "metrics": {name: interval.estimate for name, interval in measured.items()},
        "intervals": {name: dataclasses.asdict(each) for name, each in measured.items()},
        "evaluation_set": {key: evaluation_set[key] for key in ("version", "digest")},
    }
