"""Deliveries read and ingested as the stage does it."""

from pathlib import Path

from deliveries import Scene

from crosswatch.data.adapters.arrival import ArrivalAdapter
from crosswatch.data.batches import Batch, open_batch
from crosswatch.data.ingestion import BatchSummary, IngestConfig, RawBatch, write_batch
from crosswatch.data.sync.estimate import SyncConfig

SMALL = IngestConfig(frame_px=16)
GIVEN = SyncConfig(estimate="given", camera_lag_s=Scene().offset_s)


def read(folder: Path) -> RawBatch:
    (arrival,) = ArrivalAdapter().find(folder).arrivals
    return ArrivalAdapter().read(arrival)


def store(
    raw: RawBatch, out: Path, *, ingest: IngestConfig = SMALL, sync: SyncConfig = GIVEN
) -> tuple[Batch, BatchSummary]:
    out.mkdir(exist_ok=True)
    summary = write_batch(raw, out, ingest=ingest, sync=sync)
    return open_batch(out, batch_id=raw.id, digest="d"), summary
