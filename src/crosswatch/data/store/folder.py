"""Objects in a folder, for a laptop or a shared disk."""

import contextlib
import errno
import hashlib
import io
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from crosswatch.data.store.disk import disk_faults
from crosswatch.data.store.objects import (
    Body,
    ChangedError,
    MissingError,
    Multipart,
    ObjectInfo,
    RefusedError,
    Versioned,
)
from crosswatch.data.store.place import safe_relative
from crosswatch.errors import ResourceError, UserError

OURS = ".crosswatch"  # locks and half-written files; never listed
LOCK_TIMEOUT_S = 60.0
CHUNK_BYTES = 2**20
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class FolderObjects:
    """An object is a file; a write is a finished file that takes its name at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def url(self) -> str:
        return str(self._folder)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        under = prefix.rpartition("/")[0]
        start = self._path(under) if under else self._folder
        with disk_faults(start):
            found = {path.relative_to(self._folder).as_posix(): path for path in self._files(start)}
            for key in sorted(found):
                with contextlib.suppress(FileNotFoundError):
                    if key.startswith(prefix):
                        yield described(key, found[key].stat())

    def get(self, key: str) -> Versioned | None:
        path = self._path(key)
        with disk_faults(path):
            try:
                data = path.read_bytes()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None
        return Versioned(data=data, tag=hashlib.sha256(data).hexdigest())

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        with disk_faults(path), self._written([data], path) as temporary, self._locked(key):
            temporary.replace(path)

    def create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        with disk_faults(path), self._written([data], path) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                return self._create_without_link(temporary, path, key)
        return True

    def replace(self, key: str, data: bytes, *, tag: str) -> bool:
        path = self._path(key)
        with disk_faults(path), self._written([data], path) as temporary, self._locked(key):
            standing = self.get(key)
            if standing is None or standing.tag != tag:
                return False
            temporary.replace(path)
        return True

    def delete(self, key: str) -> None:
        path = self._path(key)
        with disk_faults(path), self._locked(key):
            path.unlink(missing_ok=True)

    def now(self) -> float:
        return time.time()

    def find(self, key: str) -> ObjectInfo | None:
        path = self._path(key)
        with disk_faults(path):
            return described(key, path.stat()) if path.is_file() else None

    @contextlib.contextmanager
    def read(
        self, key: str, *, start: int, stop: int, size: int, tag: str | None
    ) -> Iterator[Body]:
        path = self._path(key)
        with disk_faults(path):
            try:
                stream = path.open("rb", buffering=0)
            except FileNotFoundError as error:
                raise MissingError(f"{path}: does not exist") from error
        with stream:
            info = described(key, os.fstat(stream.fileno()))
            if info.bytes != size or tag not in (None, info.tag):
                raise RefusedError(f"{path}: was changed")
            stream.seek(start)
            yield _FileBody(stream, path)

    def send(self, key: str, source: BinaryIO, *, size: int, sha256: str) -> None:
        path = self._path(key)
        with disk_faults(path), self._written(_chunks(source, sha256), path) as temporary:
            temporary.replace(path)

    @property
    def multipart(self) -> Multipart | None:
        return None

    def _path(self, key: str) -> Path:
        """Where a key lies, if that is below the folder even through symbolic links."""
        relative = safe_relative(key)
        if relative.parts[0] == OURS:
            raise UserError(f"{key[:200]!r}: {OURS} is where locks lie. Choose another name.")
        path = self._folder / relative
        with disk_faults(path):
            inside = path.resolve().is_relative_to(self._folder.resolve())
        if not inside:
            raise UserError(f"{str(path)[:300]!r}: a symbolic link leads out of {self._folder}")
        return path

    def _files(self, start: Path) -> Iterator[Path]:
        root = self._folder.resolve()
        for folder, folders, files in os.walk(start):
            if Path(folder) == self._folder and OURS in folders:
                folders.remove(OURS)
            for path in (Path(folder, name) for name in files):
                if path.is_file() and (
                    not path.is_symlink() or path.resolve().is_relative_to(root)
                ):
                    yield path

    @contextlib.contextmanager
    def _written(self, chunks: Iterable[bytes], path: Path) -> Iterator[Path]:
        """A synced file with these bytes, gone at the end unless it took another name."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / OURS / "partial" / uuid.uuid4().hex
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as stream:
                for chunk in chunks:
                    stream.write(chunk)
                stream.flush()
                os.fsync(stream.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        from filelock import FileLock, Timeout

        name = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
        lock = self._folder / OURS / "locks" / name
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(lock, timeout=LOCK_TIMEOUT_S):
                yield
        except Timeout as error:
            raise ResourceError(
                f"{lock}: another process has held it for {LOCK_TIMEOUT_S:g} s; run it again."
            ) from error

    def _create_without_link(self, temporary: Path, path: Path, key: str) -> bool:
        with self._locked(key):
            if path.exists():
                return False
            temporary.replace(path)
        return True


class _FileBody:
    def __init__(self, stream: io.FileIO, path: Path) -> None:
        self._stream = stream
        self._path = path

    def read(self, count: int) -> bytes:
        with disk_faults(self._path):
            return self._stream.read(count) or b""


def _chunks(source: BinaryIO, sha256: str) -> Iterator[bytes]:
    """A file's bytes; ChangedError at their end if they are not those of the hash."""
    hashed = hashlib.sha256()
    while chunk := source.read(CHUNK_BYTES):
        hashed.update(chunk)
        yield chunk
    if hashed.hexdigest() != sha256:
        raise ChangedError(hashed.hexdigest())


def described(key: str, status: os.stat_result) -> ObjectInfo:
    """A file as a listing shows it; a file that is replaced has another inode or time."""
    tag = f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"
    return ObjectInfo(key=key, bytes=status.st_size, tag=tag)
