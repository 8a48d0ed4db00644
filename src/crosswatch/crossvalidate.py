"""A study: each fold of batches evaluates once, the others train. It registers nothing."""

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crosswatch import artifacts, config, progress
from crosswatch.data.folds import Folds
from crosswatch.evaluation.predictions import Predictions, together
from crosswatch.evaluation.seeds import measure_seeds
from crosswatch.experiment import Experiment
from crosswatch.models.detector import BRAND
from crosswatch.stages.evaluate import PREDICTIONS
from crosswatch.stages.study import Study


def crossvalidate_here(
    batches: Path, out: Path | None, experiment: Experiment, *, as_json: bool
) -> None:
    """Run every fold below `out` (a temporary folder if None) and print what came of them."""
    with (
        tempfile.TemporaryDirectory(prefix="crosswatch-folds-") as temporary,
        progress.shown(progress.view()),
    ):
        facts = crossvalidate(batches, out or Path(temporary), experiment)
    if "warning" in facts:
        sys.stdout.write(f"{facts['warning']}\n")
    several = experiment.crossvalidate.seeds > 1
    for fold in facts["folds"]:
        named = ", ".join(f"{name} {_number(value)}" for name, value in fold["metrics"].items())
        seed = f", seed {fold['seed']}" if several else ""
        sys.stdout.write(f"fold {fold['evaluation']}{seed}: {named}\n")
    for name, mean in facts["metrics"].items():
        i = facts["intervals"].get(name)
        text = f"{_number(i['estimate'])}  [{_number(i['low'])}, {_number(i['high'])}]" if i else ""
        deviation = _number(facts["deviation"][name])
        text = f"{text:<26} mean {_number(mean)}, deviation {deviation}"
        sys.stdout.write(f"all folds  {name:<18} {text}\n")
    if as_json:
        sys.stdout.write(json.dumps(facts, sort_keys=True) + "\n")


def crossvalidate(
    batches: Path, out: Path, experiment: Experiment, *, known: Path | None = None
) -> dict[str, Any]:
    """Metrics of each fold and seed, their means, and intervals over the units of all folds
    together. `known` is what studies of the same deliveries share [default: out/known].

    Raises:
        UserError: fewer than two batches, or fewer than folds.
    """
    study = Study(batches, out, experiment, known or out / "known")
    folds = study.deal()
    names = _names(folds)
    progressing = _Progress(len(folds), experiment.crossvalidate.seeds)
    found: list[dict[str, Any]] = []
    scored: dict[int, list[Predictions]] = {seed: [] for seed in study.seeds}
    for number, name in enumerate(names):
        fold = study.fold(name, folds, number)
        worked = fold.prepare()
        for seed in study.seeds:
            worked |= fold.score(seed)
            folder = fold.evaluation(seed)
            metrics = json.loads((folder / "metrics.json").read_text())
            found.append(fold.facts(seed, metrics))
            scored[seed].append(Predictions.load(folder / PREDICTIONS))
            progressing.next(worked=worked)
            worked = False
    pooled = {seed: together(parts) for seed, parts in scored.items()}
    study.save(pooled)
    measured = measure_seeds(list(pooled.values()), experiment.evaluate)
    of_folds = [_means([each for each in found if each["evaluation"] == name]) for name in names]
    of_seeds = [_means([each for each in found if each["seed"] == seed]) for seed in study.seeds]
    facts = {
        "folds": found,
        "metrics": _over_folds(of_folds, np.mean, least=1),
        "deviation": _over_folds(of_folds, lambda values: np.std(values, ddof=1), least=2),
        "seed_deviation": _over_folds(of_seeds, lambda values: np.std(values, ddof=1), least=2),
        "intervals": artifacts.finite(
            {name: dataclasses.asdict(i) for name, i in measured.items()}
        ),
        "quarantined": study.quarantined,
        "config": config.plain(experiment),
    }
    if experiment.train.select == "test":
        facts["warning"] = f"{BRAND} of each fold: these numbers flatter the model"
    artifacts.write_json(out / "crossvalidation.json", facts)
    return facts


class _Progress:
    """Says which fold and seed is done, and how long the others will take."""

    def __init__(self, folds: int, seeds: int) -> None:
        self._folds, self._seeds = folds, seeds
        self._done = 0
        self._lasted_s: list[float] = []
        self._since = time.monotonic()

    def next(self, *, worked: bool) -> None:
        """One more is done; if it was `worked` on, the others will take as long."""
        now = time.monotonic()
        lasted_s, self._since = now - self._since, now
        fold, seed = divmod(self._done, self._seeds)
        self._done += 1
        text = f"{fold + 1} of {self._folds}, seed {seed + 1} of {self._seeds}"
        if worked:
            self._lasted_s.append(lasted_s)
        else:
            text += ", known"
        left = self._folds * self._seeds - self._done
        if left and self._lasted_s:
            text += f"; about {_duration(left * float(np.mean(self._lasted_s)))} left"
        progress.emit("begin", stage="fold")
        progress.outcome(text)
        progress.emit("end", stage="fold", seconds=round(lasted_s, 2))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _names(folds: Folds) -> list[str]:
    """A fold of one batch bears its name, others their number."""
    if all(len(fold) == 1 for fold in folds):
        return [name for (name,) in folds]
    return [str(number + 1) for number in range(len(folds))]


def _means(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"metrics": _over_folds(found, np.mean, least=1)}


def _over_folds(
    folds: Sequence[dict[str, Any]], of: Callable[[list[float]], Any], *, least: int
) -> dict[str, float | None]:
    """Each metric over the folds that define it; None if they are fewer than `least`."""
    found: dict[str, float | None] = {}
    for name in dict.fromkeys(name for fold in folds for name in fold["metrics"]):
        values = [fold["metrics"].get(name) for fold in folds]
        defined = [value for value in values if value is not None]
        found[name] = float(of(defined)) if len(defined) >= least else None
    return found


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
