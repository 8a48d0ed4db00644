"""Who works on which delivery: at most one run at a time, and once only.

A claim is one object, claims/<key>.json, whose key is the digest of what would be done (contents,
recipe, resolved configuration, code version). It changes by compare-and-swap alone, so that each
transition is one step that exactly one of many processes makes, on a disk as in a bucket. Each
attempt is a generation; one that failed, was released, whose lease ran out, or whose process on
this host is gone, gives way to the next.
"""

import concurrent.futures
import dataclasses
import re
import uuid
from collections.abc import Callable
from typing import Any, Literal

from crosswatch.data.ledger.claims import (
    SHOWN_CHARACTERS,
    Claim,
    Entry,
    Owner,
    State,
    decode,
    encode,
)
from crosswatch.data.store.objects import Objects
from crosswatch.errors import ResourceError, UserError

PREFIX = "claims/"
LEASE_LIMITS_S = (60.0, 30 * 86400.0)
READERS = 8  # records of a listing that are fetched at a time
ATTEMPTS = 16  # others that may change a record between our look and our step
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LedgerConfig:
    """How long a run that says nothing more keeps its claims."""

    lease_s: float = 7200.0

    def __post_init__(self) -> None:
        low, high = LEASE_LIMITS_S
        if not low <= self.lease_s <= high:
            raise UserError(
                f"lease_s is {self.lease_s:g}; allowed {low:g} to {high:g} s. A shorter lease is "
                "lost to a slow network, a longer one blocks a batch whose run died."
            )


