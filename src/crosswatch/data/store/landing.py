"""One file on its way from a store: its parts, their hashes, and its name at the end.

Whose SHA-256 is known is hashed in the order of its bytes while the parts come in: out of the
buffer where they come in order, else out of the page cache, which costs a quarter more. The journal
keeps the hash so far at each part's end: a killed transfer that goes on finds the damaged part
without a second hash. Of other files every part has its own hash.
"""

import collections
import dataclasses
import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from crosswatch.data.store.crew import Task
from crosswatch.data.store.disk import disk_faults
from crosswatch.data.store.journal import Journal
from crosswatch.data.store.objects import MissingError, Objects, RefusedError
from crosswatch.data.store.patience import Patience, StoppedError, TransientError
from crosswatch.data.store.settings import TransferConfig
from crosswatch.errors import ResourceError, UserError

CHUNK_BYTES = 2**19  # stays in a core's cache between the socket, the hash and the disk
MOST_ATTEMPTS = 3


class CorruptError(UserError):
    """An object's bytes are not those of its hash, also when they are fetched again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
    """An object to be fetched: by its tag, its SHA-256 or both."""

    key: str
    path: str  # below the target
    bytes: int
    tag: str | None
    sha256: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Site:
    """What all files of one transfer share."""

    objects: Objects
    config: TransferConfig
    into: Path
    staging: Path
    journal: Journal
    moved: Callable[[int], None]
    later: Callable[[Iterable[Task]], None]
    stop: threading.Event
    folders: set[Path] = dataclasses.field(default_factory=set)  # that were made, and lie inside

    def make_folder(self, folder: Path) -> None:
        if folder in self.folders:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if not folder.resolve().is_relative_to(self.into.resolve()):
            raise UserError(f"{str(folder)[:300]!r}: a symbolic link leads out of {self.into}")
        self.folders.add(folder)


class Landing:
    def __init__(self, wanted: Wanted, site: Site, attempt: int = 1) -> None:
        self._wanted = wanted
        self._site = site
        self._attempt = attempt
        self._part_bytes = site.config.part_bytes(wanted.bytes)
        self._count = -(-wanted.bytes // self._part_bytes)
        self.name = self._staged_name()
        self.staged = site.staging / self.name
        self._target = site.into / wanted.path
        self._lock = threading.Lock()
        self._missing: collections.deque[int] = collections.deque()
        self._landed: set[int] = set()
        self._whole = hashlib.sha256()
        self._moved_bytes = 0
        self._hashed_to = 0
        self._is_hashing = False
        self._is_over = False

    def missing_bytes(self) -> int:
        """How much of the disk the file will still take."""
        if self._target.is_file() and self._target.stat().st_size == self._wanted.bytes:
            return 0
        held = self.staged.stat().st_blocks * 512 if self.staged.exists() else 0
        return max(0, self._wanted.bytes - held)

    def begin(self) -> list[Task]:
        """Take stock of what lies here, and leave behind a task for each part that does not."""
        with disk_faults(self._target):
            if self._is_there():
                self._moved(self._wanted.bytes)
                return []
            self._resume()
            missing = [index for index in range(self._count) if index not in self._landed]
            if not missing:
                return self._catch_up()
        self._missing.extend(missing)
        self._site.later([self._fetch_next] * min(len(missing), self._site.config.concurrency))
        return self._fetch_next()

    def _fetch_next(self) -> list[Task]:
        """One hand takes part after part, for then all are hashed in its buffer; idle ones help."""
        with self._lock:
            if self._is_over or not self._missing:
                return []
            index = self._missing.popleft()
        return [*self._fetch(index), self._fetch_next]

    def _fetch(self, index: int) -> list[Task]:
        wanted, site = self._wanted, self._site
        at, stop = self._span(index)
        hashed = None if wanted.sha256 else hashlib.sha256()
        patience = Patience(site.config.patience_s, site.stop)

        def go_on() -> None:
            nonlocal at
            read = site.objects.read(
                wanted.key, start=at, stop=stop, size=wanted.bytes, tag=wanted.tag
            )
            with read as body, disk_faults(self.staged), self.staged.open("r+b", 0) as file:
                while at < stop:
                    chunk = body.read(min(CHUNK_BYTES, stop - at))
                    if not chunk:
                        raise TransientError(
                            f"{self._named()}: broke off {stop - at} bytes before its end"
                        )
                    _write(file.fileno(), chunk, at)
                    if hashed:
                        hashed.update(chunk)
                    else:
                        self._hash_in_order(chunk, at)
                    at += len(chunk)
                    patience.went_well()
                    self._moved(len(chunk))
                    if site.stop.is_set() or self._is_over:
                        raise StoppedError

        try:
            patience.run(go_on)
        except RefusedError:
            return self._changed()
        except MissingError as error:
            raise UserError(f"{self._named()}: is not in the store.") from error
        with disk_faults(self._target):
            with self._lock:
                self._landed.add(index)
            site.journal.landed(self.name, index, hashed.hexdigest() if hashed else None)
            return self._catch_up()

    def _hash_in_order(self, chunk: bytes, at: int) -> None:
        with self._lock:
            if self._is_hashing or self._hashed_to != at:
                return
            self._is_hashing = True
        self._whole.update(chunk)
        self._hashed_up_to(at + len(chunk))

    def _catch_up(self) -> list[Task]:
        """Hash what has landed behind the last hashed byte; commit the file when all has."""
        while True:
            with self._lock:
                if self._is_over or self._is_hashing:
                    return []
                if self._is_complete():
                    self._is_over = True
                    break
                at = self._hashed_to
                if not self._wanted.sha256 or at // self._part_bytes not in self._landed:
                    return []
                self._is_hashing = True
            stop = self._span(at // self._part_bytes)[1]
            self._hash_file(self.staged, self._whole, at, stop)
            self._hashed_up_to(stop)
        return self._commit()

    def _is_complete(self) -> bool:
        if self._wanted.sha256:
            return self._hashed_to == self._wanted.bytes
        return len(self._landed) == self._count

    def _hashed_up_to(self, at: int) -> None:
        if at % self._part_bytes == 0 and at < self._wanted.bytes:
            prefix = self._whole.copy().hexdigest()
            self._site.journal.hashed(self.name, at // self._part_bytes, prefix)
        with self._lock:
            self._hashed_to = at
            self._is_hashing = False

    def _commit(self) -> list[Task]:
        wanted = self._wanted
        if wanted.sha256 and self._whole.hexdigest() != wanted.sha256:
            self._site.journal.forget(self.name)  # the next call must not take it up again
            self.staged.unlink()
            if self._attempt > 1:
                raise CorruptError(
                    f"{self._named()}: has SHA-256 {self._whole.hexdigest()} instead of "
                    f"{wanted.sha256}, also when fetched again. Put it into the store again."
                )
            return self._again(wanted)
        self._site.make_folder(self._target.parent)
        self.staged.replace(self._target)
        return []

    def _changed(self) -> list[Task]:
        """Begin anew with the object that stands there now, unless another part has done so."""
        with self._lock:
            if self._is_over:
                return []
            self._is_over = True
        found = self._site.objects.find(self._wanted.key)
        if found is None:
            raise UserError(f"{self._named()}: was removed while it was fetched.")
        if self._wanted.sha256 and found.bytes != self._wanted.bytes:
            raise CorruptError(
                f"{self._named()}: has {found.bytes} bytes instead of {self._wanted.bytes}. "
                "Put it into the store again."
            )
        if self._attempt >= MOST_ATTEMPTS:
            raise ResourceError(f"{self._named()}: keeps changing while it is fetched.")
        return self._again(dataclasses.replace(self._wanted, bytes=found.bytes, tag=found.tag))

    def _again(self, wanted: Wanted) -> list[Task]:
        """Leave the staged file: parts of it may still be on their way there."""
        self._moved(-self._moved_bytes)
        return [Landing(wanted, self._site, self._attempt + 1).begin]

    def _moved(self, count: int) -> None:
        with self._lock:
            self._moved_bytes += count
        self._site.moved(count)

    def _is_there(self) -> bool:
        """Whether an earlier call has put the file to its place."""
        if self._target.is_symlink() or not self._target.is_file():
            return False
        if self._target.stat().st_size != self._wanted.bytes:
            return False
        if self._wanted.sha256:
            return self._hash_range(self._target, 0, self._wanted.bytes) == self._wanted.sha256
        noted = self._site.journal.noted(self.name).parts
        return all(
            noted.get(index) == self._hash_range(self._target, *self._span(index))
            for index in range(self._count)
        )

    def _resume(self) -> None:
        """Hold the parts that the journal notes against their hashes."""
        if not self.staged.exists() or self.staged.stat().st_size != self._wanted.bytes:
            self._site.journal.forget(self.name)
            with self.staged.open("wb") as file:
                file.truncate(self._wanted.bytes)
            return
        noted = self._site.journal.noted(self.name)
        self._landed = {index for index in noted.parts if 0 <= index < self._count}
        if self._wanted.sha256:
            self._resume_hash(noted.prefixes)
        else:
            for index in sorted(self._landed):
                if self._hash_range(self.staged, *self._span(index)) != noted.parts[index]:
                    self._landed.discard(index)
        for index in self._landed:
            start, stop = self._span(index)
            self._moved(stop - start)

    def _resume_hash(self, prefixes: dict[int, str]) -> None:
        while (
            self._hashed_to < self._wanted.bytes
            and self._hashed_to // self._part_bytes in self._landed
        ):
            index = self._hashed_to // self._part_bytes
            start, stop = self._span(index)
            hashed = self._whole.copy()
            self._hash_file(self.staged, hashed, start, stop)
            if prefixes.get(index + 1, hashed.hexdigest()) != hashed.hexdigest():
                self._landed.discard(index)
                return
            self._whole, self._hashed_to = hashed, stop

    def _hash_range(self, path: Path, start: int, stop: int) -> str:
        hashed = hashlib.sha256()
        self._hash_file(path, hashed, start, stop)
        return hashed.hexdigest()

    def _hash_file(self, path: Path, hashed: "hashlib._Hash", start: int, stop: int) -> None:
        with path.open("rb", 0) as file:
            file.seek(start)
            while start < stop:
                chunk = file.read(min(CHUNK_BYTES, stop - start))
                if not chunk:
                    raise ResourceError(f"{path}: was cut off by another process. Run it again.")
                if self._site.stop.is_set():
                    raise StoppedError
                hashed.update(chunk)
                start += len(chunk)

    def _span(self, index: int) -> tuple[int, int]:
        start = index * self._part_bytes
        return start, min(start + self._part_bytes, self._wanted.bytes)

    def _staged_name(self) -> str:
        wanted = self._wanted
        pins = (wanted.key, wanted.path, wanted.bytes, wanted.tag, wanted.sha256, self._part_bytes)
        return hashlib.sha256(repr((pins, self._attempt)).encode()).hexdigest()[:32] + ".part"

    def _named(self) -> str:
        return f"{self._site.objects.url}/{self._wanted.key}"[:300]


def _write(descriptor: int, chunk: bytes, at: int) -> None:
    while chunk:
        written = os.pwrite(descriptor, chunk, at)
        chunk, at = chunk[written:], at + written
