"""Which batches are evaluated together, so that each is evaluated once and none is in two folds."""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crosswatch.data.batches import Batch, BatchSet
from crosswatch.errors import UserError

Folds = tuple[tuple[str, ...], ...]
"""Ids of the batches of each fold."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CrossvalidateConfig:
    """A study on folds of batches; nothing else reads it."""

    folds: int = 0  # 0: each batch is one
    seeds: int = 1  # trainings on each fold, with train.seed, train.seed + 1 and so on
    seed: int = 0  # of the order in which batches are dealt into folds

    def __post_init__(self) -> None:
        if self.folds < 0 or self.folds == 1:
            raise UserError(f"folds is {self.folds}; allowed 0 (each batch) and 2 and above")
        if self.seeds < 1:
            raise UserError(f"seeds is {self.seeds}; allowed 1 and above")


def deal(batch_set: BatchSet, settings: CrossvalidateConfig) -> Folds:
    """Each batch on its own, or dealt so that the classes of recordings are as even as may be.

    Raises:
        UserError: there are too few batches, or too few recordings of every class.
    """
    ids = [batch.id for batch in batch_set.batches]
    if len(ids) < 2:
        raise UserError(f"{len(ids)} batch is left; two or more make folds")
    if settings.folds == 0:
        return tuple((name,) for name in ids)
    if settings.folds > len(ids):
        raise UserError(
            f"crossvalidate.folds is {settings.folds}, and there are {len(ids)} batches: no batch "
            f"can be in two folds. Set it to {len(ids)} at most, or to 0 for each batch."
        )
    names = batch_set.classes
    classes = [_classes_of_recordings(batch, names) for batch in batch_set.batches]
    return _dealt(ids, classes, settings)


def before(folds: Folds, number: int) -> tuple[str, ...]:
    """The fold that validates while fold `number` is evaluated."""
    return folds[number - 1]


def _classes_of_recordings(batch: Batch, names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Of each recording the abnormal class that lasts longest in it; 0 where there is none."""
    lasts_NK = np.zeros((len(batch.segments), len(names)))  # noqa: N806
    for number, (start_s, stop_s) in enumerate(batch.segments):
        for event in batch.events:
            inside_s = min(stop_s, event.offset_s) - max(start_s, event.onset_s)
            lasts_NK[number, names.index(event.class_name)] += max(inside_s, 0.0)
    lasts_NK[:, 0] = 0.0
    return np.asarray(lasts_NK.argmax(axis=1), np.int64)


def _dealt(
    ids: Sequence[str], classes: Sequence[npt.NDArray[np.int64]], settings: CrossvalidateConfig
) -> Folds:
    from sklearn.model_selection import StratifiedGroupKFold

    class_of = np.concatenate(classes)  # each recording
    batch_of = np.repeat(np.arange(len(ids)), [len(of_batch) for of_batch in classes])
    most = int(np.bincount(class_of).max())
    if most < settings.folds:
        raise UserError(
            f"crossvalidate.folds is {settings.folds}, and no class has more than {most} "
            f"recordings. Set it to {most} or less, or to 0 for each batch."
        )
    dealer = StratifiedGroupKFold(settings.folds, shuffle=True, random_state=settings.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a rare class cannot be in every fold
        dealt = [batch_of[rows] for _, rows in dealer.split(class_of, class_of, batch_of)]
    if not all(map(len, dealt)):
        raise UserError(
            f"crossvalidate.folds {settings.folds}: {len(ids)} batches so uneven leave a fold "
            "empty. Set fewer folds, or another crossvalidate.seed."
        )
    return tuple(tuple(ids[number] for number in np.unique(rows)) for rows in dealt)
