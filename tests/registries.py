"""Real data registries for tests: git, DVC, deliveries and a remote, copied for each test."""

import dataclasses
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.versions import revision as revisions
from crosswatch.data.versions.clone import open_registry
from crosswatch.data.versions.commit import Committed, commit
from crosswatch.data.versions.resolve import resolve
from crosswatch.data.versions.revision import Revision
from crosswatch.data.versions.shards import PackConfig
from crosswatch.data.versions.verify import Verified, verify

PACK = PackConfig(pack_below_bytes=10_000, threads=2)
CONFIG = TransferConfig(concurrency=2, patience_s=5.0)
SMALL_FILES = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """Deliveries, a registry clone and a remote that is a folder beside it."""

    root: Path

    @property
    def source(self) -> Path:
        return self.root / "arrivals"

    @property
    def clone(self) -> Path:
        return self.root / "registry"

    @property
    def remote(self) -> Path:
        return self.root / "remote"

    def commit(self, tag: str | None = None, source: Path | None = None) -> Committed:
        return commit(
            source or self.source, open_registry(self.clone),
            tag=tag, message=None, pack=PACK, config=CONFIG,
        )  # fmt: skip

    def resolve(self, revision: str = "v1") -> Revision:
        return resolve(open_registry(self.clone), revision)

    def verify(self, revision: str = "HEAD", *, deep: bool = False, **options: Any) -> Verified:
        registry = open_registry(self.clone)
        return verify(registry, revision, deep=deep, config=CONFIG, **options)

    def fetch(self, revision: Revision, batch_id: str, into: Path) -> None:
        revisions.fetch(revision, batch_id, into, config=CONFIG, meter=lambda done, total: None)

    def git(self, *arguments: str) -> str:
        return run("git", *arguments, cwd=self.clone)

    def tags(self) -> list[str]:
        return self.git("tag").split()

    def key_of(self, batch_id: str, path: str, revision: str = "HEAD") -> str:
        """Where the object that holds a delivered file lies below cache and remote."""
        pieces = revisions.deliveries(self.resolve(revision))[batch_id]
        return next(piece.object for piece in pieces if piece.path == path)


def run(*command: str, cwd: Path) -> str:
    ended = subprocess.run(
        command, check=False, cwd=cwd, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def dvc(*arguments: str, cwd: Path) -> str:
    return run(sys.executable, "-m", "dvc", *arguments, cwd=cwd)


def deliver(source: Path, name: str, seed: int = 0) -> Path:
    """A delivery of bytes: a video, and many small files beside it."""
    folder = source / name
    (folder / "stills").mkdir(parents=True, exist_ok=True)
    (folder / "video.mp4").write_bytes(hashlib.shake_256(f"{name} {seed}".encode()).digest(30_000))
    for at in range(SMALL_FILES):
        (folder / f"stills/{at:03d}.json").write_text(f'{{"{name}": {at}, "seed": {seed}}}')
    sign(folder)
    return folder


def sign(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}"
        for path in files
        if path.name != "SHA256SUMS"
    ]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def objects_of(remote: Path) -> set[str]:
    return {path.relative_to(remote).as_posix() for path in remote.rglob("*") if path.is_file()}


def overwrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """As a failing disk does: DVC has made its objects read-only, which does not help."""
    path.chmod(0o644)
    path.write_bytes(change(path.read_bytes()))


def flip(data: bytes) -> bytes:
    return data[:1000] + bytes([data[1000] ^ 1]) + data[1001:]


@pytest.fixture(scope="session")
def empty_master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("empty")
    world = World(root=root)
    world.clone.mkdir()
    world.remote.mkdir()
    world.git("init", "-q", "-b", "main")
    world.git("config", "user.name", "Archivist")
    world.git("config", "user.email", "archivist@plant.example")
    dvc("init", "-q", cwd=world.clone)
    dvc("remote", "add", "-q", "-d", "archive", "../remote", cwd=world.clone)
    world.git("add", "-A")
    world.git("commit", "-q", "-m", "A data registry")
    for name in ("batch-a", "batch-b"):
        deliver(world.source, name)
    return root


@pytest.fixture(scope="session")
def archived_master(empty_master: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archived") / "world"
    shutil.copytree(empty_master, root)
    World(root=root).commit(tag="v1")
    return root


@pytest.fixture
def empty(empty_master: Path, tmp_path: Path) -> World:
    shutil.copytree(empty_master, tmp_path / "world")
    return World(root=tmp_path / "world")


@pytest.fixture
def archived(archived_master: Path, tmp_path: Path) -> World:
    shutil.copytree(archived_master, tmp_path / "world")
    return World(root=tmp_path / "world")
