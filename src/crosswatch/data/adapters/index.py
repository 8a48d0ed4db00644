"""Labelled clips that an index.csv lists: a batch is one source, its clips one after another.

Clips cut from one recording resemble each other, so a source is what a split may not divide. A clip
of unknown source is a source of its own.
"""

import csv
import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from crosswatch.artifacts import digest_of, sha256_of
from crosswatch.data.adapters.arrival import Arrival, Found, safe_path
from crosswatch.data.adapters.clips import ClipPictures, one_after_another, sound_of, take
from crosswatch.data.adapters.finding import batch_id, found_of, short_hash
from crosswatch.data.audio.source import RawAudio
from crosswatch.data.ingestion import IngestConfig
from crosswatch.data.layouts import IndexConfig
from crosswatch.data.raw import RawBatch
from crosswatch.data.signals import FIRST_ROW
from crosswatch.data.video.decode import RawVideo
from crosswatch.errors import BadBatchError, UserError
from crosswatch.records import Event

INDEX = "index.csv"
CLOCK = "camera"
Row = dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Clip:
    name: str
    path: Path
    class_name: str


class IndexAdapter:
    """Video, a class a clip, and the sound of the clips that have any; one clock."""

    def __init__(self, config: IngestConfig) -> None:
        self._classes = config.classes
        self._index = config.index

    def find(self, source: Path) -> Found:
        """Sources in order of their names.

        Raises:
            UserError: there is no index.csv, it lacks a column, or it lists no clip.
        """
        index = _index_file(source)
        groups = self._groups(index)
        return found_of(
            (name, index, partial(self._digest, index, rows))
            for name, rows in sorted(groups.items())
        )

    def read(self, arrival: Arrival) -> RawBatch:
        """The clips of one source at the common rate, in order of their names.

        Raises:
            BadBatchError: a clip is missing or no video, or its label is unknown.
        """
        index = arrival.path
        rows = self._groups(index).get(arrival.id)
        if rows is None:
            raise BadBatchError(f"{INDEX}: changed while it was read. Run again.")
        clips = self._clips(index, rows)
        rate_hz = self._index.rate_hz
        taken = [take(clip.path, rate_hz) for clip in clips]
        times_s, spans = one_after_another([len(each.picked) for each in taken], rate_hz)
        sound, faults = sound_of(taken, spans)
        return RawBatch(
            id=arrival.id,
            plant="",
            started_at="",
            video=RawVideo(
                path=index,
                times_s=times_s,
                rate_hz=rate_hz,
                clock=CLOCK,
                times_name=INDEX,
                pictures=ClipPictures(taken),
            ),
            signal=None,
            audio=RawAudio(path=index, rate_hz=None, clock=CLOCK, clips=sound) if sound else None,
            events=tuple(
                Event(
                    class_name=clip.class_name,
                    onset_s=start,
                    apex_s=(start + stop) / 2,
                    offset_s=stop,
                )
                for clip, (start, stop) in zip(clips, spans, strict=True)
            ),
            labels_clock=CLOCK,
            segments=spans,
            warnings=_told(clips, faults),
        )

    def _groups(self, index: Path) -> dict[str, list[Row]]:
        """Rows by the id of their source."""
        groups: dict[str, list[Row]] = {}
        for row in _rows(index, self._index):
            path, source = row[self._index.path], row[self._index.source]
            name = batch_id(source) if source else f"{_stem(path)}-{short_hash(path)}"
            groups.setdefault(name, []).append(row)
        return groups

    def _clips(self, index: Path, rows: Sequence[Row]) -> list[_Clip]:
        root = index.parent / self._index.root
        found: dict[str, _Clip] = {}
        for row in rows:
            name = row[self._index.path]
            if name in found:
                raise BadBatchError(f"{INDEX}: lists {name[:100]!r} twice. Remove one row.")
            path = safe_path(root, name)
            if not path.is_file():
                raise BadBatchError(
                    f"{name[:100]!r}: is missing though {INDEX} lists it. Add the clip, remove its "
                    "row, or set ingest.index.root to the folder that paths start from."
                )
            class_name = self._class(name, row[self._index.label])
            found[name] = _Clip(name=name, path=path, class_name=class_name)
        return [found[name] for name in sorted(found)]

    def _class(self, name: str, label: str) -> str:
        """A label is a class by name, or by its number in ingest.classes."""
        if label in self._classes:
            return label
        if label.isascii() and label.isdigit() and int(label[:9]) < len(self._classes):
            return self._classes[int(label[:9])]
        raise BadBatchError(
            f"{INDEX}: {name[:100]!r} has label {label[:40]!r}; ingest.classes are "
            f"{', '.join(self._classes)}, by name or counted from 0. Correct the label or the "
            "classes."
        )

    def _digest(self, index: Path, rows: Sequence[Row]) -> str:
        clips = self._clips(index, rows)
        return digest_of([[clip.name, clip.class_name, sha256_of(clip.path)] for clip in clips])


def _told(clips: Sequence[_Clip], faults: Mapping[Path, str]) -> tuple[str, ...]:
    """A warning a clip whose sound was lost."""
    return tuple(
        f"{clip.name[:100]!r}: its sound cannot be used and is silence: {faults[clip.path]}"
        for clip in clips
        if clip.path in faults
    )


def _index_file(source: Path) -> Path:
    index = source if source.is_file() else source / INDEX
    if not index.is_file():
        raise UserError(f"{source}: holds no {INDEX}. Name the folder that holds it.")
    return index


def _rows(index: Path, config: IndexConfig) -> list[Row]:
    """The three columns of every row, without the space around them."""
    needed = (config.path, config.label, config.source)
    try:
        with index.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            reader = csv.DictReader(stream, restval="")
            header = list(reader.fieldnames or ())
            for column in needed:
                if column not in header:
                    raise UserError(
                        f"{index}: column {column!r} is missing; found "
                        f"{', '.join(header)[:200] or 'none'}. Set ingest.index.path, label and "
                        "source to the names of its columns."
                    )
            rows = [{key: (row[key] or "").strip() for key in needed} for row in reader]
    except csv.Error as error:
        raise UserError(f"{index}: cannot be read as CSV: {error}. Write it again.") from error
    for number, row in enumerate(rows, start=FIRST_ROW):
        if not row[config.path]:
            raise UserError(f"{index}: row {number} names no clip. Fill its {config.path!r}.")
    if not rows:
        raise UserError(f"{index}: lists no clip. Add a row a clip.")
    return rows


def _stem(path: str) -> str:
    """Of a name that leads anywhere, a short safe part to recognise it by."""
    return batch_id(Path(path).stem)[:60]
