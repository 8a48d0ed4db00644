"""What one worker does: its share of every mini-batch, epoch by epoch, resuming where it can."""

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from crosswatch import progress
from crosswatch.evaluation.alarms import best_threshold
from crosswatch.evaluation.bootstrap import estimate
from crosswatch.evaluation.classification import RankedScores, classification_metrics
from crosswatch.examples.example import Example, Rows
from crosswatch.examples.opening import Sources, open_examples
from crosswatch.models.detector import DetectorFacts, usual_device
from crosswatch.records import Block
from crosswatch.training import checkpoint
from crosswatch.training.augment import augmented
from crosswatch.training.loop import Predicted, Step, predict, train_epoch
from crosswatch.training.losses import loss_of
from crosswatch.training.optim import build_optimizer
from crosswatch.training.settings import TrainConfig

Resources = Callable[[], dict[str, Any]]
"""What a model needs to be trained beside its settings, such as frozen weights: made in each
worker."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker is told."""

    batches: Path
    labels: Path
    features: Path | None
    checkpoints: Path
    facts: DetectorFacts
    train: TrainConfig
    resources: Resources = dict

    def build(self) -> torch.nn.Module:
        return self.facts.build(**self.resources())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rank:
    number: int = 0
    world: int = 1


class Group(Protocol):
    """What a worker needs of the others."""

    rank: Rank

    def prepare(self, module: torch.nn.Module) -> torch.nn.Module: ...

    def gather(self, value: Any) -> list[Any]: ...

    def align(self, module: torch.nn.Module) -> None: ...

    def report(self, metrics: dict[str, float]) -> None: ...


class Alone:
    """A group of one, in this process."""

    rank = Rank()

    def prepare(self, module: torch.nn.Module) -> torch.nn.Module:
        return module.to(usual_device())

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def align(self, module: torch.nn.Module) -> None:
        pass

    def report(self, metrics: dict[str, float]) -> None:
        pass


