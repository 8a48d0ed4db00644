"""Who works on which delivery: at most one run at a time, and once only.

A claim is a folder named after what would be done (the digest of contents, recipe, resolved
configuration and code version). Each attempt is a generation: a file that exactly one process can
create. A generation that failed, whose lease ran out, or whose process on this host is gone, gives
way to the next one.
"""

import dataclasses
import socket
import time
from pathlib import Path
from typing import Any, Literal

import psutil

from crosswatch import artifacts

LEASE_S = 24 * 3600.0
CLOCK_STEP_S = 60.0  # a host's clock that is set moves the beginnings of its processes

State = Literal["claimed", "done", "failed", "quarantined"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """One attempt at one piece of work."""

    key: str
    generation: int
    subject: str  # the batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ledger:
    folder: Path

    def claim(
        self, key: str, *, run: str, owner_pid: int | None, subject: str, again: bool = False
    ) -> Claim | None:
        """Win the work `key`, or None: it is done (unless `again`), or a live run has it."""
        generation = self._last(key)
        is_done = self.state(key) in ("done", "quarantined") and not again
        if generation and (is_done or self._is_held(key, generation)):
            return None
        entry = {
            "subject": subject,
            "run": run,
            "host": socket.gethostname(),
            "pid": owner_pid,
            "pid_started": _started(owner_pid),
            "claimed_at": time.time(),
            "lease_until": time.time() + LEASE_S,
        }
        won = artifacts.create_exclusively(self._file(key, generation + 1), entry)
        return Claim(key=key, generation=generation + 1, subject=subject) if won else None

    def close(
        self, claim: Claim, state: Literal["done", "failed", "quarantined"], **facts: Any
    ) -> bool:
        """Record how an attempt ended; False if a later generation has taken the work over."""
        if self._last(claim.key) != claim.generation:
            return False
        path = self._file(claim.key, claim.generation).with_suffix(".end.json")
        return artifacts.create_exclusively(path, {"state": state, "at": time.time(), **facts})

    def state(self, key: str) -> State | None:
        """How the newest generation stands; None if nobody ever claimed the work."""
        generation = self._last(key)
        if not generation:
            return None
        end = self._file(key, generation).with_suffix(".end.json")
        return artifacts.read_json(end)["state"] if end.exists() else "claimed"

    def entry(self, key: str) -> dict[str, Any]:
        """The newest generation's facts: subject, run, host, process, and how it ended."""
        path = self._file(key, self._last(key))
        end = path.with_suffix(".end.json")
        ended = artifacts.read_json(end) if end.exists() else {}
        return {**artifacts.read_json(path), **ended}

    def _is_held(self, key: str, generation: int) -> bool:
        if self.state(key) != "claimed":
            return False
        entry = artifacts.read_json(self._file(key, generation))
        if entry["lease_until"] < time.time():
            return False
        is_local = entry["pid"] is not None and entry["host"] == socket.gethostname()
        return not is_local or _is_same_process(_started(entry["pid"]), entry["pid_started"])

    def _last(self, key: str) -> int:
        found = [
            int(path.stem) for path in (self.folder / key).glob("*.json") if path.stem.isdigit()
        ]
        return max(found, default=0)

    def _file(self, key: str, generation: int) -> Path:
        return self.folder / key / f"{generation}.json"


def _is_same_process(begun: float | None, noted: float | None) -> bool:
    return begun is not None and noted is not None and abs(begun - noted) < CLOCK_STEP_S


def _started(pid: int | None) -> float | None:
    """When a process began; with its number it names it for good. None if it is gone."""
    if pid is None:
        return None
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return None
