"""Hand a batch in: files as a plant writes them, sealed, under its name complete or not at all."""

import csv
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path


class Delivered:
    """A folder that appears under its name complete or not at all."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __enter__(self) -> Path:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.making = Path(tempfile.mkdtemp(prefix=f".{self.target.name}-", dir=self.target.parent))
        self.making.chmod(0o755)
        return self.making

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            shutil.rmtree(self.making, ignore_errors=True)
            return
        if self.target.exists():
            shutil.rmtree(self.target)
        self.making.replace(self.target)


def write_csv(path: Path, header: tuple[str, ...], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_sums(folder: Path) -> None:
    """Seal the batch the way the `sha256sum` tool does."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(folder.iterdir())
    ]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
