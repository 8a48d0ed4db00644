"""Features of others: each video or clip of an import is a batch of times and labels alone.

Nobody delivers its pictures; when they were taken is known, and what happens in them. The features
themselves stay where they are until extract takes them.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from crosswatch.artifacts import digest_of
from crosswatch.data.adapters.arrival import Arrival, Found
from crosswatch.data.adapters.finding import found_of
from crosswatch.data.adapters.imported_labels import NORMAL, Told
from crosswatch.data.adapters.imported_sets import (
    AGAIN,
    PARTS,
    ImportedSet,
    is_imported,
    open_imported,
)
from crosswatch.data.ingestion import IngestConfig
from crosswatch.data.raw import RawBatch, RawTimes
from crosswatch.data.sums import ID_PATTERN
from crosswatch.errors import BadBatchError, UserError
from crosswatch.records import Block

BLOCKS: Mapping[str, Block] = {
    "train": "train", "validation": "validation", "test": "evaluation"
}  # fmt: skip
CLOCK = "camera"


class ImportedAdapter:
    """Reads a features artifact that was imported, or a folder of such (train, test)."""

    def __init__(self, config: IngestConfig) -> None:
        self._classes = config.classes
        self._imported = config.imported

    def find(self, source: Path) -> Found:
        """Videos and clips in the order of their imports; reads no array.

        Raises:
            UserError: there is no import, or its classes or splits are not those that are known.
        """
        chosen = list(_chosen(source))
        self._refuse_unknown(source, chosen)
        return found_of(
            (name, opened.folder / name, partial(_digest, opened, name)) for opened, name in chosen
        )

    def read(self, arrival: Arrival) -> RawBatch:
        """Verify every byte of the batch, and tell its times and events.

        Raises:
            BadBatchError: an array is missing, was changed, or is no feature.
        """
        opened, name = open_imported(arrival.path.parent), arrival.path.name
        told = Told.read(opened.records.get(name))
        opened.verify(name)
        until_s = _check_arrays(opened, name)
        rate_hz, count = self._imported.rate_hz, told.frames
        if count is None or opened.frame_rate_hz is None:
            count = max(2, int(np.ceil(until_s * rate_hz - 1e-9)))
        else:
            rate_hz = opened.frame_rate_hz
        times_s = np.arange(count) / rate_hz
        stop_s = count / rate_hz
        events, behind = told.events(count, rate_hz)
        return RawBatch(
            id=arrival.id,
            plant="",
            started_at="",
            video=None,
            signal=None,
            times=RawTimes(times_s=times_s, rate_hz=rate_hz, clock=CLOCK),
            events=events,
            labels_clock=CLOCK,
            segments=((0.0, stop_s),),
            blocks=((BLOCKS[told.split], 0.0, stop_s),) if told.split else (),
            undivided=True,
            warnings=(f"{behind} events begin behind its last frame, left out",) if behind else (),
        )

    def _refuse_unknown(self, source: Path, chosen: Sequence[tuple[ImportedSet, str]]) -> None:
        told = []
        for opened, name in chosen:
            try:
                told.append(Told.read(opened.records.get(name)))
            except BadBatchError:  # that batch alone is refused, by its digest
                continue
        splits = {each.split for each in told} - {None, *BLOCKS}
        if splits:
            raise UserError(
                f"{source}: was imported with --split {', '.join(sorted(map(str, splits)))}; "
                f"known are {', '.join(BLOCKS)}. Import it again with one of them."
            )
        has_normal = any(each.normal is not None for each in told)
        named = dict.fromkeys(itertools.chain.from_iterable(each.named for each in told))
        normal = next((each.normal for each in told if each.normal), NORMAL[0])
        meant = [normal, *sorted(named)] if has_normal else [*named]
        advice = f"Set 'ingest.classes=[{', '.join(meant)}]'."
        unknown = [name for name in named if name not in self._classes]
        if unknown:
            raise UserError(
                f"{source}: its labels name {', '.join(unknown)}; ingest.classes are "
                f"{', '.join(self._classes)}. {advice}"
            )
        if has_normal and self._classes[0] in named:
            raise UserError(
                f"{source}: the first of ingest.classes stands for normal, and is "
                f"{self._classes[0]!r}, which its labels name as an anomaly. {advice}"
            )


def _chosen(source: Path) -> Iterator[tuple[ImportedSet, str]]:
    """Each batch of the imports at `source`, or the one whose folder it is."""
    if is_imported(source):
        folders = [source]
    elif is_imported(source.parent) and source.name in open_imported(source.parent).batches:
        yield open_imported(source.parent), source.name
        return
    else:
        inside = sorted(source.iterdir()) if source.is_dir() else []
        folders = [path for path in inside if path.name[0] != "." and is_imported(path)]
    if not folders:
        raise UserError(
            f"{source}: holds no imported features. Run crosswatch data import --out "
            f"{source}/train first."
        )
    for folder in folders:
        opened = open_imported(folder)
        for name in opened.batches:
            if not ID_PATTERN.fullmatch(name):
                raise UserError(f"{folder}: {name[:100]!r} is no name of a batch. {AGAIN}")
            yield opened, name


def _digest(opened: ImportedSet, name: str) -> str:
    """Over its features' files and its record: changed features are another batch."""
    record = opened.records.get(name)
    Told.read(record)
    files = {file: entry["sha256"] for file, entry in opened.files.get(name, {}).items()}
    return digest_of([opened.layout, opened.frame_rate_hz, record, files])


def _check_arrays(opened: ImportedSet, name: str) -> float:
    """Until when the rows of any modality tell; shapes and times are those of features."""
    modalities, until_s = opened.modalities_of(name), 0.0
    if not modalities:
        raise BadBatchError(f"{name}: the import holds no features of it. {AGAIN}")
    for modality in modalities:
        files = [opened.folder / name / f"{modality}{part}.npy" for part in PARTS]
        try:
            values, valid, spans_s = (
                np.load(file, mmap_mode="r", allow_pickle=False) for file in files
            )
        except (OSError, ValueError, EOFError) as error:
            raise BadBatchError(
                f"{modality}: cannot be read: {' '.join(str(error).split())}. {AGAIN}"
            ) from error
        fits = values.ndim > 1 and values.size and values.dtype == np.float32
        fits = fits and valid.dtype == np.bool_ and valid.shape == values.shape[:-1]
        if not fits or spans_s.shape != (len(values), 2) or spans_s.dtype != np.float64:
            raise BadBatchError(
                f"{modality}: is {values.dtype} {values.shape}, valid {valid.dtype} {valid.shape}, "
                f"spans {spans_s.dtype} {spans_s.shape}; expected float32 (N, ..., D), bool "
                f"(N, ...), float64 (N, 2). {AGAIN}"
            )
        if not np.isfinite(spans_s).all() or (np.diff(spans_s[:, 0]) < 0).any():
            raise BadBatchError(f"{modality}: the times of its rows do not rise. {AGAIN}")
        until_s = max(until_s, float(spans_s[:, 1].max()))
    return until_s
