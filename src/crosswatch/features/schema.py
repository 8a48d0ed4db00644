"""The features of a batch set: per batch and modality an array, its times and what of it is valid.

    features.json               each modality's encoder: weights, preprocessing, version, digest
    BATCH/MODALITY.npy          float32 (N, ..., D); a row without a value is zero
    BATCH/MODALITY_valid.npy    bool (N, ...): false for padding, silence, and rows that failed
    BATCH/MODALITY_spans.npy    float64 (N, 2): from and until when a row tells, in s on the
                                reference clock; rows in order of their beginnings
    BATCH/ENCODER.json          what it was made with and from, and the rows that failed

A batch that gave an encoder nothing to look at (no sound, no captions) has no array of it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch import artifacts
from crosswatch.errors import UserError
from crosswatch.features.encoder import Encoded, Failed, Rows, Spans

FEATURES = "features"
INDEX = "features.json"
ENCODER_FACTS = ("name", "weights", "preprocessing", "version", "digest")
RowsInOrder = Callable[[], Iterator[tuple[int, Encoded | Failed]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feature:
    """One modality of one batch; arrays may be memory-mapped."""

    values: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    spans_s: Spans

    def __post_init__(self) -> None:
        assert self.valid.shape == self.values.shape[:-1], "every vector is valid or not"
        assert self.spans_s.shape == (len(self.values), 2), "every row has its time"

    def __len__(self) -> int:
        return len(self.values)

    def rows_at(
        self, at_s: npt.NDArray[np.float64], *, within_s: float | npt.NDArray[np.float64] = 0.0
    ) -> Rows:
        """The row that tells of each instant (N,); -1 where none does within `within_s`, which may
        be given for each.

        Of overlapping rows it is the one that began last; none may lie within another. What is
        found may tell of later instants too, up to the row's end: `rows_ended_by` never does.
        """
        if not len(self):
            return np.full(len(at_s), -1, np.int64)
        starts, stops = self.spans_s.T
        before = np.searchsorted(starts, at_s, side="right") - 1
        last, following = np.maximum(before, 0), np.minimum(before + 1, len(self) - 1)
        since = np.where(before >= 0, np.maximum(at_s - stops[last], 0.0), np.inf)
        until = np.where(before + 1 < len(self), starts[following] - at_s, np.inf)
        nearest = np.where(since <= until, last, following)
        return np.where(np.minimum(since, until) <= within_s, nearest, -1).astype(np.int64)

    def rows_ended_by(self, at_s: npt.NDArray[np.float64], *, within_s: float) -> Rows:
        """The last row that knows nothing of what came after each instant (N,); -1 where it ended
        more than `within_s` before."""
        stops = self.spans_s[:, 1]
        last = np.searchsorted(stops, at_s, side="right") - 1
        recent = np.append(stops, -np.inf)[last] >= at_s - within_s
        return np.where((last >= 0) & recent, last, -1).astype(np.int64)

    def rows_between(self, start_s: float, stop_s: float) -> Rows:
        """Rows that tell of any instant start_s <= t < stop_s."""
        starts, stops = self.spans_s.T
        return np.flatnonzero((starts < stop_s) & (stops > start_s))


def aligned(
    features: Mapping[str, Feature],
    at_s: npt.NDArray[np.float64],
    *,
    within_s: float = 0.0,
) -> dict[str, Feature]:
    """Every modality at the same instants (N,): what is missing there is zero and not valid."""
    found = {}
    for name, feature in features.items():
        rows = feature.rows_at(at_s, within_s=within_s)
        there = rows >= 0
        values = np.zeros((len(rows), *feature.values.shape[1:]), np.float32)
        valid = np.zeros((len(rows), *feature.valid.shape[1:]), np.bool_)
        values[there], valid[there] = feature.values[rows[there]], feature.valid[rows[there]]
        spans_s = np.stack([at_s, at_s], axis=1)
        found[name] = Feature(values=values, valid=valid, spans_s=spans_s)
    return found


def modalities_in(folder: Path) -> dict[str, dict[str, Any]]:
    """Facts of every modality below a folder: of its encoder, and how wide it is."""
    found: dict[str, dict[str, Any]] = {}
    for told in sorted(folder.glob("*/*.json")):
        facts = artifacts.read_json(told)
        encoder = {key: facts[key] for key in ENCODER_FACTS}
        for name in facts["modalities"]:
            values = np.load(told.parent / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            width = {"width": values.shape[-1], "axes": values.ndim}
            found.setdefault(name, {**encoder, **width})
            assert found[name]["width"] == width["width"], "one encoder gives one width"
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """The features artifact, opened.

    Attributes:
        modalities: name -> facts of the encoder that made it (`weights` is empty where it needs
            none) and the shape of a row.
    """

    digest: str
    folder: Path
    batches: tuple[str, ...]
    encoders: tuple[str, ...]
    modalities: Mapping[str, Mapping[str, Any]]

    def feature(self, batch: str, modality: str) -> Feature | None:
        """Memory-mapped; None where the batch gave nothing to look at, or was refused.

        Raises:
            UserError: the set does not hold this batch or this modality.
        """
        if batch not in self.batches:
            raise UserError(
                f"{self.folder}: holds no batch {batch!r}; it holds "
                f"{', '.join(self.batches[:9]) or 'none'}."
            )
        if modality not in self.modalities:
            if modality.removesuffix("_tokens") in self.encoders:
                return None  # no batch gave it anything to look at
            raise UserError(
                f"{self.folder}: holds no {modality!r}; it holds "
                f"{', '.join(self.modalities) or 'nothing'}. Add it to features.encoders and run "
                "extract."
            )
        return read_feature(self.folder / batch, modality)


def open_features(path: Path, *, verify: bool = True) -> FeatureSet:
    """
    Raises:
        UserError: not a features artifact, or damaged.
    """
    manifest = artifacts.open_artifact(path, kind=FEATURES, verify=verify)
    index = artifacts.read_json(path / INDEX)
    return FeatureSet(
        digest=manifest.digest,
        folder=path,
        batches=tuple(index["batches"]),
        encoders=tuple(index["encoders"]),
        modalities=index["modalities"],
    )


def read_feature(folder: Path, modality: str) -> Feature | None:
    if not (folder / f"{modality}.npy").exists():
        return None
    values, valid, spans_s = (
        np.load(folder / f"{modality}{part}.npy", mmap_mode="r", allow_pickle=False)
        for part in ("", "_valid", "_spans")
    )
    return Feature(values=values, valid=valid, spans_s=spans_s)


def write_feature(folder: Path, modality: str, feature: Feature) -> None:
    """What is in memory already, such as features that came from elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{modality}.npy", feature.values)
    np.save(folder / f"{modality}_valid.npy", feature.valid)
    np.save(folder / f"{modality}_spans.npy", feature.spans_s)


