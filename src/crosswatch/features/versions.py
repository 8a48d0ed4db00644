"""The version of an encoder: of its code, and of the libraries that compute for it."""

import functools
import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path


@functools.cache
def version_of(*modules: str, packages: tuple[str, ...] = ()) -> str:
    """A hash of the modules' sources and the versions of installed packages."""
    parts = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    hashed = hashlib.sha256()
    for name in sorted(modules):
        found = importlib.util.find_spec(name)
        assert found is not None, f"{name} names a module"
        assert found.origin is not None, f"{name} has a source"
        hashed.update(Path(found.origin).read_bytes())
    return ", ".join([f"code {hashed.hexdigest()[:12]}", *parts])
