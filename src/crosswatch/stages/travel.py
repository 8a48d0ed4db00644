"""Between tasks only manifests travel: the data of an artifact lie in the store.

What a task wrote is sent to the store and kept in the run's cache; its folder keeps the manifest
and says where the rest is. The next task finds the data in the cache, or fetches them.
"""

import shutil
from pathlib import Path

from crosswatch import artifacts
from crosswatch.data.store.opening import open_store
from crosswatch.data.store.place import parse_place
from crosswatch.data.store.settings import TransferConfig

STORED = "stored.json"


def send(out: Path, store: str, *, cache: Path, transfer: TransferConfig) -> Path:
    """Leave only the manifest in `out`, and say where its data lie on this machine."""
    kept = cache / open_store(parse_place(store), transfer).push(out)
    if not kept.exists():
        artifacts.link_artifact(out, kept)
    artifacts.write_json(out / STORED, {"store": store})
    for entry in out.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name not in (artifacts.MANIFEST, STORED):
            entry.unlink()
    return kept


def bring(folder: Path, *, cache: Path, transfer: TransferConfig) -> Path:
    """Where the data of an artifact lie on this machine; fetched if they are elsewhere."""
    if not (folder / STORED).is_file():
        return folder
    kept = cache / artifacts.open_artifact(folder, verify=False).digest
    if not kept.exists():
        store = artifacts.read_json(folder / STORED)["store"]
        open_store(parse_place(store), transfer).fetch(kept.name, kept)
    return kept
