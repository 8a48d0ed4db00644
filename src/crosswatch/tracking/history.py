"""Append-only record of what was promoted, refused, rolled back, and why.

MLflow keeps no history of stages and aliases; here one object an entry, numbered, never rewritten.
"""

import dataclasses
import datetime
import getpass
import os
from pathlib import Path
from typing import Any

from crosswatch import artifacts

ROLLBACK = "rollback"


@dataclasses.dataclass(frozen=True, kw_only=True)
class History:
    folder: Path

    def append(
        self, model: str, *, action: str, version: str, champion: bool, **facts: Any
    ) -> Path:
        """Write the next entry; writers that race get one number each."""
        entry = {
            "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "by": _user(),
            "model": model,
            "action": action,
            "version": version,
            "champion": champion,
            **facts,
        }
        number = len(self.entries(model)) + 1
        while not artifacts.create_exclusively(path := self._path(model, number), entry):
            number += 1
        return path

    def entries(self, model: str) -> list[dict[str, Any]]:
        """All entries of a model, oldest first."""
        folder = self._path(model, 1).parent
        return [artifacts.read_json(path) for path in sorted(folder.glob("[0-9]*.json"))]

    def champions(self, model: str) -> list[str]:
        """Champions one upon the other: a promotion adds one, a rollback takes away down to one."""
        stack: list[str] = []
        for entry in self.entries(model):
            if entry["action"] == ROLLBACK:
                while stack and stack[-1] != entry["version"]:
                    stack.pop()
            elif entry["champion"] and stack[-1:] != [entry["version"]]:
                stack.append(entry["version"])
        return stack

    def _path(self, model: str, number: int) -> Path:
        return self.folder / model / f"{number:06d}.json"


def _user() -> str:
    """Who did it; a container's user may have a number and no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
