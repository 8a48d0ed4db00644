"""Artifacts in a store: every file once, named after its contents, and manifests that list them.

objects/<first 2 of SHA-256>/<SHA-256>   the bytes of every file
artifacts/<digest>.json                  a manifest; written last, it is the commit
"""

import contextlib
import dataclasses
import glob
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from crosswatch import artifacts
from crosswatch.artifacts import Manifest
from crosswatch.data.store.disk import disk_faults
from crosswatch.data.store.inspection import inspect
from crosswatch.data.store.landing import Wanted
from crosswatch.data.store.names import check_paths
from crosswatch.data.store.objects import ObjectInfo, Objects, object_key
from crosswatch.data.store.sending import Outgoing
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.store.transfer import Meter, download, locked_folder, upload
from crosswatch.errors import ResourceError, UserError
from crosswatch.progress import Meter as Progress


@dataclasses.dataclass(frozen=True)
class Store:
    objects: Objects
    config: TransferConfig

    def push(self, folder: Path, *, again: bool = False) -> str:
        """Send an artifact; its digest, by which `fetch` finds it.

        What stands there in the right size is not sent, but `again` sends all: `verify` looks
        closer, and this mends what it finds.

        Raises:
            UserError: it is no artifact, or a file is not what its manifest says.
        """
        manifest = artifacts.open_artifact(folder, verify=False)
        outgoing = {
            entry["sha256"]: Outgoing(
                key=object_key(entry["sha256"]),
                path=folder / name,
                bytes=entry["bytes"],
                sha256=entry["sha256"],
            )
            for name, entry in manifest.files.items()
        }
        meter = Progress("push", unit="B")
        upload(self.objects, list(outgoing.values()), config=self.config, meter=meter, again=again)
        write = self.objects.put if again else self.objects.create
        write(_manifest_key(manifest.digest), manifest.as_json().encode())
        return manifest.digest

    def fetch(self, digest: str, out: Path, *, cache: Path | None = None) -> Manifest:
        """Bring an artifact to a folder that takes its name when all of it is there and verified.

        Files of `cache` (named by their SHA-256) are linked, not fetched, and what is fetched is
        linked there.

        Raises:
            UserError: the store has no such artifact, or its contents are damaged.
            ResourceError: the disk is too full, or the store did not answer.
        """
        artifacts.check_replaceable(out)
        manifest = self.manifest(digest)
        check_paths([*manifest.files, artifacts.MANIFEST])
        with disk_faults(out), _arriving(out, digest) as folder:
            linked = _link_from(cache, manifest.files, folder) if cache else set()
            others = {name: manifest.files[name] for name in manifest.files if name not in linked}
            self._fetch_files(others, folder)
            for name, entry in others.items() if cache else ():
                _link(folder / name, cache / entry["sha256"])
            artifacts.commit(manifest, folder, out)
        return manifest

    def manifest(self, digest: str) -> Manifest:
        found = self.objects.get(_manifest_key(digest))
        where = f"{self.objects.url}/{_manifest_key(digest)}"[:300]
        if found is None:
            raise UserError(f"{where}: does not exist. Push the artifact, or name another store.")
        manifest = artifacts.parse_manifest(found.data, where=where)
        if manifest.digest != digest:
            raise UserError(
                f"{where}: holds an artifact of digest {manifest.digest}: it is damaged. "
                "Push the artifact again under its name."
            )
        return manifest

    def verify(self, digest: str, *, rehash: bool = False) -> list[str]:
        """What is wrong with an artifact in the store: a line for each file, none if all is well.

        Raises:
            UserError: there is no such artifact.
        """
        manifest = self.manifest(digest)
        return inspect(self.objects, manifest, config=self.config, rehash=rehash)

    def _fetch_files(self, files: Mapping[str, Mapping[str, Any]], folder: Path) -> None:
        """Fetch each content once, and link the other names that it has."""
        first: dict[str, str] = {}
        for name, entry in files.items():
            first.setdefault(entry["sha256"], name)
        wanted = [
            Wanted(
                key=object_key(sha256),
                path=name,
                bytes=files[name]["bytes"],
                tag=None,
                sha256=sha256,
            )
            for sha256, name in first.items()
        ]
        meter = Progress("fetch", unit="B")
        download(self.objects, wanted, folder, config=self.config, meter=meter)
        for name, entry in files.items():
            _link(folder / first[entry["sha256"]], folder / name)


def mirror(
    objects: Objects,
    found: Sequence[ObjectInfo],
    into: Path,
    *,
    prefix: str,
    sha256_of: Mapping[str, str],
    config: TransferConfig,
    meter: Meter | None = None,
) -> None:
    """Bring listed objects to a folder that takes its name when all are there and verified.

    Paths are what follows `prefix` in a key; `sha256_of` knows them, as far as hashes are known.

    Raises:
        UserError: a name that no folder takes; an object that is gone or not what its hash says.
        ResourceError: the disk is too full, or the store did not answer.
    """
    wanted = [
        Wanted(
            key=info.key,
            path=(path := info.key.removeprefix(prefix)),
            bytes=info.bytes,
            tag=info.tag,
            sha256=sha256_of.get(path),
        )
        for info in found
    ]
    identity = artifacts.digest_of([dataclasses.astuple(one) for one in wanted])
    with disk_faults(into), _arriving(into, identity) as folder:
        download(objects, wanted, folder, config=config, meter=meter)
        artifacts.take_name(folder, into)


def _manifest_key(digest: str) -> str:
    return f"artifacts/{digest}.json"


@contextlib.contextmanager
def _arriving(out: Path, identity: str) -> Iterator[Path]:
    """A folder beside `out` that the next call with this identity finds again if this one fails."""
    out = out.absolute()
    staging = out.with_name(f".{out.name}.{identity[:16]}.arriving")
    out.parent.mkdir(parents=True, exist_ok=True)
    _sweep(out, keep=staging)
    with locked_folder(staging):
        folder = staging / "files"
        folder.mkdir(exist_ok=True)
        yield folder
        shutil.rmtree(staging)


def _sweep(out: Path, *, keep: Path) -> None:
    """Remove what earlier calls left behind that meant to put something else into this place."""
    for left in out.parent.glob(f".{glob.escape(out.name)}.{'[0-9a-f]' * 16}.arriving"):
        if left != keep:
            with contextlib.suppress(ResourceError), locked_folder(left):
                shutil.rmtree(left)


def _link_from(cache: Path, files: Mapping[str, Mapping[str, Any]], folder: Path) -> set[str]:
    """Link what the cache holds unspoilt; the names of these files."""
    linked = set()
    for name, entry in files.items():
        kept = cache / entry["sha256"]
        is_whole = kept.is_file() and kept.stat().st_size == entry["bytes"]
        if is_whole and artifacts.sha256_of(kept) == entry["sha256"]:
            (folder / name).unlink(missing_ok=True)
            _link(kept, folder / name)
            linked.add(name)
    return linked


def _link(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)
