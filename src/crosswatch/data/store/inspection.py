"""Whether a store still holds an artifact's files as its manifest says."""

import functools
import hashlib
from collections.abc import Mapping
from typing import Any

from crosswatch.artifacts import Manifest
from crosswatch.data.store.crew import Crew, Task
from crosswatch.data.store.objects import (
    MissingError,
    ObjectInfo,
    Objects,
    RefusedError,
    object_key,
)
from crosswatch.data.store.patience import Patience, TransientError
from crosswatch.data.store.settings import TransferConfig

CHUNK_BYTES = 2**19


def inspect(
    objects: Objects, manifest: Manifest, *, config: TransferConfig, rehash: bool
) -> list[str]:
    """A line for each file that is missing, of another size or, on request, of another hash."""
    crew = Crew(config.concurrency)
    problems: dict[str, str] = {}

    def look(name: str, entry: Mapping[str, Any]) -> list[Task]:
        key = object_key(entry["sha256"])
        found = objects.find(key)
        if found is None:
            problems[name] = f"{key} is missing"
        elif found.bytes != entry["bytes"]:
            problems[name] = f"{key} has {found.bytes} bytes instead of {entry['bytes']}"
        elif rehash:
            patience = Patience(config.patience_s, crew.stop)
            try:
                got = patience.run(lambda: _hash_of(objects, found))
            except (MissingError, RefusedError):
                problems[name] = f"{key} was changed while it was read"
            else:
                if got != entry["sha256"]:
                    problems[name] = f"{key} has SHA-256 {got}"
        return []

    crew.run(functools.partial(look, *item) for item in manifest.files.items())
    return [f"{name[:200]!r}: {problems[name]}" for name in sorted(problems)]


def _hash_of(objects: Objects, found: ObjectInfo) -> str:
    hashed = hashlib.sha256()
    if not found.bytes:
        return hashed.hexdigest()
    left = found.bytes
    with objects.read(found.key, start=0, stop=left, size=left, tag=found.tag) as body:
        while left:
            chunk = body.read(min(CHUNK_BYTES, left))
            if not chunk:
                raise TransientError(f"{found.key}: broke off {left} bytes before its end")
            hashed.update(chunk)
            left -= len(chunk)
    return hashed.hexdigest()