def write_rows(folder: Path, spans_s: Spans, rows: RowsInOrder) -> tuple[str, ...]:
    """Write every modality that the rows hold, one row in memory at a time.

    Sequences of different lengths are padded to the longest; `rows` is gone through twice.

    Returns:
        The modalities; none where every row failed or there is none.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for _, found in rows():
        if isinstance(found, Failed):
            continue
        for name, vector in found.items():
            shape = vector.values.shape
            shapes[name] = tuple(map(max, shapes.get(name, shape), shape))
    stacks = {name: _stack(folder, name, len(spans_s), shape) for name, shape in shapes.items()}
    for row, found in rows():
        if isinstance(found, Failed):
            continue
        for name, vector in found.items():
            values, valid = stacks[name]
            inner = tuple(slice(size) for size in vector.valid.shape)
            values[(row, *inner)] = np.where(vector.valid[..., None], vector.values, 0.0)
            valid[(row, *inner)] = vector.valid
    for name in stacks:
        np.save(folder / f"{name}_spans.npy", spans_s)
    return tuple(stacks)


def _stack(folder: Path, name: str, rows: int, row_shape: tuple[int, ...]) -> tuple[Any, Any]:
    def zeros(file: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Any:
        return np.lib.format.open_memmap(folder / file, mode="w+", dtype=dtype, shape=shape)

    values = zeros(f"{name}.npy", (rows, *row_shape), np.float32)
    return values, zeros(f"{name}_valid.npy", (rows, *row_shape[:-1]), np.bool_)
