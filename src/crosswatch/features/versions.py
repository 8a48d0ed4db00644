"""The version of an encoder: of its code, and of the libraries that compute for it.

What an encoder imports of ours counts too, found in the sources, so that nobody can forget it.
"""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from pathlib import Path

COUNTS = ("crosswatch.features.", "crosswatch.data.originals", "crosswatch.data.video.container")
"""Code that may change what a feature is."""
INTERFACES = tuple(
    f"crosswatch.features.{name}" for name in ("encoder", "settings", "source", "versions")
)
"""Everybody imports them, and they compute nothing."""


@functools.cache
def version_of(*modules: str, packages: tuple[str, ...] = ()) -> str:
    """A hash of the modules' sources and of what they import, and versions of packages."""
    hashed = hashlib.sha256()
    for name in sorted(_closure(modules)):
        hashed.update(_source(name).read_bytes())
    parts = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    return ", ".join([f"code {hashed.hexdigest()[:12]}", *parts])


def _closure(modules: tuple[str, ...]) -> set[str]:
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imports(name)
    return found


def _imports(name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(_source(name).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        for imported in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
            counts = imported.startswith(COUNTS) and imported not in INTERFACES
            if counts and _is_module(imported):
                yield imported


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # its parent is no package, so it is a name in a module
        return False


def _source(name: str) -> Path:
    found = importlib.util.find_spec(name)
    assert found is not None, f"{name} names a module"
    assert found.origin is not None, f"{name} has a source"
    return Path(found.origin)
