"""What a git revision of a data registry holds, read from git's objects alone."""

import dataclasses
from collections.abc import Mapping, Sequence

import yaml

from crosswatch.data.versions.clone import BATCHES, Registry
from crosswatch.data.versions.records import (
    Blob,
    Index,
    Revision,
    key_of,
    parse_index,
)
from crosswatch.errors import UserError

DVC_FILE, INDEX_FILE = "raw.dvc", "index.json"
RAW = "raw"


def resolve(registry: Registry, revision: str) -> Revision:
    """All deliveries of a tag, branch or commit, with what it takes to fetch them.

    Raises:
        UserError: there is no such revision, it holds no delivery, or a record in it is damaged.
    """
    commit = commit_of(registry, revision)
    indices = indices_at(registry, commit)
    check_holds_any(indices, revision)
    blobs: dict[str, Blob] = {}
    files = []
    for batch_id, index in indices.items():
        keys = {packed.path: key_of(packed.md5) for packed in index.objects}
        for packed in index.objects:
            key = keys[packed.path]
            blobs[key] = Blob(key=key, bytes=packed.bytes, sha256=packed.sha256)
        files += [
            dataclasses.replace(piece, path=f"{batch_id}/{piece.path}", object=keys[piece.object])
            for piece in index.files
        ]
    return Revision(
        revision=revision,
        commit=commit,
        remote=registry.remote,
        objects=tuple(blobs[key] for key in sorted(blobs)),
        files=tuple(files),
    )


def check_holds_any(indices: Mapping[str, Index], revision: str) -> None:
    """
    Raises:
        UserError: there is nothing to resolve or to verify.
    """
    if not indices:
        raise UserError(
            f"{revision[:100]!r}: holds no delivery ({BATCHES}/ID/{INDEX_FILE}). "
            "Deliveries get there by crosswatch data commit."
        )


def commit_of(registry: Registry, revision: str) -> str:
    """
    Raises:
        UserError: git knows no such revision.
    """
    name = f"{revision}^{{commit}}"
    found = registry.git_says("rev-parse", "--verify", "--quiet", "--end-of-options", name)
    if not found:
        raise UserError(
            f"{revision[:100]!r}: {registry.folder} knows no such tag, branch or commit. "
            "git fetch --tags, or name another."
        )
    return found


def indices_at(registry: Registry, commit: str) -> dict[str, Index]:
    """Every delivery of a commit by its id.

    Raises:
        UserError: an index is damaged, or DVC's file beside it names other contents.
    """
    listing = registry.git("ls-tree", "-r", "-z", "--name-only", commit, "--", f"{BATCHES}/")
    paths = {path for path in listing.decode(errors="replace").split("\0") if path}
    ids = sorted(
        parts[1]
        for parts in (path.split("/") for path in paths)
        if len(parts) == 3 and parts[2] == INDEX_FILE
    )
    if lonely := [name for name in ids if f"{BATCHES}/{name}/{DVC_FILE}" not in paths]:
        raise UserError(f"{commit[:12]}: {BATCHES}/{lonely[0]}/{DVC_FILE} is missing")
    wanted = [f"{BATCHES}/{name}/{file}" for name in ids for file in (INDEX_FILE, DVC_FILE)]
    texts = dict(zip(wanted, _contents(registry, commit, wanted), strict=True))
    indices: dict[str, Index] = {}
    for name in ids:
        path = f"{BATCHES}/{name}/{INDEX_FILE}"
        index = parse_index(texts[path], where=f"{commit[:12]}:{path}")
        if index.id != name:
            raise UserError(f"{commit[:12]}:{path}: is the index of {index.id!r}")
        path = f"{BATCHES}/{name}/{DVC_FILE}"
        if (found := directory_md5(texts[path])) != index.directory_md5:
            raise UserError(
                f"{commit[:12]}:{path}: names {str(found)[:40]!r}, {INDEX_FILE} beside it "
                f"{index.directory_md5!r}. Both are written by crosswatch data commit alone."
            )
        indices[name] = index
    return indices


def directory_md5(text: bytes) -> str | None:
    """The contents that a raw.dvc names; None if it is none of ours."""
    try:
        values = yaml.safe_load(text)
        (out,) = values["outs"]
        md5 = out["md5"]
        is_ours = out["path"] == RAW and out["hash"] == "md5" and isinstance(md5, str)
    except (yaml.YAMLError, ValueError, TypeError, KeyError):
        return None
    return md5.removesuffix(".dir") if is_ours and md5.endswith(".dir") else None


def _contents(registry: Registry, commit: str, paths: Sequence[str]) -> list[bytes]:
    """Many files of a commit by one process."""
    asked = "".join(f"{commit}:{path}\n" for path in paths).encode()
    answer = registry.git("cat-file", "--batch", input_bytes=asked)
    texts: list[bytes] = []
    at = 0
    for path in paths:
        end = answer.index(b"\n", at)
        head = answer[at:end].split()
        if len(head) != 3 or head[1] != b"blob":
            raise UserError(f"{commit[:12]}:{path}: is no file")
        size = int(head[2])
        texts.append(answer[end + 1 : end + 1 + size])
        at = end + 1 + size + 1
    return texts
