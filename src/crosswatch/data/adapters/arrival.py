"""The arrival layout: a folder a batch, complete when its SHA256SUMS is there.

Every name in it was written by somebody else: it is looked up below the folder or not at all.
"""

import concurrent.futures
import dataclasses
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from crosswatch.artifacts import sha256_of
from crosswatch.data.adapters import declared
from crosswatch.data.adapters.declared import DESCRIPTION
from crosswatch.data.adapters.streams import read_audio, read_signal, read_video
from crosswatch.data.ingestion import RawBatch
from crosswatch.data.sums import ID_PATTERN, SUMS, read_sums
from crosswatch.data.times.unfold import MAX_REORDERED_SHARE
from crosswatch.errors import ADVICE, BadBatchError, UserError

HASHERS = 4  # hashing leaves the interpreter to others
RESERVED = ("set.json", "manifest.json", "scores.json", "quarantine")  # stand beside batches


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrival:
    """A complete delivery; the digest is over its contents."""

    id: str
    digest: str
    path: Path  # on this machine; where it lies elsewhere, where it will be brought to
    origin: str = ""  # where it was found, if not there


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    arrivals: tuple[Arrival, ...]
    not_arrived: tuple[str, ...]
    unreadable: Mapping[str, str] = dataclasses.field(default_factory=dict)  # name -> reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArrivalAdapter:
    """Reads a folder of batch folders, or one batch folder."""

    max_reordered_share: float = MAX_REORDERED_SHARE  # rows of a table that may come late

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
            return _read(arrival, self.max_reordered_share)
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


def _read(arrival: Arrival, max_reordered_share: float) -> RawBatch:
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
    files = {name: safe_path(folder, name) for name in told.files()}
    video, video_warnings = read_video(told, files, max_reordered_share=max_reordered_share)
    signal, signal_warnings = read_signal(told, files, max_reordered_share=max_reordered_share)
    late = tuple(f"late extra file {name}: not in {SUMS}, not read" for name in extra)
    return RawBatch(
        id=told.id,
        plant=told.plant,
        started_at=told.started_at,
        video=video,
        signal=signal,
        audio=read_audio(told, files, video),
        events=notes.known_events(),
        keyframes=notes.known_keyframes(),
        labels_clock=notes.clock,
        frame_size_px=notes.frame_size_px,
        warnings=(*late, *video_warnings, *signal_warnings),
    )


def _verify(folder: Path) -> tuple[set[str], list[str]]:
    """The names that SHA256SUMS lists, each file held against its hash, and those it does not."""
    sums = read_sums((folder / SUMS).read_bytes())
    paths = {name: safe_path(folder, name) for name in sums}
    for name, path in paths.items():
        if not path.is_file():
            raise BadBatchError(f"{name}: is missing though {SUMS} lists it. {ADVICE}")
    with concurrent.futures.ThreadPoolExecutor(HASHERS) as pool:
        found = dict(zip(paths, pool.map(sha256_of, paths.values()), strict=True))
    for row, (name, wanted) in enumerate(sums.items(), start=1):
        if found[name] != wanted:
            raise BadBatchError(
                f"{name}: checksum mismatch: SHA-256 is {found[name][:12]}..., {SUMS} row {row} "
                f"says {wanted[:12]}... ({paths[name].stat().st_size} bytes). {ADVICE}"
            )
    listed = set(sums)
    if DESCRIPTION not in listed:
        raise BadBatchError(
            f"{DESCRIPTION}: is not listed in {SUMS} ({len(listed)} files are). {ADVICE}"
        )
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return listed, sorted(present - listed - {SUMS})
