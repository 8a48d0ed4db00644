"""What a data registry writes down: a delivery's index in git, a revision's manifest in a file.

Both may come from somebody else's hands, so every field is held against a pattern when it is read.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from crosswatch.artifacts import digest_of
from crosswatch.data.store.place import parse_place, safe_relative
from crosswatch.data.sums import ID_PATTERN, SUMS
from crosswatch.data.versions.shards import Packed, Piece
from crosswatch.errors import UserError

SCHEMA = 1
MD5 = re.compile(r"[0-9a-f]{32}")
SHA256 = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
KEY = re.compile(r"files/md5/[0-9a-f]{2}/[0-9a-f]{30}")
NAME = re.compile(r"[^\x00-\x1f\x7f]{1,255}")
LISTED = re.compile(r"(?s).+")  # held against the list of objects, whose names are checked
LARGEST_BYTES = 2**62


def key_of(md5: str) -> str:
    """Where DVC puts an object below its cache and its remote."""
    return f"files/md5/{md5[:2]}/{md5[2:]}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Index:
    """One delivery in the registry: what DVC stores of it, and where each file lies in that."""

    id: str
    directory_md5: str  # DVC's list of the objects, an object itself
    directory_bytes: int
    objects: tuple[Packed, ...]
    files: tuple[Piece, ...]

    @property
    def sums_sha256(self) -> str:
        """The digest of the delivery's SHA256SUMS, which stands for its contents."""
        return next(piece.sha256 for piece in self.files if piece.path == SUMS)

    @property
    def directory_key(self) -> str:
        return key_of(self.directory_md5) + ".dir"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blob:
    """An object to fetch; its key is relative to the DVC remote."""

    key: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Revision:
    """All deliveries of one git commit, readable without git and without DVC.

    A file's path begins with its delivery's id; its `object` is the key of a blob.
    """

    revision: str
    commit: str
    remote: str
    objects: tuple[Blob, ...]
    files: tuple[Piece, ...]

    @property
    def digest(self) -> str:
        return digest_of(_revision_body(self))

    def sha256sums_digest(self, batch_id: str) -> str:
        """What stands for a delivery's contents, as the arrival layout has it.

        Raises:
            UserError: this revision holds no such delivery.
        """
        for piece in self.files:
            if piece.path == f"{batch_id}/{SUMS}":
                return piece.sha256
        raise UserError(f"{batch_id[:100]!r}: is no delivery of revision {self.revision!r}")


def index_text(index: Index) -> str:
    """As JSON with a line for each file, which git compares and packs well."""
    head = {"schema": SCHEMA, "id": index.id,
            "directory": {"md5": index.directory_md5, "bytes": index.directory_bytes}}  # fmt: skip
    return _lines(head, objects=index.objects, files=index.files)


def revision_text(revision: Revision) -> str:
    head = {"schema": SCHEMA, "revision": revision.revision, "commit": revision.commit,
            "remote": revision.remote, "digest": revision.digest}  # fmt: skip
    return _lines(head, objects=revision.objects, files=revision.files)


def parse_index(text: str | bytes, *, where: str) -> Index:
    """
    Raises:
        UserError: a field is missing, unknown or not what it has to be.
    """
    top = _Fields.of_text(text, where, {"schema", "id", "directory", "objects", "files"})
    directory = top.inner("directory", {"md5", "bytes"})
    index = Index(
        id=top.text("id", ID_PATTERN),
        directory_md5=directory.text("md5", MD5),
        directory_bytes=directory.count("bytes"),
        objects=tuple(
            Packed(path=each.path("path"), bytes=each.count("bytes"), md5=each.text("md5", MD5),
                   sha256=each.text("sha256", SHA256))
            for each in top.rows("objects", {"path", "bytes", "md5", "sha256"})
        ),
        files=tuple(_pieces(top)),
    )  # fmt: skip
    _check_pieces(index.files, {each.path: each for each in index.objects}, where)
    if all(piece.path != SUMS for piece in index.files):
        raise UserError(f"{where}: lists no {SUMS}, so it is no delivery's index")
    return index


def parse_revision(text: str | bytes, *, where: str) -> Revision:
    """
    Raises:
        UserError: a field is missing, unknown or not what it has to be, or the digest differs.
    """
    keys = {"schema", "revision", "commit", "remote", "digest", "objects", "files"}
    top = _Fields.of_text(text, where, keys)
    revision = Revision(
        revision=top.text("revision", NAME),
        commit=top.text("commit", COMMIT),
        remote=top.text("remote", re.compile(r"[^\x00-\x1f\x7f]{1,4096}")),
        objects=tuple(
            Blob(key=each.text("key", KEY), bytes=each.count("bytes"),
                 sha256=each.text("sha256", SHA256))
            for each in top.rows("objects", {"key", "bytes", "sha256"})
        ),
        files=tuple(_pieces(top)),
    )  # fmt: skip
    parse_place(revision.remote)
    _check_pieces(revision.files, {each.key: each for each in revision.objects}, where)
    for batch_id, pieces in by_delivery(revision.files).items():
        if not ID_PATTERN.fullmatch(batch_id) or all(piece.path != SUMS for piece in pieces):
            raise UserError(f"{where}: {batch_id[:100]!r} is no delivery: it has no {SUMS}")
    if (told := top.text("digest", SHA256)) != revision.digest:
        raise UserError(
            f"{where}: its digest is {revision.digest[:12]}..., it says {told[:12]}...: it was "
            "changed. Resolve the revision again."
        )
    return revision


