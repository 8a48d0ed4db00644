"""Train a detector under Ray Train, with checkpoints."""

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from crosswatch import artifacts, config, progress
from crosswatch.annotation.labels import open_labels
from crosswatch.data.batches import BatchSet
from crosswatch.data.clips import ClipsConfig
from crosswatch.data.windows import WindowConfig, window_table
from crosswatch.errors import UserError
from crosswatch.evaluation.alarms import best_threshold
from crosswatch.evaluation.scoring import score_block
from crosswatch.examples.facts import facts_of
from crosswatch.examples.opening import Sources, open_examples
from crosswatch.models import ModelConfig
from crosswatch.models.detector import (
    ON_EVALUATION,
    Detector,
    DetectorFacts,
    save_detector,
    usual_device,
)
from crosswatch.models.settings.fmformer import FmFormerConfig
from crosswatch.records import TimeRange
from crosswatch.training.distributed import Fitted, train_distributed, workers_of
from crosswatch.training.learner import Job
from crosswatch.training.plots import plot_curves
from crosswatch.training.resources import resources_of
from crosswatch.training.settings import TrainConfig

CHECKPOINT = "checkpoint"
SELECTED_BY = {
    "best": "validation {metric}",
    "last": "last epoch",
    "test": f"{{metric}} {ON_EVALUATION}",
}
UNDEFINED = {  # in every epoch, so that none was better than the one before
    "best": "last epoch ({metric} is undefined on validation)",
    "test": f"last epoch ({{metric}} {ON_EVALUATION} is undefined)",
}


def train(
    *,
    batches: Path,
    labels: Path,
    features: Path | None = None,
    out: Path,
    checkpoints: Path | None = None,
    windows: WindowConfig,
    clips: ClipsConfig,
    model: ModelConfig,
    train: TrainConfig,
) -> None:
    """A training that was cut off goes on from what stands in `checkpoints`."""
    sources = Sources.open(batches, labels, features)
    batch_set = sources.batch_set
    resources = resources_of(model)
    parents = {**sources.digests(), **resources.digests}
    settings = {section: config.plain(value) for section, value in
                (("windows", windows), ("clips", clips), ("model", model),
                 ("train", train))}  # fmt: skip
    facts = facts_of(sources, windows, clips, model)
    _refuse_few(sources, facts, train)
    _refuse_unselectable(sources, facts, train)
    _refuse_missing_masks(labels, batch_set, windows, model)
    work = artifacts.digest_of([parents, settings, artifacts.code_version()])[:16]
    scratch = (checkpoints or out.parent / f".{out.name}.checkpoints").resolve() / work
    with (
        _alone_in(scratch),
        artifacts.create(out, kind=CHECKPOINT, config=settings, parents=parents) as draft,
    ):
        fitted = train_distributed(
            Job(
                batches=batches.resolve(),
                labels=labels.resolve(),
                features=None if features is None else features.resolve(),
                checkpoints=scratch,
                facts=facts,
                train=train,
                resources=resources.load,
            )
        )
        seen = [item for item in batch_set.ranges if item.block != "evaluation"]
        _write(draft, facts, fitted, train, seen, _threshold(sources, facts, fitted, train))
        shutil.rmtree(scratch, ignore_errors=True)


