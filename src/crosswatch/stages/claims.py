"""A run's claims: noted when they are won, kept alive while a stage works, closed at the end.

The tasks of a run share nothing but the workspace, so the note lies there, in the run's folder.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crosswatch import artifacts, config, progress
from crosswatch.data.ledger.claims import Claim, Entry
from crosswatch.data.ledger.ledger import Ledger, LedgerConfig
from crosswatch.data.ledger.renewal import renewing
from crosswatch.data.store.opening import open_objects
from crosswatch.data.store.place import parse_place
from crosswatch.data.store.settings import TransferConfig
from crosswatch.errors import ResourceError, UserError

NOTE = "claims.json"
QUARANTINED = "quarantined.json"


def run_folder(workspace: str, run_id: str) -> Path:
    """Where the tasks of a run leave notes for each other."""
    assert run_id
    assert "/" not in run_id
    return Path(workspace) / "runs" / run_id


def open_ledger(workspace: str, store: str, settings: Mapping[str, Any]) -> Ledger:
    """The ledger of the store if there is one, else of the workspace."""
    transfer = config.build(TransferConfig, settings.get("transfer", {}), where="transfer")
    ledger = config.build(LedgerConfig, settings.get("ledger", {}), where="ledger")
    place = parse_place(store) if store else Path(workspace)
    return Ledger(open_objects(place, transfer), ledger)


def open_claims(
    workspace: str, run_id: str, store: str, settings: Mapping[str, Any] | None = None
) -> "RunClaims":
    return RunClaims(
        run=run_id,
        ledger=open_ledger(workspace, store, settings or {}),
        note=run_folder(workspace, run_id) / NOTE,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunClaims:
    """What one run has won in a ledger."""

    run: str
    ledger: Ledger
    note: Path

    def noted(self) -> tuple[Claim, ...]:
        noted = artifacts.read_json(self.note) if self.note.exists() else []
        return tuple(Claim(**claim) for claim in noted)

    def take(
        self, keys: Mapping[str, str], *, owner_pid: int | None, again: bool
    ) -> tuple[Claim, ...]:
        """Claim each subject's key; what is won is noted even if the store fails on the way."""
        won: list[Claim] = []
        try:
            for subject, key in keys.items():
                claim = self.ledger.claim(
                    key, run=self.run, owner_pid=owner_pid, subject=subject, again=again
                )
                won += [claim] if claim else []
        finally:
            artifacts.replace_json(self.note, [dataclasses.asdict(claim) for claim in won])
        return tuple(won)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Renew the claims while the run works, and say so if one is lost meanwhile."""
        claims = self.noted()
        with renewing(self.ledger, claims) as renewal:
            yield
        for claim in claims:
            if claim.key in renewal.lost:
                progress.warn(f"{claim.subject}: its claim was lost: {renewal.lost[claim.key]}")

    def confirm(self) -> None:
        """Renew the claims now, and stop where the next step would be another run's by right.

        Raises:
            UserError: a claim is no longer this run's, so what it makes must not be registered.
        """
        for claim in self.noted():
            if not self.ledger.renew(claim):
                raise UserError(_why_lost(claim, self.ledger.entry(claim.key)))

    def note_quarantined(self, reasons: Mapping[str, str]) -> None:
        """Remember what a stage quarantined, beside what those before it did."""
        if reasons:
            artifacts.replace_json(self._quarantine, {**self._quarantined(), **reasons})

    def close(self, state: str) -> tuple[Claim, ...]:
        """End every claim as the run ended; those that are no longer this run's are returned.

        Raises:
            ResourceError: the store failed on some; the others are closed.
        """
        lost, failures, quarantined = [], [], self._quarantined()
        for claim in self.noted():
            try:
                lost += [] if self._close(claim, state, quarantined) else [claim]
            except ResourceError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return tuple(lost)

    @property
    def _quarantine(self) -> Path:
        return self.note.with_name(QUARANTINED)

    def _quarantined(self) -> dict[str, str]:
        found: dict[str, str] = (
            artifacts.read_json(self._quarantine) if self._quarantine.exists() else {}
        )
        return found

    def _close(self, claim: Claim, state: str, quarantined: Mapping[str, str]) -> bool:
        if state != "SUCCEEDED":
            return self.ledger.fail(claim, reason=f"the run ended as {state}")
        if claim.subject in quarantined:
            reason = quarantined[claim.subject]
            return self.ledger.finish(claim, "quarantined", reason=reason)
        return self.ledger.finish(claim)


def _why_lost(claim: Claim, entry: Entry | None) -> str:
    if entry is None:
        why = "somebody removed the record of its claim"
    elif not entry.is_of(claim):
        why = f"taken over by run {entry.run} ({entry.owner})"
    elif entry.state == "released":
        why = f"released by hand ({entry.reason})"
    else:
        why = f"this run has closed it already ({entry.state})"
    return f"{claim.subject}: {why}. This run stops here; nothing was registered."
