"""One batch as encoders see it: what is stored of it, the original behind it, and its captions."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from crosswatch import artifacts
from crosswatch.data.batches import BATCH_MANIFEST, Batch, BatchSet, open_batch
from crosswatch.data.originals import Original, OriginalPlace, open_original
from crosswatch.data.store.settings import TransferConfig
from crosswatch.errors import UserError
from crosswatch.features.captioning.captions import Caption, CaptionSet, read_captions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Names only, so that it travels to other processes; what it names is opened when it is used.

    Attributes:
        folder: of the stored batch, in a batch set.
        captions_file: its captions.parquet; None where there are none.
    """

    batch_id: str
    batch_digest: str
    folder: Path
    place: OriginalPlace
    captions_file: Path | None = None

    @functools.cached_property
    def batch(self) -> Batch:
        return open_batch(self.folder, batch_id=self.batch_id, digest=self.batch_digest)

    @functools.cached_property
    def original(self) -> Original:
        """
        Raises:
            BadBatchError: it is gone or was changed since.
        """
        return open_original(self.place, self.batch)

    @functools.cached_property
    def captions(self) -> tuple[Caption, ...]:
        return () if self.captions_file is None else read_captions(self.captions_file)

    @functools.cached_property
    def found_out(self) -> dict[Any, Any]:
        """What took long to find out about the batch, by what was asked; of this process alone."""
        return {}

    @functools.cached_property
    def stored_digest(self) -> str:
        """Of everything that is stored of the batch, and how it was ingested."""
        path = self.folder / BATCH_MANIFEST
        return artifacts.parse_manifest(path.read_bytes(), where=str(path)).digest

    def __getstate__(self) -> dict[str, Any]:
        """Without what was opened: memory maps would be copied."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def refuse_other_adapters(source: Source, adapter: str, option: str) -> None:
    """Raise UserError where an option asks for what another layout of deliveries brings."""
    ingested = source.place.ingest["adapter"]
    if ingested != adapter:
        raise UserError(
            f"{option} names {adapter}, and the batches were ingested with ingest.adapter="
            f"{ingested}, which brings none. Leave it out, or set ingest.adapter={adapter}."
        )


def sources_of(
    batches: Path,
    batch_set: BatchSet,
    *,
    fetched: Path,
    transfer: TransferConfig,
    captions: CaptionSet | None = None,
) -> tuple[Source, ...]:
    """Every batch of the set that lies at `batches`."""
    ingest = artifacts.open_artifact(batches, verify=False).config["ingest"]
    place = OriginalPlace(ingest=ingest, fetched=fetched, transfer=transfer)
    return tuple(
        Source(
            batch_id=batch.id,
            batch_digest=batch.digest,
            folder=batch.folder,
            place=place,
            captions_file=None if captions is None else captions.file_of(batch.id),
        )
        for batch in batch_set.batches
    )
