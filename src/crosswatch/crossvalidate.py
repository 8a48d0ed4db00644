"""A study: each batch evaluates once, the others train. It registers nothing."""

import dataclasses
import json
import math
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosswatch import config, progress, stages
from crosswatch.artifacts import write_json
from crosswatch.data.adapters import open_adapter
from crosswatch.data.splits import SplitConfig
from crosswatch.errors import UserError
from crosswatch.evaluation.measure import measure
from crosswatch.evaluation.predictions import Predictions
from crosswatch.experiment import Experiment
from crosswatch.stages.evaluate import PREDICTIONS


def crossvalidate_here(
    batches: Path, out: Path | None, experiment: Experiment, *, as_json: bool
) -> None:
    """Run every fold below `out` (a temporary folder if None) and print what came of them."""
    with (
        tempfile.TemporaryDirectory(prefix="crosswatch-folds-") as temporary,
        progress.shown(progress.view()),
    ):
        facts = crossvalidate(batches, out or Path(temporary), experiment)
    for fold in facts["folds"]:
        named = ", ".join(f"{name} {_number(value)}" for name, value in fold["metrics"].items())
        sys.stdout.write(f"fold {fold['evaluation']}: {named}\n")
    for name, i in facts["intervals"].items():
        text = f"{_number(i['estimate'])}  [{_number(i['low'])}, {_number(i['high'])}]"
        sys.stdout.write(f"all folds  {name:<18} {text}\n")
    if as_json:
        sys.stdout.write(json.dumps(facts, sort_keys=True) + "\n")


def crossvalidate(batches: Path, out: Path, experiment: Experiment) -> dict[str, Any]:
    """Metrics of each fold, their mean, and intervals over the units of all folds together.

    Raises:
        UserError: fewer than two batches.
    """
    ids = [arrival.id for arrival in open_adapter(experiment.ingest).find(batches).arrivals]
    if len(ids) < 2:
        raise UserError(f"{batches}: holds {len(ids)} batch; two or more make folds")
    found = [_fold(batches, out, experiment, ids, number) for number in range(len(ids))]
    folds = [{"evaluation": name, "metrics": metrics} for name, metrics, _ in found]
    pooled = measure(_together([predictions for _, _, predictions in found]), experiment.evaluate)
    facts = {
        "folds": folds,
        "metrics": _over_folds(folds, np.mean, least=1),
        "deviation": _over_folds(folds, lambda values: np.std(values, ddof=1), least=2),
        "intervals": {
            name: {key: _defined(value) for key, value in dataclasses.asdict(i).items()}
            for name, i in pooled.items()
        },
        "config": config.plain(experiment),
    }
    write_json(out / "crossvalidation.json", facts)
    return facts


def _over_folds(
    folds: Sequence[dict[str, Any]], of: Callable[[list[float]], Any], *, least: int
) -> dict[str, float | None]:
    """Each metric over the folds that define it; None if they are fewer than `least`."""
    found: dict[str, float | None] = {}
    for name in folds[0]["metrics"]:
        values = [fold["metrics"][name] for fold in folds if fold["metrics"][name] is not None]
        found[name] = float(of(values)) if len(values) >= least else None
    return found


def _defined(value: float) -> float | None:
    """None for an undefined number: JSON has no NaN."""
    return None if math.isnan(value) else value


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _fold(
    batches: Path, out: Path, experiment: Experiment, ids: list[str], number: int
) -> tuple[str, dict[str, float | None], Predictions]:
    """Train without batch `number` and score it; where selection needs one, the batch before
    it validates."""
    name = ids[number]
    needs_validation = experiment.train.select == "best"
    validation = (ids[number - 1],) if needs_validation else ()
    folder = out / f"fold-{name}"
    split = SplitConfig(by="batch", validation=validation, evaluation=(name,))
    values = config.plain(dataclasses.replace(experiment, split=split))
    roles = ("batches", "labels", "checkpoint", "evaluation")
    places = {role: folder / role for role in roles}
    places |= {"arrivals": batches, "known": out / "known"}
    for stage, into, reads in (
        ("ingest", "batches", ("arrivals", "known")),
        ("refine", "labels", ("batches",)),
        ("train", "checkpoint", ("batches", "labels")),
        ("evaluate", "evaluation", ("checkpoint", "batches", "labels")),
    ):
        paths: dict[str, Path | None] = {role: places[role] for role in reads}
        stages.run(stage, values=values, paths={**paths, "out": places[into]})
    metrics = json.loads((places["evaluation"] / "metrics.json").read_text())["metrics"]
    return name, metrics, Predictions.load(places["evaluation"] / PREDICTIONS)


def _together(parts: list[Predictions]) -> Predictions:
    pixels = [part.pixels_NKK for part in parts if part.pixels_NKK is not None]
    return Predictions(
        rows=pd.concat([part.rows for part in parts], ignore_index=True),
        probability_NK=np.concatenate([part.probability_NK for part in parts]),
        pixels_NKK=np.concatenate(pixels) if pixels else None,
    )
