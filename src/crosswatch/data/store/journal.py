"""What of a transfer has landed, in lines that outlive a killed process."""

import dataclasses
import json
from pathlib import Path
from typing import Any


@dataclasses.dataclass(kw_only=True)
class Noted:
    """What the journal knows of one file."""

    parts: dict[int, str | None] = dataclasses.field(default_factory=dict)  # index -> SHA-256
    prefixes: dict[int, str] = dataclasses.field(default_factory=dict)  # that many parts -> SHA-256


class Journal:
    """Appended a short line at a time, so that it is whole but for the line being written."""

    def __init__(self, path: Path) -> None:
        self._files: dict[str, Noted] = {}
        if path.exists():
            for line in path.read_bytes().splitlines():
                self._read(line)
        self._stream = path.open("ab", buffering=0)
        self._stream.write(b"\n")  # ends a line that was cut off

    def noted(self, name: str) -> Noted:
        return self._files.get(name, Noted())

    def landed(self, name: str, part: int, sha256: str | None) -> None:
        self._write({"file": name, "part": part, "sha256": sha256})

    def hashed(self, name: str, parts: int, sha256: str) -> None:
        """The SHA-256 of a file's first so many parts: it costs nothing while a file is hashed."""
        self._write({"file": name, "prefix": parts, "sha256": sha256})

    def forget(self, name: str) -> None:
        """The file is begun anew."""
        self._files.pop(name, None)
        self._write({"file": name})

    def close(self) -> None:
        self._stream.close()

    def _read(self, line: bytes) -> None:
        try:
            values: dict[str, Any] = json.loads(line)
            name = values["file"]
        except (ValueError, KeyError, TypeError):
            return
        noted = self._files.setdefault(name, Noted())
        if "part" in values:
            noted.parts[values["part"]] = values["sha256"]
        elif "prefix" in values:
            noted.prefixes[values["prefix"]] = values["sha256"]
        else:
            del self._files[name]

    def _write(self, values: dict[str, Any]) -> None:
        self._stream.write(json.dumps(values).encode() + b"\n")
