"""The arrival layout: a folder a batch, complete when its SHA256SUMS is there.

Every name in it was written by somebody else: it is looked up below the folder or not at all.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from crosswatch.artifacts import sha256_of
from crosswatch.data import signals
from crosswatch.data.adapters import declared
from crosswatch.data.adapters.declared import DESCRIPTION, SignalEntry, VideoEntry
from crosswatch.data.ingestion import RawBatch
from crosswatch.data.signals import ADVICE, TIME_COLUMN, RawSignal
from crosswatch.data.video import RawVideo
from crosswatch.errors import BadBatchError, UserError

SUMS = "SHA256SUMS"
FRAME_COLUMN = "frame"
RESERVED = ("set.json", "manifest.json", "scores.json")  # files that stand beside batches
ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
SUM_PATTERN = re.compile(r"([0-9a-f]{64}) [ *](.+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrival:
    """A complete delivery; the digest is over its contents."""

    id: str
    digest: str
    path: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    arrivals: tuple[Arrival, ...]
    not_arrived: tuple[str, ...]
    unreadable: Mapping[str, str] = dataclasses.field(default_factory=dict)  # name -> reason


class ArrivalAdapter:
    """Reads a folder of batch folders, or one batch folder."""

    def find(self, source: Path) -> Found:
        """Deliveries in order of their names.

        Raises:
            UserError: there is no such folder, or nothing like a batch in it.
        """
        if not source.is_dir():
            raise UserError(f"{source}: is no folder. Name the folder that holds the batches.")
        folders = [source] if _looks_like_batch(source) else _subfolders(source)
        if not folders:
            raise UserError(
                f"{source}: holds no batch. A batch is a folder with {DESCRIPTION}, its streams "
                f"and {SUMS}."
            )
        arrivals: list[Arrival] = []
        waiting: list[str] = []
        unreadable: dict[str, str] = {}
        for folder in folders:
            name = folder.resolve().name
            try:
                if (folder / SUMS).is_file():
                    arrivals.append(Arrival(id=name, digest=sha256_of(folder / SUMS), path=folder))
                else:
                    waiting.append(name)
            except PermissionError as error:
                unreadable[name] = (
                    f"{folder / SUMS}: cannot be read: {error.strerror}. "
                    "Give the user that runs Crosswatch the right to read it."
                )
        return Found(arrivals=tuple(arrivals), not_arrived=tuple(waiting), unreadable=unreadable)

    def read(self, arrival: Arrival) -> RawBatch:
        """Verify every byte, then parse everything but the pictures.

        Raises:
            BadBatchError: says which file, where, how much, what was allowed and what to do.
            OSError: a fault of the disk or the network, which may be gone the next time.
        """
        try:
            return _read(arrival)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise BadBatchError(
                f"{error.filename or arrival.path}: cannot be read: {error.strerror}. {ADVICE}"
            ) from error


def safe_path(folder: Path, name: str) -> Path:
    """The file of this name below the folder.

    Raises:
        BadBatchError: the name leads out of the folder, or is no plain relative path.
    """
    parts = PurePosixPath(name).parts
    plain = bool(parts) and not any(sign in name for sign in ("\\", "\0"))
    path = folder / name if plain else folder
    inside = plain and ".." not in parts and not PurePosixPath(name).is_absolute()
    if not inside or not path.resolve().is_relative_to(folder.resolve()):
        raise BadBatchError(
            f"{name[:100]!r}: is no file name inside the batch's folder. Use plain relative names."
        )
    return path


def _looks_like_batch(folder: Path) -> bool:
    return (folder / SUMS).is_file() or (folder / DESCRIPTION).is_file()


def _subfolders(source: Path) -> list[Path]:
    """Hidden folders are somebody's work in progress."""
    return sorted(
        path for path in source.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _read(arrival: Arrival) -> RawBatch:
    folder = arrival.path
    listed, extra = _verify(folder)
    told = declared.read_description(folder / DESCRIPTION)
    if told.id != arrival.id or not ID_PATTERN.fullmatch(told.id):
        raise BadBatchError(
            f"{DESCRIPTION}: id {told.id[:100]!r} does not fit the folder {arrival.id[:100]!r}; "
            "both are the same: letters, digits, '.', '_' or '-', at most 100. Rename one of them."
        )
    if told.id.lower() in RESERVED:
        raise BadBatchError(
            f"{DESCRIPTION}: id {told.id!r} is a name that Crosswatch keeps for itself "
            f"({', '.join(RESERVED)}). Rename the batch."
        )
    for name in told.files():
        if name not in listed:
            raise BadBatchError(f"{name}: {DESCRIPTION} names it, but {SUMS} does not. {ADVICE}")
    notes = declared.Notes()
    if told.annotations is not None:
        notes = declared.read_notes(safe_path(folder, told.annotations), told)
    warnings = [f"late extra file {name}: not in {SUMS}, not read" for name in extra]
    if told.streams.audio is not None:
        warnings.append(f"{told.streams.audio.file}: audio is not read by this version")
    return RawBatch(
        id=told.id,
        plant=told.plant,
        started_at=told.started_at,
        video=None if told.streams.video is None else _video(folder, told.streams.video),
        signal=None if told.streams.signal is None else _signal(folder, told.streams.signal),
        events=notes.known_events(),
        keyframes=notes.known_keyframes(),
        labels_clock=notes.clock,
        frame_size_px=notes.frame_size_px,
        warnings=tuple(warnings),
    )


def _verify(folder: Path) -> tuple[set[str], list[str]]:
    """The names that SHA256SUMS lists, each file held against its hash, and those it does not."""
    listed: set[str] = set()
    text = (folder / SUMS).read_text(encoding="utf-8", errors="replace")
    for row, line in enumerate(text.splitlines(), start=1):
        match = SUM_PATTERN.fullmatch(line)
        if match is None:
            raise BadBatchError(
                f"{SUMS}: row {row}: {line[:80]!r} is no line of sha256sum. {ADVICE}"
            )
        wanted, name = match.groups()
        path = safe_path(folder, name.removeprefix("./"))
        if not path.is_file():
            raise BadBatchError(f"{name}: is missing though {SUMS} lists it. {ADVICE}")
        found = sha256_of(path)
        if found != wanted:
            raise BadBatchError(
                f"{name}: checksum mismatch: SHA-256 is {found[:12]}..., {SUMS} row {row} says "
                f"{wanted[:12]}... ({path.stat().st_size} bytes). {ADVICE}"
            )
        listed.add(name.removeprefix("./"))
    if DESCRIPTION not in listed:
        raise BadBatchError(
            f"{DESCRIPTION}: is not listed in {SUMS} ({len(listed)} files are). {ADVICE}"
        )
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return listed, sorted(present - listed - {SUMS})


def _video(folder: Path, entry: VideoEntry) -> RawVideo:
    path = safe_path(folder, entry.file)
    if entry.times is None:
        return RawVideo(path=path, times_s=None, rate_hz=entry.rate_hz, clock=entry.clock)
    times_path = safe_path(folder, entry.times)
    table = signals.read_table(times_path, (FRAME_COLUMN, TIME_COLUMN))
    wrong = np.flatnonzero(table[FRAME_COLUMN] != np.arange(table[FRAME_COLUMN].size))
    if wrong.size:
        at = int(wrong[0])
        raise BadBatchError(
            f"{entry.times}: row {at + signals.FIRST_ROW}: frame is {table[FRAME_COLUMN][at]:g}; "
            f"{at} was expected: frames are numbered from 0 without a hole. {ADVICE}"
        )
    return RawVideo(
        path=path,
        times_s=table[TIME_COLUMN],
        rate_hz=entry.rate_hz,
        clock=entry.clock,
        times_name=entry.times,
    )


def _signal(folder: Path, entry: SignalEntry) -> RawSignal:
    table = signals.read_table(safe_path(folder, entry.file), (TIME_COLUMN, *entry.columns))
    return RawSignal(
        values=np.stack([table[name] for name in entry.columns], axis=1),
        times_s=table[TIME_COLUMN],
        columns=entry.columns,
        unit=entry.unit,
        rate_hz=entry.rate_hz,
        clock=entry.clock,
        name=entry.file,
    )
