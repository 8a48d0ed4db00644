"""A study: each batch evaluates once, the others train. It registers nothing."""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from crosswatch import config, progress, stages
from crosswatch.artifacts import write_json
from crosswatch.data.adapters import ADAPTERS
from crosswatch.data.splits import SplitConfig
from crosswatch.errors import UserError
from crosswatch.evaluation.measure import measure
from crosswatch.evaluation.scoring import Predictions
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
        named = ", ".join(f"{name} {value:.4f}" for name, value in fold["metrics"].items())
        sys.stdout.write(f"fold {fold['evaluation']}: {named}\n")
    for name, i in facts["intervals"].items():
        text = f"{i['estimate']:.4f}  [{i['low']:.4f}, {i['high']:.4f}]"
        sys.stdout.write(f"all folds  {name:<18} {text}\n")
    if as_json:
        sys.stdout.write(json.dumps(facts, sort_keys=True) + "\n")


def crossvalidate(batches: Path, out: Path, experiment: Experiment) -> dict[str, Any]:
    """Metrics of each fold, their mean, and intervals over the units of all folds together.

    Raises:
        UserError: fewer than two batches.
    """
    ids = [arrival.id for arrival in ADAPTERS[experiment.ingest.adapter].find(batches).arrivals]
    if len(ids) < 2:
        raise UserError(f"{batches}: holds {len(ids)} batch; two or more make folds")
    found = [_fold(batches, out, experiment, ids, number) for number in range(len(ids))]
    folds = [{"evaluation": name, "metrics": metrics} for name, metrics, _ in found]
    pooled = measure(_together([predictions for _, _, predictions in found]), experiment.evaluate)
    facts = {
        "folds": folds,
        "metrics": {
            name: float(np.mean([metrics[name] for _, metrics, _ in found])) for name in found[0][1]
        },
        "deviation": {
            name: float(np.std([metrics[name] for _, metrics, _ in found], ddof=1))
            for name in found[0][1]
        },
        "intervals": {name: dataclasses.asdict(i) for name, i in pooled.items()},
        "config": config.plain(experiment),
    }
    write_json(out / "crossvalidation.json", facts)
    return facts


def _fold(
    batches: Path, out: Path, experiment: Experiment, ids: list[str], number: int
) -> tuple[str, dict[str, float], Predictions]:
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
