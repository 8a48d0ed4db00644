"""One encoder over many batches: only what no earlier run has computed, and kept piece by piece."""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from crosswatch import artifacts, progress
from crosswatch.data.kept import Kept
from crosswatch.errors import BadBatchError
from crosswatch.features.encoder import Encoder, Failed, Spans
from crosswatch.features.running.runner import Job, Refused, run
from crosswatch.features.running.shards import Shards
from crosswatch.features.settings import ComputeConfig
from crosswatch.features.source import Source

RowsInOrder = Callable[[], Iterator[tuple[int, Any]]]
Write = Callable[[Path, Source, Spans, RowsInOrder], tuple[str, ...]]
"""Writes a batch's files from its rows; the modalities that they hold."""
Basis = Mapping[str, str]
"""What a batch's rows depend on beside the encoder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extracted:
    """What came of an encoder: a folder a batch, or the reason why there is none."""

    folders: Mapping[str, Path]
    refused: Mapping[str, str]
    rows: int  # of the batches that were not refused
    computed: int  # of them, those that were not there already


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extraction:
    encoder: Encoder
    compute: ComputeConfig
    kept: Kept
    write: Write

    def over(self, sources: Sequence[Source], basis: Mapping[str, Basis]) -> Extracted:
        """Every batch, with its `basis` by its id."""
        digest = self.encoder.identity.digest
        with self.kept.held(digest):
            works = []
            for source in sources:
                depends = basis[source.batch_id]
                key = artifacts.digest_of([digest, dict(depends)])
                works.append(_Work(extraction=self, source=source, key=key, basis=depends))
            for work in works:
                work.look_for()
            self._fill([work for work in works if work.is_open])
        done = [work for work in works if work.folder is not None]
        return Extracted(
            folders={work.source.batch_id: work.folder for work in done if work.folder},
            refused={work.source.batch_id: work.refused for work in works if work.refused},
            rows=sum(work.rows for work in done),
            computed=sum(work.computed for work in done),
        )

    def _fill(self, works: Sequence["_Work"]) -> None:
        """Compute what is missing; a batch is written as soon as its last row is there."""
        with contextlib.ExitStack() as unfinished:
            for work in works:
                unfinished.enter_context(work.shards)  # keeps what is done, whatever happens
            jobs = [Job(source=work.source, rows=work.shards.missing()) for work in works]
            left = [len(job.rows) for job in jobs]
            for work, rows in zip(works, left, strict=True):
                if not rows:
                    work.commit()
            meter = progress.Meter(self.encoder.identity.name)
            answers = unfinished.enter_context(
                contextlib.closing(run(self.encoder, jobs, self.compute, meter=meter))
            )
            for found in answers:
                work = works[found.job]
                if isinstance(found, Refused):
                    work.refused = found.reason
                    continue
                work.add(found.row, found.value)
                left[found.job] -= 1
                if not left[found.job]:
                    work.commit()


@dataclasses.dataclass(kw_only=True)
class _Work:
    """One batch's part: it ends with a folder or is refused."""

    extraction: Extraction
    source: Source
    key: str
    basis: Basis
    folder: Path | None = None
    refused: str = ""
    rows: int = 0
    computed: int = 0
    spans_s: Spans = dataclasses.field(init=False)
    shards: Shards = dataclasses.field(init=False)

    @property
    def is_open(self) -> bool:
        return self.folder is None and not self.refused

    def look_for(self) -> None:
        """Find what an earlier run made of the batch, whole or in pieces."""
        kept = self.extraction.kept
        found = kept.find(self.key)
        if found is not None:
            counts = artifacts.open_artifact(found, kind=kept.kind, verify=False).counts
            self.rows = int(counts["rows"])
            if self._has_few_enough(int(counts["failed"]), "as was found before"):
                kept.publish(self.key)  # it may have been made without a store
                self.folder = found
            return
        try:
            self.spans_s = self.extraction.encoder.spans_s(self.source)
        except BadBatchError as error:
            self.refused = str(error)
            return
        self.rows = len(self.spans_s)
        shard_rows = self.extraction.compute.shard_rows
        self.shards = Shards(self._unfinished, self.rows, shard_rows)

    def add(self, row: int, value: Any) -> None:
        self.shards.add(row, value)
        self.computed += 1

    def commit(self) -> None:
        """Write the batch's artifact, unless too much of it failed."""
        failed = {row: found for row, found in self.shards.rows() if isinstance(found, Failed)}
        first = next((found.reason for found in failed.values()), "")
        if not self._has_few_enough(len(failed), first):
            return
        kept, identity = self.extraction.kept, self.extraction.encoder.identity
        with artifacts.create(
            kept.place(self.key),
            kind=kept.kind,
            config=dataclasses.asdict(identity),
            parents=self.basis,
        ) as draft:
            write = self.extraction.write
            modalities = write(draft.path, self.source, self.spans_s, self.shards.rows)
            facts = {
                **dataclasses.asdict(identity),
                "digest": identity.digest,
                "parents": dict(self.basis),
                "rows": self.rows,
                "failed": {str(row): found.reason for row, found in failed.items()},
                "modalities": list(modalities),
            }
            artifacts.write_json(draft / f"{identity.name}.json", facts)
            draft.counts.update({"rows": self.rows, "failed": len(failed)})
        kept.publish(self.key)
        shutil.rmtree(self._unfinished, ignore_errors=True)
        self.folder = kept.place(self.key)

    @property
    def _unfinished(self) -> Path:
        """Where finished rows lie until all of them are there."""
        return self.extraction.kept.root / f"unfinished-{self.key}"

    def _has_few_enough(self, failed: int, first: str) -> bool:
        share = self.extraction.compute.max_failed_share
        allowed = max(1, int(share * self.rows)) if share else 0
        if failed <= allowed and (not failed or failed < self.rows or share == 1):
            return True
        name = self.extraction.encoder.identity.name
        self.refused = (
            f"{failed} of {self.rows} rows of {name} failed; allowed {allowed} "
            f"(compute.max_failed_share {share:g}). The first: {first}"
        )
        return False
