"""The stages of every fold and seed of a study, run again only where what they follow from changed.

Below the study's folder:

    batches                        every delivery, before folds are dealt
    known                          ingested batches, captions and features of all folds
    fold-NAME/batches .. features  what ingest, refine, caption and extract wrote
    fold-NAME/seed-N/checkpoint, evaluation
    predictions/seed-N.parquet     those of all folds together
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosswatch import artifacts, config
from crosswatch.data.adapters import open_adapter
from crosswatch.data.batches import BATCH_SET, open_set
from crosswatch.data.folds import Folds, before, deal
from crosswatch.data.splits import SplitConfig
from crosswatch.errors import UserError
from crosswatch.evaluation.predictions import Predictions
from crosswatch.experiment import Experiment
from crosswatch.stages.once import run_once

STUDY = "study"
TOGETHER = "predictions"
STAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ingest": ("batches", ("arrivals",)),
    "refine": ("labels", ("batches",)),
    "caption": ("captions", ("batches",)),
    "extract": ("features", ("batches", "captions")),
    "train": ("checkpoint", ("batches", "labels", "features")),
    "evaluate": ("evaluation", ("checkpoint", "batches", "labels", "features", "captions")),
}
"""What each stage writes and reads, by role."""
KEEPING = ("ingest", "caption", "extract")


class Study:
    """Where things lie, and what all folds have in common."""

    def __init__(self, batches: Path, out: Path, experiment: Experiment, known: Path) -> None:
        self.deliveries, self.out, self.known = batches, out, known
        self.experiment = experiment
        arrivals = open_adapter(experiment.ingest).find(batches).arrivals
        self.delivered = {arrival.id: arrival.digest for arrival in arrivals}
        first, count = experiment.train.seed, experiment.crossvalidate.seeds
        self.seeds = range(first, first + count)
        self.quarantined: dict[str, str] = {}

    def deal(self) -> Folds:
        """Ingest everything and deal what is left into folds.

        Raises:
            UserError: too few batches, or what is known holds others.
        """
        ids = list(self.delivered)
        if len(ids) < 2:
            raise UserError(f"{self.deliveries}: holds {len(ids)} batch; two or more make folds")
        self.run("ingest", SplitConfig(by="batch", evaluation=tuple(ids[::2])), self.out)
        batch_set = open_set(self.out / "batches", verify=False)
        others = [batch.id for batch in batch_set.batches if batch.id not in self.delivered]
        if others:
            raise UserError(
                f"{self.known}: knows {', '.join(others[:5])}, which {self.deliveries} does not "
                "deliver and every fold would train on. Name another --out."
            )
        manifest = artifacts.open_artifact(self.out / "batches", kind=BATCH_SET, verify=False)
        self.quarantined = dict(manifest.quarantined)
        folds = deal(batch_set, self.experiment.crossvalidate)
        if self.needs_validation and len(folds) < 3:
            raise UserError(
                f"{len(folds)} folds: one evaluates and one validates (train.select=best), which "
                "leaves none to train. Three or more are needed, or train.select=last."
            )
        return folds

    @property
    def needs_validation(self) -> bool:
        return self.experiment.train.select == "best"

    def fold(self, name: str, folds: Folds, number: int) -> "Fold":
        validation = before(folds, number) if self.needs_validation else ()
        return Fold(study=self, name=name, batches=folds[number], validation=validation)

    def run(self, stage: str, split: SplitConfig, folder: Path, *, seed: int | None = None) -> bool:
        """A stage of the pipeline, with everything below `folder`; whether it had to be run."""
        experiment = dataclasses.replace(self.experiment, split=split)
        if seed is not None:
            train = dataclasses.replace(experiment.train, seed=seed)
            experiment = dataclasses.replace(experiment, train=train)
        writes, reads = STAGES[stage]
        of_seed = folder if seed is None else folder / f"seed-{seed}"
        places = {role: folder / role for role in ("batches", "labels", "captions", "features")}
        places |= {"checkpoint": of_seed / "checkpoint", "evaluation": of_seed / "evaluation"}
        places["arrivals"] = self.deliveries
        return run_once(
            stage,
            values=config.plain(experiment),
            reads={role: places[role] for role in reads},
            out=places[writes],
            known=self.known / writes if stage in KEEPING else None,
            delivered=self.delivered if stage == "ingest" else {},
        )

    def save(self, scored: Mapping[int, Predictions]) -> None:
        """The predictions of all folds, a file a seed."""
        settings = {"crossvalidate": config.plain(self.experiment.crossvalidate)}
        with artifacts.create(self.out / TOGETHER, kind=STUDY, config=settings) as draft:
            for seed, predictions in scored.items():
                predictions.save(draft / f"seed-{seed}.parquet")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fold:
    study: Study
    name: str
    batches: tuple[str, ...]
    validation: tuple[str, ...]

    @property
    def split(self) -> SplitConfig:
        return SplitConfig(by="batch", validation=self.validation, evaluation=self.batches)

    @property
    def folder(self) -> Path:
        return self.study.out / f"fold-{self.name}"

    def prepare(self) -> bool:
        """What does not depend on the seed; whether any of it had to be made."""
        stages = ("ingest", "refine", "caption", "extract")
        worked = [self.study.run(stage, self.split, self.folder) for stage in stages]
        return any(worked)

    def score(self, seed: int) -> bool:
        """Train and evaluate; whether either had to be done."""
        stages = ("train", "evaluate")
        worked = [self.study.run(stage, self.split, self.folder, seed=seed) for stage in stages]
        return any(worked)

    def evaluation(self, seed: int) -> Path:
        return self.folder / f"seed-{seed}" / "evaluation"

    def facts(self, seed: int, measured: Mapping[str, Any]) -> dict[str, Any]:
        facts = {"evaluation": self.name, "seed": seed, "metrics": measured["metrics"]}
        facts |= {"batches": list(self.batches), "validation": list(self.validation)}
        return facts | {key: measured[key] for key in ("warning",) if key in measured}