def by_delivery(files: Iterable[Piece]) -> dict[str, tuple[Piece, ...]]:
    """Files under the ids of their deliveries, named as they were delivered."""
    found: dict[str, list[Piece]] = {}
    for piece in files:
        batch_id, _, path = piece.path.partition("/")
        found.setdefault(batch_id, []).append(dataclasses.replace(piece, path=path))
    return {batch_id: tuple(pieces) for batch_id, pieces in sorted(found.items())}


def _revision_body(revision: Revision) -> dict[str, Any]:
    tables = {"objects": revision.objects, "files": revision.files}
    rows = {name: [vars(row) for row in table] for name, table in tables.items()}
    return {"schema": SCHEMA, **vars(revision), **rows}


def _lines(head: Mapping[str, Any], **tables: Iterable[Packed | Blob | Piece]) -> str:
    parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    for name, rows in tables.items():
        lines = ",\n".join(json.dumps(vars(row)) for row in rows)
        parts.append(f'"{name}": [\n{lines}\n]')
    return "{" + ",\n".join(parts) + "}\n"


def _pieces(top: "_Fields") -> Iterator[Piece]:
    for each in top.rows("files", {"path", "bytes", "sha256", "object", "offset"}):
        yield Piece(path=each.path("path"), bytes=each.count("bytes"),
                    sha256=each.text("sha256", SHA256), object=each.text("object", LISTED),
                    offset=each.count("offset"))  # fmt: skip


def _check_pieces(
    pieces: Iterable[Piece], objects: Mapping[str, Packed | Blob], where: str
) -> None:
    """Every file lies inside an object that is listed, and no name is taken twice."""
    seen: set[str] = set()
    folders: set[str] = set()
    for piece in pieces:
        held = objects.get(piece.object)
        if held is None or piece.offset + piece.bytes > held.bytes:
            raise UserError(
                f"{where}: {piece.path[:200]!r} lies at {piece.offset} of {piece.object!r}, which "
                + ("is not listed" if held is None else f"has {held.bytes} bytes")
            )
        if piece.path in seen:
            raise UserError(f"{where}: {piece.path[:200]!r} is listed twice")
        seen.add(piece.path)
        folder = piece.path
        while (folder := folder.rpartition("/")[0]) and folder not in folders:
            folders.add(folder)
    if both := sorted(seen & folders):
        raise UserError(f"{where}: {both[0][:200]!r} is listed as a file and as a folder")


class _Fields:
    """A JSON object that holds exactly these keys."""

    def __init__(self, values: Any, where: str, keys: set[str]) -> None:
        if not isinstance(values, dict) or set(values) != keys:
            found = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise UserError(
                f"{where}: expected the keys {', '.join(sorted(keys))}, found {str(found)[:200]}"
            )
        self._values = values
        self._where = where

    @classmethod
    def of_text(cls, text: str | bytes, where: str, keys: set[str]) -> "_Fields":
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: is no JSON: {str(error)[:200]}") from error
        if isinstance(values, dict) and values.get("schema") != SCHEMA:
            raise UserError(
                f"{where}: has schema {str(values.get('schema'))[:20]!r}; this version of "
                f"Crosswatch reads {SCHEMA}. Use the version that wrote it."
            )
        return cls(values, where, keys)

    def text(self, key: str, pattern: re.Pattern[str]) -> str:
        value = self._values[key]
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self._wrong(key, f"no text like {pattern.pattern[:60]}")
        return value

    def path(self, key: str) -> str:
        value = self._values[key]
        if not isinstance(value, str):
            raise self._wrong(key, "no text")
        try:
            value.encode()
            is_plain = bool(safe_relative(value).parts)
        except (UserError, UnicodeEncodeError):
            is_plain = False
        if not is_plain:
            raise self._wrong(key, "no plain relative name")
        return value

    def count(self, key: str) -> int:
        value = self._values[key]
        if type(value) is not int or not 0 <= value <= LARGEST_BYTES:
            raise self._wrong(key, "no number of bytes")
        return value

    def inner(self, key: str, keys: set[str]) -> "_Fields":
        return _Fields(self._values[key], f"{self._where}: {key}", keys)

    def rows(self, key: str, keys: set[str]) -> Iterator["_Fields"]:
        rows = self._values[key]
        if not isinstance(rows, list):
            raise self._wrong(key, "no list")
        for at, row in enumerate(rows):
            yield _Fields(row, f"{self._where}: {key}[{at}]", keys)

    def _wrong(self, key: str, what: str) -> UserError:
        return UserError(f"{self._where}: {key} is {what}: {str(self._values[key])[:100]!r}")
