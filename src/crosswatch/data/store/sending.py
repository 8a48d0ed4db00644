"""One file on its way to a store: whole, or in parts that a killed transfer finds again."""

import contextlib
import dataclasses
import hashlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from crosswatch.data.store.crew import Task
from crosswatch.data.store.disk import disk_faults
from crosswatch.data.store.multipart import md5_of
from crosswatch.data.store.objects import ChangedError, MissingError, Multipart, Objects, Part
from crosswatch.data.store.patience import Patience
from crosswatch.data.store.settings import TransferConfig
from crosswatch.errors import ResourceError, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outgoing:
    """A file to be sent, and what it is known to hold; `key` is named after its contents."""

    key: str
    path: Path
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dispatch:
    """What all files of one transfer share."""

    objects: Objects
    config: TransferConfig
    standing: Mapping[str, int] | None  # sizes by key of all that is there; None: ask
    moved: Callable[[int], None]
    stop: threading.Event

    def patience(self) -> Patience:
        return Patience(self.config.patience_s, self.stop)


class Sending:
    def __init__(self, outgoing: Outgoing, dispatch: Dispatch) -> None:
        self._outgoing = outgoing
        self._dispatch = dispatch

    def begin(self) -> list[Task]:
        outgoing, objects = self._outgoing, self._dispatch.objects
        if self._stands():
            self._dispatch.moved(outgoing.bytes)
            return []
        part_bytes = self._dispatch.config.part_bytes(outgoing.bytes)
        if objects.multipart is not None and outgoing.bytes > part_bytes:
            return PartsSending(outgoing, self._dispatch, objects.multipart).begin()
        with disk_faults(outgoing.path):
            self._dispatch.patience().run(self._send)
        self._dispatch.moved(outgoing.bytes)
        return []

    def _stands(self) -> bool:
        standing = self._dispatch.standing
        if standing is None:
            return _stands(self._outgoing, self._dispatch.objects)
        return standing.get(self._outgoing.key) == self._outgoing.bytes

    def _send(self) -> None:
        outgoing = self._outgoing
        with outgoing.path.open("rb", 0) as source:
            try:
                self._dispatch.objects.send(
                    outgoing.key, source, size=outgoing.bytes, sha256=outgoing.sha256
                )
            except ChangedError as error:
                raise _changed(outgoing, str(error)) from error


class PartsSending:
    """Reads the file once, in order: every byte that is sent has been hashed, and as it was read.

    Whoever has read and hashed a part sends it while another one reads the next.
    """

    def __init__(self, outgoing: Outgoing, dispatch: Dispatch, multipart: Multipart) -> None:
        self._outgoing = outgoing
        self._dispatch = dispatch
        self._multipart = multipart
        self._part_bytes = dispatch.config.part_bytes(outgoing.bytes)
        self._count = -(-outgoing.bytes // self._part_bytes)
        self._reading = threading.Lock()
        self._read = 0
        self._whole = hashlib.sha256()
        self._settling = threading.Lock()
        self._settled: list[Part] = []
        self._upload = ""
        self._kept: dict[int, Part] = {}
        self._is_over = False

    def begin(self) -> list[Task]:
        self._dispatch.patience().run(self._find_or_begin)
        return [self._next] * self._count

    def _find_or_begin(self) -> None:
        key = self._outgoing.key
        with contextlib.suppress(UserError, MissingError):  # not every server or right has this
            for upload in reversed(self._multipart.pending(key)):
                self._kept = {part.number: part for part in self._multipart.parts(key, upload)}
                self._upload = upload
                return
        self._kept = {}
        self._upload = self._multipart.begin(key)

    def _next(self) -> list[Task]:
        if self._is_over:
            return []
        with self._reading, disk_faults(self._outgoing.path):
            number = self._read + 1
            data = self._read_part(number)
            self._whole.update(data)
            self._read = number
        try:
            part = self._kept_part(number, data) or self._dispatch.patience().run(
                lambda: self._multipart.send_part(self._outgoing.key, self._upload, number, data)
            )
        except MissingError:
            return self._taken_away()
        self._dispatch.moved(len(data))
        with self._settling:
            self._settled.append(part)
            if len(self._settled) < self._count or self._is_over:
                return []
            self._is_over = True
        return self._complete()

    def _read_part(self, number: int) -> bytes:
        start = (number - 1) * self._part_bytes
        size = min(self._part_bytes, self._outgoing.bytes - start)
        with self._outgoing.path.open("rb") as source:
            source.seek(start)
            data = source.read(size)
        if len(data) < size:
            raise _changed(self._outgoing, "that of a shorter file")
        return data

    def _kept_part(self, number: int, data: bytes) -> Part | None:
        """The part as an earlier process has sent it, if the store holds these very bytes.

        Only an ETag says so: a checksum may be an echo of what the sender claimed.
        """
        kept = self._kept.get(number)
        if kept is None or kept.bytes != len(data) or kept.tag.strip('"') != md5_of(data):
            return None
        return kept

    def _complete(self) -> list[Task]:
        outgoing, patience = self._outgoing, self._dispatch.patience()
        if self._whole.hexdigest() != outgoing.sha256:
            patience.run(lambda: self._multipart.abort(outgoing.key, self._upload))
            raise _changed(outgoing, self._whole.hexdigest())
        try:
            patience.run(
                lambda: self._multipart.complete(outgoing.key, self._upload, self._settled)
            )
        except MissingError:
            return self._taken_away()
        return []

    def _taken_away(self) -> list[Task]:
        """The upload is no more: it was completed and the answer lost, or somebody ended it."""
        with self._settling:
            self._is_over = True
        if _stands(self._outgoing, self._dispatch.objects):
            return []
        raise ResourceError(
            f"{self._dispatch.objects.url}/{self._outgoing.key}: somebody ended its upload. "
            "Run it again."
        )


def _stands(outgoing: Outgoing, objects: Objects) -> bool:
    found = objects.find(outgoing.key)
    return found is not None and found.bytes == outgoing.bytes


def _changed(outgoing: Outgoing, got: str) -> UserError:
    return UserError(
        f"{outgoing.path}: changed since its SHA-256 was taken: it is {got} instead of "
        f"{outgoing.sha256}. Nothing of it was committed; run the stage that makes it again."
    )