def fit(job: Job, group: Group) -> None:
    """Train to the last epoch, from the newest checkpoint if there is one."""
    cores = max(1, (os.cpu_count() or 1) // group.rank.world)
    torch.set_num_threads(job.train.threads or cores)
    Learner(job, group).run()


class Learner:
    def __init__(self, job: Job, group: Group) -> None:
        self.job, self.group, self.rank = job, group, group.rank
        sources = Sources.open(job.batches, job.labels, job.features, verify=False)
        self.training = open_examples(sources, job.facts, "train")
        validation: Block = "evaluation" if job.train.select == "test" else "validation"
        self.validation = open_examples(sources, job.facts, validation)
        torch.manual_seed(job.train.seed)
        self.bare = job.build()
        self.module = group.prepare(self.bare)
        self.device = next(self.bare.parameters()).device
        self.optimizer = build_optimizer(job.train.optim, self.bare)
        self.reached = checkpoint.Progress()
        self.best: checkpoint.Weights = {}
        self.steps = job.train.epochs * len(self._chunks(0))
        self.step = Step(
            optimizer=self.optimizer,
            loss_of=loss_of(job.facts.model),
            rate_of=lambda: job.train.optim.rate_at(self.reached.step, self.steps),
            gradient_norm=job.train.optim.gradient_norm,
            autocast=torch.autocast(
                self.device.type, torch.bfloat16, enabled=uses_bf16(job.train, self.device)
            ),
        )

    def run(self) -> None:
        if found := checkpoint.newest(self.job.checkpoints):
            self.reached, self.best = checkpoint.load(found, self.bare, self.optimizer)
            if self.rank.number == 0:
                progress.warn(f"resumed behind epoch {self.reached.epoch}")
        while self.reached.epoch < self.job.train.epochs:
            metrics = self._epoch()
            if self.rank.number == 0:
                weights = self.bare.state_dict()
                checkpoint.save(
                    self.job.checkpoints,
                    self.reached,
                    weights=weights,
                    best=self.best,
                    optimizer=self.optimizer,
                )
            self.group.report(metrics)

    def _epoch(self) -> dict[str, float]:
        epoch = self.reached.epoch
        self.meter = progress.Meter(f"epoch {epoch + 1} of {self.job.train.epochs}: step")
        torch.manual_seed(self.job.train.seed + 1000 * (epoch + 1) + self.rank.number)
        loss = train_epoch(self.module, self._examples(epoch), self.step, after=self._stepped)
        metrics = {"epoch": epoch + 1.0, "train_loss": float(np.mean(self.group.gather(loss)))}
        metrics["learning_rate"] = self.optimizer.param_groups[0]["lr"]
        metrics |= self._validate()
        self.reached.epoch += 1
        self.reached.history.append(metrics)
        self._select(metrics.get(f"validation_{self.job.train.metric}", float("nan")))
        return metrics

    def _select(self, score: float) -> None:
        """Keep the weights of the best epoch; the newest as long as no score is defined."""
        known = self.reached.best_score
        better = known is None or (math.isfinite(score) and score > known)
        if self.job.train.select == "last" or better:
            self.reached.best_score = score if math.isfinite(score) else None
            self.reached.best_epoch = self.reached.epoch
            state = self.bare.state_dict()
            self.best = {name: value.detach().cpu().clone() for name, value in state.items()}

    def _validate(self) -> dict[str, float]:
        """Each worker predicts its share; all compute the same metrics from all shares."""
        self.group.align(self.bare)
        mine = np.arange(len(self.validation))[self.rank.number :: self.rank.world]
        size = 2 * self.job.train.batch_size
        part = None
        if chunks := self.validation.chunks(mine, size):
            examples = (self.validation.example(rows).to(self.device) for rows in chunks)
            part = predict(self.bare, examples, self.step)
        parts = [found for found in self.group.gather(part) if found is not None]
        if not parts:
            return {}
        metrics = validation_metrics(parts)
        return {f"validation_{name}": value for name, value in metrics.items()}

    def _chunks(self, epoch: int) -> list[Rows]:
        """Global mini-batches of an epoch: every window once, in an order that the seed gives."""
        order = np.random.default_rng([self.job.train.seed, epoch]).permutation(len(self.training))
        size = self.job.train.batch_size
        chunks = [order[at : at + size] for at in range(0, len(order), size)]
        if len(chunks) > 1 and len(chunks[-1]) < self.rank.world:
            last = chunks.pop()
            chunks[-1] = np.concatenate([chunks[-1], last])
        return chunks

    def _examples(self, epoch: int) -> Iterator[Example]:
        random = np.random.default_rng([self.job.train.seed, epoch, self.rank.number])
        for chunk in self._chunks(epoch):
            mine = chunk[self.rank.number :: self.rank.world]
            # Gradients are averaged over workers; a larger share has to weigh more.
            example = self.training.example(mine, len(mine) * self.rank.world / len(chunk))
            yield augmented(example, self.job.train.augment, random).to(self.device)

    def _stepped(self) -> None:
        self.reached.step += 1
        if self.rank.number == 0:
            self.meter(self.reached.step, self.steps)


def validation_metrics(parts: Sequence[Predicted]) -> dict[str, float]:
    """What the shares of all workers give together.

    A model with a binary branch is ranked by it in auc and ap, and by its classes in auc2 and ap2.
    """
    label_N = torch.cat([part.label_N for part in parts]).numpy()
    probability_NK = torch.cat([part.probability_NK for part in parts]).double().numpy()
    found = classification_metrics(label_N, probability_NK)
    anomaly_N = 1 - probability_NK[:, 0]
    binary = [part.anomaly_N for part in parts if part.anomaly_N is not None]
    if binary:
        anomaly_N = torch.cat(binary).double().numpy()
        ranked = RankedScores(label_N > 0, anomaly_N)
        found |= {"auc2": found["auc"], "ap2": found["ap"]}
        found["auc"] = estimate(ranked.auc, len(label_N))
        found["ap"] = estimate(ranked.average_precision, len(label_N))
    if (threshold := best_threshold(label_N > 0, anomaly_N)) is not None:
        found["threshold"] = threshold
    found["loss"] = sum(part.loss * len(part.label_N) for part in parts) / len(label_N)
    return found


def uses_bf16(train: TrainConfig, device: torch.device) -> bool:
    """bf16 where the processor multiplies it itself; emulated it is slower than fp32."""
    if train.precision == "auto" and device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if train.precision == "auto":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return train.precision == "bf16"
