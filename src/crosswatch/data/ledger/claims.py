"""A claim as it lies in the store: one JSON object, read and written whole."""

import dataclasses
import json
import math
import socket
from typing import Any, Literal

import psutil

from crosswatch import config
from crosswatch.errors import UserError

SCHEMA_VERSION = 1
CLOCK_STEP_S = 60.0  # a host's clock that is set moves the beginnings of its processes
EARLIER_KEPT = 8  # generations that a record remembers
SHOWN_CHARACTERS = 200  # of a text that somebody else wrote, in an error

State = Literal["claimed", "done", "failed", "quarantined", "released"]
PastState = Literal["lapsed", "done", "failed", "quarantined", "released"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """One attempt at one piece of work, as its owner holds it."""

    key: str
    generation: int
    subject: str  # the batch
    nonce: str  # tells this attempt from every other, even if a person deleted the record between


@dataclasses.dataclass(frozen=True, kw_only=True)
class Owner:
    """The process that a claim is worth as much as; None where only the lease counts."""

    host: str
    pid: int | None
    pid_started: float | None

    @classmethod
    def here(cls, pid: int | None) -> "Owner":
        return cls(host=socket.gethostname(), pid=pid, pid_started=process_started(pid))

    @property
    def is_gone(self) -> bool:
        """Whether it was a process of this host and has ended; other hosts' cannot be seen."""
        if self.pid is None or self.host != socket.gethostname():
            return False
        begun = process_started(self.pid)
        if begun is None or self.pid_started is None:
            return True
        return abs(begun - self.pid_started) >= CLOCK_STEP_S  # its number belongs to another now

    def __str__(self) -> str:
        return self.host if self.pid is None else f"process {self.pid} on {self.host}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Past:
    """An earlier generation, for the listing."""

    generation: int
    run: str
    state: PastState
    claimed_at: float
    ended_at: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """The newest generation of one claim, and how it stands. Instants are the store's."""

    key: str
    subject: str
    run: str
    state: State
    generation: int
    owner: Owner
    nonce: str
    claimed_at: float
    lease_until: float
    ended_at: float | None = None
    reason: str = ""
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    earlier: tuple[Past, ...] = ()

    def __post_init__(self) -> None:
        instants = (self.claimed_at, self.lease_until, self.ended_at or 0.0)
        if self.generation < 1 or not all(map(math.isfinite, instants)):
            raise UserError(f"generation {self.generation} with the instants {instants}")

    @property
    def is_finished(self) -> bool:
        return self.state in ("done", "quarantined")

    def is_of(self, claim: Claim) -> bool:
        return (self.generation, self.nonce) == (claim.generation, claim.nonce)

    def past(self) -> tuple[Past, ...]:
        """What the next generation remembers."""
        last = Past(
            generation=self.generation,
            run=self.run,
            state="lapsed" if self.state == "claimed" else self.state,
            claimed_at=self.claimed_at,
            ended_at=self.ended_at,
        )
        return (*self.earlier, last)[-EARLIER_KEPT:]


def encode(entry: Entry) -> bytes:
    values = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(entry)}
    return (json.dumps(values, indent=1, allow_nan=False) + "\n").encode()


def decode(data: bytes, *, key: str, where: str) -> Entry:
    """The record of `key`; `where` names the object in errors.

    Raises:
        UserError: the object is no claim record, or of a newer Crosswatch.
    """
    try:
        values = json.loads(data)
        version = values.pop("schema_version")
        if type(version) is not int:
            raise UserError(f"schema_version is {version!r}")
        if version > SCHEMA_VERSION:
            raise _NewerError(version)
        entry = _built(values)
        if entry.key != key:
            raise UserError(f"it is the record of {entry.key!r}")
    except _NewerError as newer:
        raise UserError(
            f"{where}: has schema version {newer}; this Crosswatch reads up to {SCHEMA_VERSION}. "
            "Update Crosswatch."
        ) from newer
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:SHOWN_CHARACTERS]
        raise UserError(
            f"{where}: is no claim record ({why}). Remove the object, and the next run claims its "
            "batch anew."
        ) from error
    return entry


class _NewerError(Exception):
    """A record of a schema that this release does not know."""


def _built(values: dict[str, Any]) -> Entry:
    facts = values.pop("facts")
    if not isinstance(facts, dict):
        raise UserError(f"facts: expected keys and values, found {type(facts).__name__}")
    return dataclasses.replace(config.build(Entry, values, where="claim"), facts=facts)


def process_started(pid: int | None) -> float | None:
    """When a process began; with its number it names it for good. None if it has ended."""
    if pid is None:
        return None
    try:
        process = psutil.Process(pid)
        # A killed process that its parent has not asked about yet works on nothing any more.
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time())
    except psutil.NoSuchProcess:
        return None
