"""What one worker does: its share of every mini-batch, epoch by epoch, resuming where it can."""

import dataclasses
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from crosswatch import progress
from crosswatch.annotation.labels import BatchLabels, open_labels
from crosswatch.data.batches import open_set
from crosswatch.data.gather import WindowSet, windows_of
from crosswatch.evaluation.classification import classification_metrics
from crosswatch.models.detector import DetectorFacts
from crosswatch.records import Block
from crosswatch.training import checkpoint
from crosswatch.training.augment import augmented
from crosswatch.training.loop import Example, Step, predict, train_epoch
from crosswatch.training.losses.fmformer import joint_loss
from crosswatch.training.optim import build_optimizer
from crosswatch.training.settings import TrainConfig

Rows = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker is told."""

    batches: Path
    labels: Path
    checkpoints: Path
    facts: DetectorFacts
    train: TrainConfig


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
        return module

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def align(self, module: torch.nn.Module) -> None:
        pass

    def report(self, metrics: dict[str, float]) -> None:
        pass


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledWindows:
    """The windows of a block with their answers."""

    windows: WindowSet
    labels: tuple[BatchLabels, ...]
    class_N: npt.NDArray[np.int64]
    facts: DetectorFacts

    @classmethod
    def open(cls, job: Job, block: Block) -> "LabelledWindows":
        batch_set = open_set(job.batches, verify=False)
        windows = windows_of(batch_set, job.facts.windows, block)
        labels = tuple(open_labels(job.labels, batch) for batch in batch_set.batches)
        classes = [
            of_batch.class_of(table) for of_batch, table in zip(labels, windows.tables, strict=True)
        ]
        return cls(
            windows=windows,
            labels=labels,
            class_N=np.concatenate(classes),
            facts=job.facts,
        )

    def __len__(self) -> int:
        return len(self.windows)

    def example(self, rows: Rows, share: float = 1.0) -> Example:
        learns_pixels = self.facts.model.pixel_head
        mask = torch.from_numpy(self._masks(rows)).long() if learns_pixels else None
        return Example(
            inputs=self.facts.read(self.windows, rows),
            class_B=torch.from_numpy(self.class_N[rows]),
            mask_BHW=mask,
            share=share,
        )

    def _masks(self, rows: Rows) -> npt.NDArray[np.generic]:
        def pick(number: int, of_table: Rows) -> npt.NDArray[np.uint8]:
            masks = self.labels[number].masks
            assert masks is not None, "the driver checks that masks were refined"
            table = self.windows.tables[number].take(of_table)
            return masks[self.labels[number].mask_row(table)]

        return self.windows.gather(rows, pick)


def fit(job: Job, group: Group) -> None:
    """Train to the last epoch, from the newest checkpoint if there is one."""
    cores = max(1, (os.cpu_count() or 1) // group.rank.world)
    torch.set_num_threads(job.train.threads or cores)
    Learner(job, group).run()


class Learner:
    def __init__(self, job: Job, group: Group) -> None:
        self.job, self.group, self.rank = job, group, group.rank
        self.training = LabelledWindows.open(job, "train")
        self.validation = LabelledWindows.open(job, "validation")
        torch.manual_seed(job.train.seed)
        self.bare = job.facts.build()
        self.module = group.prepare(self.bare)
        self.device = next(self.bare.parameters()).device
        self.optimizer = build_optimizer(job.train.optim, self.bare)
        self.reached = checkpoint.Progress()
        self.best: checkpoint.Weights = {}
        self.steps = job.train.epochs * len(self._chunks(0))
        self.step = Step(
            optimizer=self.optimizer,
            loss_of=self._loss,
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
        better = math.isfinite(score) and score > self.reached.best_score
        undecided = not math.isfinite(self.reached.best_score)
        if self.job.train.select == "last" or better or undecided:
            self.reached.best_score = score if math.isfinite(score) else -math.inf
            self.reached.best_epoch = self.reached.epoch
            state = self.bare.state_dict()
            self.best = {name: value.detach().cpu().clone() for name, value in state.items()}

    def _validate(self) -> dict[str, float]:
        """Each worker predicts its share; all compute the same metrics from all shares."""
        self.group.align(self.bare)
        mine = np.arange(len(self.validation))[self.rank.number :: self.rank.world]
        size = 2 * self.job.train.batch_size
        chunks = [mine[at : at + size] for at in range(0, len(mine), size)]
        part = None
        if chunks:
            examples = (self.validation.example(rows).to(self.device) for rows in chunks)
            part = predict(self.bare, examples, self.step)
        parts = [found for found in self.group.gather(part) if found is not None]
        if not parts:
            return {}
        labels = torch.cat([part[1] for part in parts]).numpy()
        probability = torch.cat([part[0] for part in parts]).numpy()
        found = classification_metrics(labels, probability)
        loss = sum(part[2] * len(part[1]) for part in parts) / len(labels)
        return {"validation_loss": loss} | {f"validation_{k}": v for k, v in found.items()}

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

    def _loss(self, scores: Any, example: Example) -> torch.Tensor:
        return joint_loss(scores, example.class_B, example.mask_BHW, alpha=self.job.train.alpha)


def uses_bf16(train: TrainConfig, device: torch.device) -> bool:
    """bf16 where the processor multiplies it itself; emulated it is slower than fp32."""
    if train.precision == "auto" and device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if train.precision == "auto":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return train.precision == "bf16"
