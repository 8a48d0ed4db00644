"""Which batches are evaluated together, so that each is evaluated once and none is in two folds."""

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from crosswatch.data.batches import BatchSet
from crosswatch.data.clips import ClipsConfig, clip_table
from crosswatch.errors import UserError
from crosswatch.records import BLOCKS

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
    classes = [_classes_of_recordings(batch_set, number) for number in range(len(ids))]
    return _dealt(ids, classes, settings)


def before(folds: Folds, number: int) -> tuple[str, ...]:
    """The fold that validates while fold `number` is evaluated."""
    return folds[number - 1]


def _classes_of_recordings(batch_set: BatchSet, number: int) -> npt.NDArray[np.int64]:
    """Of each recording the class that lasts longest; normal where no other occurs."""
    batch, whole = batch_set.batches[number], ClipsConfig(length_s=0.0)
    tables = [clip_table(batch, batch_set, whole, block) for block in BLOCKS]
    return np.concatenate([table.class_of for table in tables])


def _dealt(
    ids: Sequence[str], classes: Sequence[npt.NDArray[np.int64]], settings: CrossvalidateConfig
) -> Folds:
    from sklearn.model_selection import StratifiedGroupKFold

    class_N = np.concatenate(classes)
    batch_N = np.repeat(np.arange(len(ids)), [len(of_batch) for of_batch in classes])
    most = int(np.bincount(class_N).max())
    if most < settings.folds:
        raise UserError(
            f"crossvalidate.folds is {settings.folds}, and no class has more than {most} "
            f"recordings. Set it to {most} or less, or to 0 for each batch."
        )
    dealer = StratifiedGroupKFold(settings.folds, shuffle=True, random_state=settings.seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a rare class cannot be in every fold
        dealt = [batch_N[rows] for _, rows in dealer.split(class_N, class_N, batch_N)]
    if not all(map(len, dealt)):
        raise UserError(
            f"crossvalidate.folds {settings.folds}: {len(ids)} batches so uneven leave a fold "
            "empty. Set fewer folds, or another crossvalidate.seed."
        )
    return tuple(tuple(ids[number] for number in np.unique(rows)) for rows in dealt)
