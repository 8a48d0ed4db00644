"""A directory with a manifest: committed in one rename, verified when opened.

Whoever finds a folder with a manifest finds it complete: it is written beside its target under a
temporary name, and takes the target's name when its manifest stands.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import math
import os
import re
import shutil
import socket
import stat
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

import crosswatch
from crosswatch.errors import UserError

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
NO_LINK_HERE = (*NO_LINKS, errno.EXDEV, errno.EMLINK)  # another disk, or no more names of one file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What stands in an artifact, and where it comes from."""

    kind: str
    files: Mapping[str, Mapping[str, Any]]  # path -> {"bytes": int, "sha256": str}
    parents: Mapping[str, str]  # role -> digest of the artifact that was read
    config: Mapping[str, Any]
    counts: Mapping[str, float]
    warnings: tuple[str, ...]
    quarantined: Mapping[str, str]  # batch id -> reason
    note: str
    code_version: str
    schema_version: int = SCHEMA_VERSION

    @property
    def digest(self) -> str:
        """One hash over contents, parents and configuration (not over counts of time spent)."""
        named = {path: entry["sha256"] for path, entry in self.files.items()}
        basis = [self.kind, named, dict(self.parents), dict(self.config)]
        return hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()

    def as_json(self) -> str:
        return _as_json(dataclasses.asdict(self))


class Draft:
    """An artifact being written: put files below `path`, facts into the fields."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: dict[str, float] = {}
        self.warnings: list[str] = []
        self.quarantined: dict[str, str] = {}
        self.note = ""
        self.parents: dict[str, str] = {}
        self.verified: dict[str, Mapping[str, Any]] = {}  # linked files, hashed this moment

    def __truediv__(self, name: str) -> Path:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


@contextlib.contextmanager
def create(
    out: Path,
    *,
    kind: str,
    config: Mapping[str, Any] | None = None,
    parents: Mapping[str, str] | None = None,
) -> Iterator[Draft]:
    """Write an artifact: commit it when the block ends well, leave nothing when it does not.

    Raises:
        UserError: `out` holds something else than an artifact of this kind, or cannot be written.
    """
    check_replaceable(out)
    _refuse_another_kind(out, kind)
    temporary = _temporary_beside(out)
    try:
        draft = Draft(temporary)
        draft.parents.update(parents or {})
        yield draft
        manifest = _describe(draft, kind=kind, config=config or {})
        commit(manifest, temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def open_artifact(path: Path, *, kind: str | None = None, verify: bool = True) -> Manifest:
    """Read an artifact's manifest and hold every file against its size and hash.

    Raises:
        UserError: there is no artifact, it is of another kind or of a newer schema, lists files
            outside of its folder, or a file was changed or lost.
    """
    try:
        values = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise UserError(
            f"{path}: holds no {MANIFEST}, so it is not a finished artifact. "
            "Run the stage that makes it."
        ) from error
    except ValueError as error:
        raise UserError(f"{path / MANIFEST}: is damaged: {error}. Run the stage again.") from error
    manifest = _understood(values, str(path / MANIFEST))
    if kind is not None and manifest.kind != kind:
        raise UserError(f"{path}: is a {manifest.kind} artifact; a {kind} artifact is needed here.")
    for name in manifest.files:
        if name.startswith("/") or ".." in name.split("/"):
            raise UserError(
                f"{path / MANIFEST}: lists {name[:100]!r}, which is outside of its folder; only "
                "names inside are allowed. Take the artifact from whom you trust, or make it again."
            )
    if verify:
        for name, entry in manifest.files.items():
            _verify_file(path, name, entry)
    return manifest


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """A manifest from its JSON, as `Manifest.as_json` writes it.

    Raises:
        UserError: it is damaged, or of a newer schema.
    """
    try:
        values = json.loads(data)
    except ValueError as error:
        raise UserError(f"{where}: is damaged: {error}. Put it there again.") from error
    return _understood(values, where)


def check_replaceable(out: Path) -> None:
    """
    Raises:
        UserError: what stands at `out` is no artifact, so it is not ours to replace.
    """
    if out.exists() and not (out / MANIFEST).exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not an artifact. Name another --out or remove it.")


def _refuse_another_kind(out: Path, kind: str) -> None:
    """An --out that is one of the inputs by mistake would be gone."""
    try:
        standing = open_artifact(out, verify=False)
    except UserError:  # nothing, or damaged: it may go
        return
    if standing.kind != kind:
        raise UserError(
            f"{out}: holds an artifact of another kind ({standing.kind}, not {kind}). Name another "
            "--out or remove it."
        )


def commit(manifest: Manifest, folder: Path, out: Path) -> None:
    """Give a folder that holds all of a manifest's files the manifest and its final name."""
    _write_synced(folder / MANIFEST, manifest.as_json())
    take_name(folder, out)


def take_name(temporary: Path, out: Path) -> None:
    """Rename over `out`; an older artifact steps aside first and goes when the new one stands."""
    temporary.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    if not out.exists():
        temporary.replace(out)
        return
    aside = _hidden_beside(out, "old")
    out.replace(aside)
    temporary.replace(out)
    shutil.rmtree(aside, ignore_errors=True)


