"""Results of earlier runs, found by what they depend on: nothing unchanged is computed twice.

A folder of artifacts, each named by a key: the digest of everything that its contents follow from.
With a store, what any machine computed is known to all: `kept/KEY.json` there names the artifact.
"""

import dataclasses
import json
from contextlib import AbstractContextManager
from pathlib import Path

from crosswatch import artifacts, progress
from crosswatch.data.holding import held
from crosswatch.data.store.opening import open_store
from crosswatch.data.store.place import Place
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.store.stored import Store
from crosswatch.errors import UserError


@dataclasses.dataclass(frozen=True)
class Kept:
    """Artifacts of one kind below `root`."""

    root: Path
    kind: str
    store: Store | None = None

    def place(self, key: str) -> Path:
        """Where the artifact of this key is to be written, by artifacts.create."""
        return self.root / key

    def held(self, name: str) -> AbstractContextManager[None]:
        """One process of this machine at a time works on what is named; others wait."""
        return held(self.root, name, what=f"{self.root}: another run has been working there")

    def find(self, key: str) -> Path | None:
        """The artifact of a key, verified; fetched from the store if it is not here."""
        folder = self.place(key)
        if (folder / artifacts.MANIFEST).exists():
            try:
                artifacts.open_artifact(folder, kind=self.kind)
                return folder
            except UserError as error:
                progress.warn(f"{error} Looking for it elsewhere.")
        pointer = None if self.store is None else self.store.objects.get(_pointer(key))
        if self.store is None or pointer is None:
            return None
        self.store.fetch(json.loads(pointer.data)["artifact"], folder)
        return folder

    def publish(self, key: str) -> None:
        """Let other machines know what stands here."""
        if self.store is not None and self.store.objects.get(_pointer(key)) is None:
            pointer = {"artifact": self.store.push(self.place(key))}
            self.store.objects.put(_pointer(key), json.dumps(pointer).encode())


def open_kept(root: Path, *, kind: str, store: Place | None, transfer: TransferConfig) -> Kept:
    shared = None if store is None else open_store(store, transfer)
    return Kept(root=root, kind=kind, store=shared)


def hidden_beside(out: Path, name: str) -> Path:
    """Where a stage keeps what outlives its output, if it was given no place for it."""
    return out.parent / ".known" / name


def _pointer(key: str) -> str:
    return f"kept/{key}.json"
