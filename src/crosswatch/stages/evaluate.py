"""Score a checkpoint on the evaluation set, with intervals and plots."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

from crosswatch import artifacts, config, progress
from crosswatch.annotation.labels import open_labels, verify_labels
from crosswatch.data.batches import open_set
from crosswatch.evaluation.bootstrap import Interval
from crosswatch.evaluation.measure import EvaluateConfig, measure
from crosswatch.evaluation.plots import plot_evaluation
from crosswatch.evaluation.scoring import score_block
from crosswatch.models.detector import load_detector
from crosswatch.stages.train import CHECKPOINT

EVALUATION = "evaluation"
PREDICTIONS = "predictions.parquet"


def evaluate(
    *, checkpoint: Path, batches: Path, labels: Path, out: Path, evaluate: EvaluateConfig
) -> None:
    """The evaluation set is read here and nowhere before."""
    trained = artifacts.open_artifact(checkpoint, kind=CHECKPOINT)
    batch_set = open_set(batches)
    verify_labels(labels, batch_set_digest=batch_set.digest)
    detector = load_detector(checkpoint)
    of_batches = tuple(open_labels(labels, batch) for batch in batch_set.batches)
    parents = {"checkpoint": trained.digest, "batches": batch_set.digest}
    settings = {"evaluate": config.plain(evaluate)}
    with artifacts.create(out, kind=EVALUATION, config=settings, parents=parents) as draft:
        predictions = score_block(
            detector, batch_set, of_batches, progress=progress.Meter("window")
        )
        predictions.save(draft / PREDICTIONS)
        measured = measure(predictions, evaluate)
        artifacts.write_json(draft / "metrics.json", _plain(measured, batch_set.evaluation_set))
        plot_evaluation(predictions.pooled(evaluate.pool), batch_set.classes, draft.path)
        draft.counts["instants"] = len(predictions)
    progress.outcome(headline(measured))


def headline(measured: Mapping[str, Interval]) -> str:
    """The first metrics in one line, with their intervals."""
    shown = [(name, measured[name]) for name in ("f1", "accuracy", "miou") if name in measured]
    return ", ".join(f"{name} {i.estimate:.3f} [{i.low:.3f}, {i.high:.3f}]" for name, i in shown)


def _defined(value: float) -> float | None:
    """None for an undefined number: JSON has no NaN."""
    return None if math.isnan(value) else value


def _plain(measured: Mapping[str, Interval], evaluation_set: Mapping[str, object]) -> object:
    return {
        "metrics": {name: _defined(interval.estimate) for name, interval in measured.items()},
        "intervals": {
            name: {key: _defined(value) for key, value in dataclasses.asdict(interval).items()}
            for name, interval in measured.items()
        },
        "evaluation_set": {key: evaluation_set[key] for key in ("version", "digest")},
    }