def link_artifact(source: Path, out: Path) -> None:
    """The same artifact under a second name, complete or not there; files are linked."""
    temporary = _temporary_beside(out)
    try:
        link_tree(source, temporary)
        take_name(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what processes of this host that are gone left half-written directly in a folder."""
    for suffix in ("partial", "old"):
        for left in folder.glob(f".{name}.*@{_host()}.*.{suffix}"):
            pid = left.name.split(".")[-3].partition("@")[0]
            if pid.isdigit() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(left, ignore_errors=True)


def link_tree(source: Path, target: Path) -> None:
    """Hard-link a folder's files, or copy them where the file system cannot link."""
    for entry in sorted(source.rglob("*")):
        to = target / entry.relative_to(source)
        if entry.is_dir():
            to.mkdir(parents=True, exist_ok=True)
            continue
        to.parent.mkdir(parents=True, exist_ok=True)
        link_file(entry, to)


def link_file(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where the file system cannot link.

    Raises:
        FileExistsError: there is a file of that name; it stays as it is.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINK_HERE:
            raise
        target.touch(exist_ok=False)
        shutil.copy2(source, target)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_as_json(value), encoding="utf-8")


def replace_json(path: Path, value: Any) -> None:
    """Write a JSON file so that readers see the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _write_synced(temporary, _as_json(value))
    temporary.replace(path)


def create_exclusively(path: Path, value: Any) -> bool:
    """Write a JSON file that must not exist yet; of many that try, exactly one succeeds.

    Where the file system refuses links, a reader may for an instant find the file empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    _write_synced(temporary, _as_json(value))
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _create_without_link(path, _as_json(value))
    finally:
        temporary.unlink()
    return True


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_of(value: Any) -> str:
    """A hash of a plain value, the same wherever its keys stand."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def finite(value: Any) -> Any:
    """The value with null for NaN and infinity, which JSON does not know."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


@functools.cache
def code_version(package: str = ".") -> str:
    """The release and a hash of the (sub-)package's sources, so that an edit counts as a change."""
    root = Path(crosswatch.__file__).parent / package
    named = {
        str(path.relative_to(root)): sha256_of(path)
        for path in sorted(root.rglob("*"))
        if path.suffix in {".py", ".yaml"} and "__pycache__" not in path.parts
    }
    return f"{crosswatch.__version__}+{digest_of(named)[:12]}"


def _temporary_beside(out: Path) -> Path:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        sweep(out.parent, out.name)
        return _hidden_beside(out, "partial")
    except OSError as error:
        raise UserError(
            f"{out.parent}: cannot be written: {error.strerror}. Name a folder that you own."
        ) from error


def _hidden_beside(out: Path, suffix: str) -> Path:
    prefix = f".{out.name}.{os.getpid()}@{_host()}."
    return Path(tempfile.mkdtemp(prefix=prefix, suffix=f".{suffix}", dir=out.parent))


def _host() -> str:
    """This host's name without a dot or a wildcard: process numbers mean nothing on another."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())


def _as_json(value: Any) -> str:
    return json.dumps(finite(value), indent=1, allow_nan=False) + "\n"


def _create_without_link(path: Path, text: str) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    return True


def _understood(values: Any, path: str) -> Manifest:
    version = values.get("schema_version") if isinstance(values, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(
            f"{path}: has schema version {version}; this Crosswatch reads up to {SCHEMA_VERSION}. "
            "Update Crosswatch, or run the stage again."
        )
    fields = {field.name for field in dataclasses.fields(Manifest)}
    if not isinstance(values, dict) or set(values) != fields or not _lists_files(values["files"]):
        raise UserError(
            f"{path}: is no manifest of Crosswatch. Name the folder of a finished artifact."
        )
    return Manifest(**{**values, "warnings": tuple(values["warnings"])})


def _lists_files(files: Any) -> bool:
    return isinstance(files, dict) and all(
        isinstance(entry, dict) and {"bytes", "sha256"} <= entry.keys() for entry in files.values()
    )


def _describe(draft: Draft, *, kind: str, config: Mapping[str, Any]) -> Manifest:
    files = {
        name: draft.verified.get(name) or {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(draft.path.rglob("*"))
        if path.is_file()
        for name in [path.relative_to(draft.path).as_posix()]
    }
    return Manifest(
        kind=kind,
        files=files,
        parents=draft.parents,
        config=config,
        counts=draft.counts,
        warnings=tuple(draft.warnings),
        quarantined=draft.quarantined,
        note=draft.note,
        code_version=code_version(),
    )


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _verify_file(root: Path, name: str, entry: Mapping[str, Any]) -> None:
    path = root / name
    advice = "Run the stage that makes it again."
    if not path.is_file():
        raise UserError(f"{path}: is missing though the manifest lists it. {advice}")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise UserError(f"{path}: has {size} bytes; the manifest says {entry['bytes']}. {advice}")
    if sha256_of(path) != entry["sha256"]:
        raise UserError(f"{path}: its SHA-256 differs from the manifest's. {advice}")