@dataclasses.dataclass(frozen=True)
class Ledger:
    """`clock` stands in for the store's own, which all hosts share."""

    objects: Objects
    config: LedgerConfig = LedgerConfig()
    clock: Callable[[], float] | None = None

    def claim(
        self, key: str, *, run: str, owner_pid: int | None, subject: str, again: bool = False
    ) -> Claim | None:
        """Win the work `key`, or None: it is done (unless `again`), or a live run has it.

        A run that claims what it has already, because its task was tried again, gets the next
        generation.
        """
        owner, nonce = Owner.here(owner_pid), uuid.uuid4().hex
        for _ in range(ATTEMPTS):
            found = self._read(key)
            now = self.now()
            if found is not None and not self._gives_way(found.entry, run, again, now):
                return None
            entry = Entry(
                key=key,
                subject=subject,
                run=run,
                state="claimed",
                generation=found.entry.generation + 1 if found else 1,
                owner=owner,
                nonce=nonce,
                claimed_at=now,
                lease_until=now + self.config.lease_s,
                earlier=found.entry.past() if found else (),
            )
            if self._write(entry, over=found):
                return Claim(key=key, generation=entry.generation, subject=subject, nonce=nonce)
        raise self._restless(key)

    def renew(self, claim: Claim) -> bool:
        """Begin the lease anew; False if the claim is somebody else's by now, or has ended.

        A clock that steps back never shortens a lease.
        """

        def renewed(entry: Entry) -> Entry:
            until = max(entry.lease_until, self.now() + self.config.lease_s)
            return dataclasses.replace(entry, lease_until=until)

        return self._change(claim, renewed)

    def finish(
        self, claim: Claim, state: Literal["done", "quarantined"] = "done", **facts: Any
    ) -> bool:
        """Record that the work is done; False if the claim is somebody else's, or has ended."""
        return self._end(claim, state, **facts)

    def fail(self, claim: Claim, reason: str = "") -> bool:
        """Give the work up, for the next run to take; False as `finish`."""
        return self._end(claim, "failed", reason=reason)

    def state(self, key: str) -> State | None:
        """How the newest generation stands; None if nobody ever claimed the work."""
        entry = self.entry(key)
        return entry.state if entry else None

    def entry(self, key: str) -> Entry | None:
        found = self._read(key)
        return found.entry if found else None

    def list(self) -> list[Entry]:
        """Every claim, in the order of batches, then of time."""
        names = [info.key.removeprefix(PREFIX) for info in self.objects.list(PREFIX)]
        keys = [name.removesuffix(".json") for name in names if _is_record(name)]
        with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
            entries = [entry for entry in pool.map(self.entry, keys) if entry is not None]
        return sorted(entries, key=lambda entry: (entry.subject, entry.claimed_at, entry.key))

    def release(self, name: str, *, reason: str, done: bool = False) -> Entry:
        """End a claim by hand: the next run takes it, and its late owner cannot finish it.

        `name` is a claim's key, a batch, or the beginning of either that fits one claim alone.

        Raises:
            UserError: no claim or several bear the name, it is finished (unless `done`), or nobody
                holds it.
        """
        chosen = self._named(name, done)
        for _ in range(ATTEMPTS):
            found = self._read(chosen.key)
            if found is None or found.entry.nonce != chosen.nonce:
                raise UserError(f"{_cut(name)}: another run took the claim just now; look again")
            _refuse_release(found.entry, done)
            entry = dataclasses.replace(
                found.entry, state="released", ended_at=self.now(), reason=reason
            )
            if self._write(entry, over=found):
                return entry
        raise self._restless(chosen.key)

    def is_held(self, entry: Entry, now: float | None = None) -> bool:
        """Whether its owner may be at work: within the lease, and not known to be gone."""
        at = self.now() if now is None else now
        return entry.state == "claimed" and at <= entry.lease_until and not entry.owner.is_gone

    def now(self) -> float:
        return self.objects.now() if self.clock is None else self.clock()

    def _gives_way(self, entry: Entry, run: str, again: bool, now: float) -> bool:
        if entry.is_finished:
            return again
        return entry.run == run or not self.is_held(entry, now)

    def _end(
        self,
        claim: Claim,
        state: Literal["done", "quarantined", "failed"],
        reason: str = "",
        **facts: Any,
    ) -> bool:
        def ended(entry: Entry) -> Entry:
            return dataclasses.replace(
                entry, state=state, ended_at=self.now(), reason=reason, facts=facts
            )

        return self._change(claim, ended) or self._is_already(claim, state)

    def _is_already(self, claim: Claim, state: State) -> bool:
        """Said twice, because the first answer got lost, it is still true."""
        entry = self.entry(claim.key)
        return entry is not None and entry.is_of(claim) and entry.state == state

    def _change(self, claim: Claim, to: Callable[[Entry], Entry]) -> bool:
        for _ in range(ATTEMPTS):
            found = self._read(claim.key)
            if found is None or not found.entry.is_of(claim) or found.entry.state != "claimed":
                return False
            if self._write(to(found.entry), over=found):
                return True
        raise self._restless(claim.key)

    def _read(self, key: str) -> "_Found | None":
        versioned = self.objects.get(_name(key))
        if versioned is None:
            return None
        entry = decode(versioned.data, key=key, where=self._where(key))
        return _Found(entry=entry, tag=versioned.tag)

    def _write(self, entry: Entry, *, over: "_Found | None") -> bool:
        """One step of compare-and-swap.

        A server may take a write whose answer never arrives; its client then sees an error, or,
        having tried again, that the record has changed. What stands there decides: the nonce and
        the instants in the bytes make them this process's own.
        """
        name, data = _name(entry.key), encode(entry)
        try:
            if over is None:
                is_won = self.objects.create(name, data)
            else:
                is_won = self.objects.replace(name, data, tag=over.tag)
        except ResourceError:
            if self._stands(name, data):
                return True
            raise
        return is_won or self._stands(name, data)

    def _stands(self, name: str, data: bytes) -> bool:
        found = self.objects.get(name)
        return found is not None and found.data == data

    def _named(self, name: str, done: bool) -> Entry:
        """The claim that a person means; a whole key is not searched for among the others."""
        entry = self.entry(name) if DIGEST.fullmatch(name) else None
        return entry or _chosen(self.list(), name, done, self.objects.url)

    def _where(self, key: str) -> str:
        return f"{self.objects.url.rstrip('/')}/{_name(key)}"

    def _restless(self, key: str) -> ResourceError:
        return ResourceError(
            f"{self._where(key)}: changed {ATTEMPTS} times while it was being written; try again"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Found:
    entry: Entry
    tag: str


def _name(key: str) -> str:
    return f"{PREFIX}{key}.json"


def _is_record(name: str) -> bool:
    """Older workspaces hold a folder a claim as well; no run asks for keys of theirs again."""
    return name.endswith(".json") and "/" not in name


def _cut(text: str) -> str:
    return repr(text[:SHOWN_CHARACTERS])


def _chosen(entries: list[Entry], name: str, done: bool, url: str) -> Entry:
    """Whole names go before beginnings, and claims that can be released before others."""
    found = [entry for entry in entries if name in (entry.key, entry.subject)]
    if not found and name:
        found = [e for e in entries if e.key.startswith(name) or e.subject.startswith(name)]
    if not found:
        raise UserError(f"{_cut(name)}: no claim or batch of this name; see crosswatch ledger list")
    wanted = [e for e in found if e.state == "claimed" or (done and e.is_finished)] or found
    if len(wanted) > 1:
        several = ", ".join(f"{e.key[:12]} ({_cut(e.subject)}, {e.state})" for e in wanted[:5])
        raise UserError(
            f"{_cut(name)}: fits {len(wanted)} claims in {url}: {several}"
            f"{', ...' * (len(wanted) > 5)}. Name one by its key."
        )
    return wanted[0]


def _refuse_release(entry: Entry, done: bool) -> None:
    what = f"{_cut(entry.subject)} (claim {entry.key[:12]})"
    if entry.is_finished and not done:
        raise UserError(
            f"{what}: is {entry.state} by run {_cut(entry.run)}. Give that up with --done, so that "
            "the next run works on it again; or start that run with --again."
        )
    if entry.state in ("failed", "released"):
        raise UserError(f"{what}: is {entry.state} already; the next run takes it.")