@contextlib.contextmanager
def _alone_in(scratch: Path) -> Iterator[None]:
    """One process at a time trains into a folder of checkpoints."""
    named = f"crosswatch-{artifacts.digest_of(str(scratch))[:24]}.lock"
    lock = FileLock(Path(tempfile.gettempdir()) / named, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{scratch}: another process trains the same settings on the same data. Wait for it, "
            "or end it."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _refuse_few(sources: Sources, facts: DetectorFacts, train: TrainConfig) -> None:
    """Each mini-batch is shared out, so that every worker needs an example of it."""
    workers, count = workers_of(train.workers), len(open_examples(sources, facts, "train"))
    if count < workers:
        raise UserError(
            f"the training blocks hold {count} windows or clips, fewer than there are workers, "
            f"{workers}. Set train.workers={0 if count == 1 else count} or below, or deliver more."
        )


def _refuse_unselectable(sources: Sources, facts: DetectorFacts, train: TrainConfig) -> None:
    if train.select == "best" and not len(open_examples(sources, facts, "validation")):
        raise UserError(
            "train.select=best picks the epoch by validation windows or clips, and there are none. "
            "Name a batch in split.validation, or set train.select=last."
        )
    if train.select == "test" and not len(open_examples(sources, facts, "evaluation")):
        raise UserError(
            "train.select=test picks the epoch by windows or clips of the evaluation set, and "
            "there are none. Name a batch in split.evaluation, or set train.select=last."
        )


def _refuse_missing_masks(
    labels: Path, batch_set: BatchSet, windows: WindowConfig, model: ModelConfig
) -> None:
    has_pixels = isinstance(model, FmFormerConfig) and model.pixel_head
    for batch in batch_set.batches if has_pixels else ():
        of_batch = open_labels(labels, batch)
        if of_batch.masks is not None:
            of_batch.mask_row(window_table(batch, windows))
        else:
            raise UserError(
                f"{labels}: batch {batch.id} has no masks, which model.pixel_head=true learns "
                "from. Run refine with refine.masks=window_ends, or set model.pixel_head=false."
            )


def _threshold(
    sources: Sources, facts: DetectorFacts, fitted: Fitted, train: TrainConfig
) -> float | None:
    """From which score on something is abnormal, chosen on validation: on its frames, where a
    model that learned from whole clips tells moments."""
    if train.select == "test":
        return None
    chosen = fitted.reached.history[fitted.reached.best_epoch - 1]
    if facts.model.task != "moments":
        return chosen.get("validation_threshold")
    if not len(open_examples(sources, facts, "validation")):
        return None
    module = facts.build()
    module.load_state_dict(fitted.weights)
    detector = Detector(facts=facts, module=module.eval().to(usual_device()), seen=())
    predictions = score_block(detector, sources, block="validation")
    rows = predictions.rows
    if (rows.groupby(["batch", "start_s"])["label"].nunique() < 2).all():
        return None  # whole clips were labelled: nobody told which of their frames
    return best_threshold(rows["label"].to_numpy() > 0, predictions.anomaly_N)


def _selected_by(draft: artifacts.Draft, fitted: Fitted, train: TrainConfig) -> str:
    if train.select == "last" or fitted.reached.best_score is not None:
        return SELECTED_BY[train.select].format(metric=train.metric)
    told = UNDEFINED[train.select].format(metric=train.metric)
    draft.warnings.append(f"the epoch is the {told}")
    progress.warn(draft.warnings[-1])
    return told


def _write(
    draft: artifacts.Draft,
    facts: DetectorFacts,
    fitted: Fitted,
    train: TrainConfig,
    seen: Sequence[TimeRange],
    threshold: float | None,
) -> None:
    reached = fitted.reached
    save_detector(
        draft.path,
        facts,
        fitted.weights,
        epoch=reached.best_epoch,
        seen=[dataclasses.asdict(item) for item in seen],
        selected_by=_selected_by(draft, fitted, train),
        threshold=threshold,
        workers=fitted.workers,
    )
    artifacts.write_json(draft / "curves.json", reached.history)
    plot_curves(reached.history, draft / "curves.png", metric=train.metric)
    draft.counts.update({"epochs": reached.epoch, "steps": reached.step})
    chosen = reached.history[reached.best_epoch - 1]
    score = chosen.get(f"validation_{train.metric}")
    text = f"epoch {reached.best_epoch} of {reached.epoch}"
    block = "EVALUATION SET" if train.select == "test" else "validation"
    progress.outcome(text if score is None else f"{text}, {block} {train.metric} {score:.3f}")
