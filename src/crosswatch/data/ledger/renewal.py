"""Claims kept alive while their owner works."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

from crosswatch.data.ledger.claims import Claim
from crosswatch.data.ledger.ledger import Ledger
from crosswatch.errors import ResourceError, UserError

END_S = 5.0  # how long a renewal that is under way may delay the end of the work
RENEWALS_A_LEASE = 3


class Renewal:
    """What became of the claims: `lost` says by key why one is no longer ours."""

    def __init__(self, ledger: Ledger, claims: Sequence[Claim]) -> None:
        self.lost: dict[str, str] = {}
        self._ledger = ledger
        self._renewed_at = {claim: time.monotonic() for claim in claims}

    def renew(self) -> None:
        """Begin every lease anew; a store that does not answer is asked again the next time."""
        for claim in self._renewed_at:
            if claim.key not in self.lost:
                self._renew_one(claim)

    def _renew_one(self, claim: Claim) -> None:
        asked_at = time.monotonic()
        try:
            if self._ledger.renew(claim):
                self._renewed_at[claim] = asked_at
            else:
                self.lost[claim.key] = "another run has taken it over, or a person released it"
        except (ResourceError, UserError) as error:  # such as credentials that are being replaced
            silent_s = time.monotonic() - self._renewed_at[claim]
            if silent_s > self._ledger.config.lease_s:
                self.lost[claim.key] = f"it could not be renewed for {silent_s:.0f} s: {error}"


@contextlib.contextmanager
def renewing(
    ledger: Ledger, claims: Sequence[Claim], every_s: float | None = None
) -> Iterator[Renewal]:
    """Renew claims at once and then, by default three times a lease, until the block ends."""
    renewal = Renewal(ledger, claims)
    period_s = ledger.config.lease_s / RENEWALS_A_LEASE if every_s is None else every_s
    ended = threading.Event()

    def work() -> None:
        renewal.renew()
        while not ended.wait(period_s):
            renewal.renew()

    thread = threading.Thread(target=work, name="renew-claims", daemon=True)
    if claims:
        thread.start()
    try:
        yield renewal
    finally:
        ended.set()
        if claims:
            thread.join(timeout=END_S)
