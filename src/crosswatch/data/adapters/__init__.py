"""Ways in: each adapter understands one layout of deliveries."""

from pathlib import Path
from typing import Protocol

from crosswatch.data.adapters.arrival import Arrival, ArrivalAdapter, Found
from crosswatch.data.adapters.itsc import ItscAdapter
from crosswatch.data.ingestion import RawBatch

__all__ = ["ADAPTERS", "Adapter", "Arrival", "Found", "RawBatch"]


class Adapter(Protocol):
    """Finding is cheap and decodes nothing; reading verifies and parses one delivery."""

    def find(self, source: Path) -> Found: ...

    def read(self, arrival: Arrival) -> RawBatch: ...


ADAPTERS: dict[str, Adapter] = {"arrival": ArrivalAdapter(), "itsc": ItscAdapter()}
