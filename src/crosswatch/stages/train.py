"""Train a detector under Ray Train, with checkpoints."""

import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from crosswatch import artifacts, config, progress
from crosswatch.annotation.labels import open_labels, verify_labels
from crosswatch.data.batches import BatchSet, open_set
from crosswatch.data.gather import windows_of
from crosswatch.data.windows import WindowConfig, window_table
from crosswatch.errors import UserError
from crosswatch.models import ModelConfig
from crosswatch.models.detector import DetectorFacts, save_detector, statistics_of
from crosswatch.records import InputShape, TimeRange
from crosswatch.training.distributed import Fitted, train_distributed
from crosswatch.training.learner import Job
from crosswatch.training.plots import plot_curves
from crosswatch.training.settings import TrainConfig

CHECKPOINT = "checkpoint"


def train(
    *,
    batches: Path,
    labels: Path,
    out: Path,
    checkpoints: Path | None = None,
    windows: WindowConfig,
    model: ModelConfig,
    train: TrainConfig,
) -> None:
    """A training that was cut off goes on from what stands in `checkpoints`."""
    batch_set = open_set(batches)
    labelled = verify_labels(labels, batch_set_digest=batch_set.digest)
    parents = {"batches": batch_set.digest, "labels": labelled.digest}
    settings = {section: config.plain(value) for section, value in
                (("windows", windows), ("model", model), ("train", train))}  # fmt: skip
    facts = _facts(batch_set, windows, model)
    _refuse_unselectable(batch_set, windows, train)
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
                checkpoints=scratch,
                facts=facts,
                train=train,
            )
        )
        seen = [item for item in batch_set.ranges if item.block != "evaluation"]
        _write(draft, facts, fitted, train, seen)
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


def _facts(batch_set: BatchSet, windows: WindowConfig, model: ModelConfig) -> DetectorFacts:
    """Sizes follow from the data and the windows, so that nobody has to say them twice."""
    training = windows_of(batch_set, windows, "train")
    if not len(training):
        raise UserError(
            "the training blocks hold no window with a whole history; deliver longer batches or "
            f"shorten windows.signal_s ({windows.signal_s:g} s)"
        )
    batch = batch_set.batches[0]
    sees_video, sees_signal = "video" in model.streams, "signal" in model.streams
    samples = windows.signal_samples(batch.signal_rate_hz)
    shape = InputShape(
        frames=windows.frames if sees_video else 0,
        frame_px=0 if batch.frames is None else batch.frames.shape[1],
        signal_samples=samples if sees_signal else 0,
        signal_channels=0 if batch.signal is None else batch.signal.shape[1],
        classes=len(batch_set.classes),
    )
    return DetectorFacts(
        model=model,
        shape=shape,
        windows=windows,
        statistics=statistics_of(training) if shape.signal_samples and model.normalises else None,
        classes=batch_set.classes,
    )


def _refuse_unselectable(batch_set: BatchSet, windows: WindowConfig, train: TrainConfig) -> None:
    if train.select == "best" and not len(windows_of(batch_set, windows, "validation")):
        raise UserError(
            "train.select=best picks the epoch by validation windows, and there are none. Name a "
            "batch in split.validation, or set train.select=last."
        )


def _refuse_missing_masks(
    labels: Path, batch_set: BatchSet, windows: WindowConfig, model: ModelConfig
) -> None:
    for batch in batch_set.batches if model.pixel_head else ():
        of_batch = open_labels(labels, batch)
        if of_batch.masks is not None:
            of_batch.mask_row(window_table(batch, windows))
        else:
            raise UserError(
                f"{labels}: batch {batch.id} has no masks, which model.pixel_head=true learns "
                "from. Run refine with refine.masks=window_ends, or set model.pixel_head=false."
            )


def _write(
    draft: artifacts.Draft,
    facts: DetectorFacts,
    fitted: Fitted,
    train: TrainConfig,
    seen: Sequence[TimeRange],
) -> None:
    reached = fitted.reached
    save_detector(
        draft.path,
        facts,
        fitted.weights,
        epoch=reached.best_epoch,
        seen=[dataclasses.asdict(item) for item in seen],
        selected_by=f"validation {train.metric}" if train.select == "best" else "last epoch",
        workers=fitted.workers,
    )
    artifacts.write_json(draft / "curves.json", reached.history)
    plot_curves(reached.history, draft / "curves.png", metric=train.metric)
    draft.counts.update({"epochs": reached.epoch, "steps": reached.step})
    chosen = reached.history[reached.best_epoch - 1]
    score = chosen.get(f"validation_{train.metric}")
    text = f"epoch {reached.best_epoch} of {reached.epoch}"
    progress.outcome(text if score is None else f"{text}, validation {train.metric} {score:.3f}")
