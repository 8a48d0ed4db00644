"""Ways in: each adapter understands one layout of deliveries."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from crosswatch.data.adapters.arrival import Arrival, ArrivalAdapter, Found
from crosswatch.data.adapters.donkeycar import DonkeycarAdapter
from crosswatch.data.adapters.fmf import FmfAdapter
from crosswatch.data.adapters.imported import ImportedAdapter
from crosswatch.data.adapters.index import IndexAdapter
from crosswatch.data.adapters.itsc import ItscAdapter
from crosswatch.data.adapters.single import SingleAdapter
from crosswatch.data.ingestion import IngestConfig
from crosswatch.data.raw import RawBatch

__all__ = ["ADAPTERS", "Adapter", "Arrival", "Found", "RawBatch", "open_adapter"]


class Adapter(Protocol):
    """Finding is cheap and decodes nothing; reading verifies and parses one delivery."""

    def find(self, source: Path) -> Found: ...

    def read(self, arrival: Arrival) -> RawBatch: ...


ADAPTERS: dict[str, Callable[[IngestConfig], Adapter]] = {
    "arrival": lambda _: ArrivalAdapter(),
    "itsc": lambda _: ItscAdapter(),
    "fmf": FmfAdapter,
    "index": IndexAdapter,
    "donkeycar": DonkeycarAdapter,
    "single": lambda _: SingleAdapter(),
    "imported": ImportedAdapter,
}


def open_adapter(config: IngestConfig) -> Adapter:
    """The adapter that the section `ingest` names, with the settings that it reads there."""
    return ADAPTERS[config.adapter](config)
