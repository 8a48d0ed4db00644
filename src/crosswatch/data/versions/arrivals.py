"""Deliveries to archive: whatever folder has a SHA256SUMS, whatever its streams are."""

import dataclasses
from pathlib import Path

from crosswatch.artifacts import sha256_of
from crosswatch.data.sums import ID_PATTERN, SUMS, read_sums
from crosswatch.errors import BadBatchError, UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrived:
    """A delivery whose sender has finished; its digest is that of its SHA256SUMS."""

    id: str
    path: Path
    digest: str

    def listed(self) -> dict[str, str]:
        """Its files and their hashes, SHA256SUMS itself included.

        Raises:
            BadBatchError: that is not what sha256sum writes, or the id is no plain name.
        """
        if not ID_PATTERN.fullmatch(self.id):
            raise BadBatchError(
                f"{self.id[:100]!r}: is no batch's name (letters, digits, '.', '_' or '-', at "
                "most 100). Rename the folder."
            )
        return {SUMS: self.digest, **read_sums((self.path / SUMS).read_bytes())}

    def extra(self) -> list[str]:
        """Files that came beside those that SHA256SUMS lists."""
        present = (path for path in self.path.rglob("*") if path.is_file())
        names = {path.relative_to(self.path).as_posix() for path in present}
        return [f"{self.id}/{name}" for name in sorted(names - set(self.listed()))]


def find(source: Path) -> tuple[list[Arrived], list[str]]:
    """The deliveries of a folder, or the one that it is, and the names of those not finished.

    Raises:
        UserError: there is no such folder, or nothing in it that has arrived.
    """
    if not source.is_dir():
        raise UserError(f"{source}: is no folder. Name the folder that holds the deliveries.")
    is_one = (source / SUMS).is_file()
    folders = [source] if is_one else [path for path in source.iterdir() if _is_visible(path)]
    arrived = [
        Arrived(id=path.resolve().name, path=path, digest=sha256_of(path / SUMS))
        for path in sorted(folders)
        if (path / SUMS).is_file()
    ]
    waiting = [path.name for path in sorted(folders) if not (path / SUMS).is_file()]
    if not arrived:
        raise UserError(
            f"{source}: holds no delivery that has arrived; a delivery is a folder with {SUMS}, "
            f"written last. Without one: {', '.join(waiting)[:200] or 'no folder at all'}."
        )
    return arrived, waiting


def _is_visible(path: Path) -> bool:
    """Hidden folders are somebody's work in progress."""
    return path.is_dir() and not path.name.startswith(".")
