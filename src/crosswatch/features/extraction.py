"""One encoder over many batches: only what no earlier run has computed, and kept piece by piece."""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extracted:
    """What came of an encoder: a folder a batch, or the reason why there is none."""

    folders: Mapping[str, Path]
    refused: Mapping[str, str]
    rows: int
    computed: int  # rows that were not there already


@dataclasses.dataclass(kw_only=True)
class Extraction:
    encoder: Encoder
    compute: ComputeConfig
    kept: Kept
    write: Write

    def over(self, sources: Sequence[Source], basis: Mapping[str, Any]) -> Extracted:
        """`basis` is what a batch's rows depend on beside the encoder, by the batch's id."""
        identity = self.encoder.identity
        keys = {
            source.batch_id: artifacts.digest_of([identity.digest, basis[source.batch_id]])
            for source in sources
        }
        with self.kept.held(identity.digest):
            works = [
                _Work.plan(self, source, keys[source.batch_id], dict(basis[source.batch_id]))
                for source in sources
            ]
            missing = [work for work in works if work.folder is None and not work.refused]
            self._fill(missing)
            for work in missing:
                work.commit(self)
        return Extracted(
            folders={work.source.batch_id: work.folder for work in works if work.folder},
            refused={work.source.batch_id: work.refused for work in works if work.refused},
            rows=sum(len(work.spans_s) for work in works),
            computed=sum(work.computed for work in works),
        )

    def _fill(self, works: Sequence["_Work"]) -> None:
        jobs = [Job(source=work.source, rows=work.shards.missing()) for work in works]
        meter = progress.Meter(self.encoder.identity.name)
        with contextlib.ExitStack() as unfinished:
            for work in works:
                unfinished.enter_context(work.shards)  # keeps what is done, whatever happens
            answers = unfinished.enter_context(
                contextlib.closing(run(self.encoder, jobs, self.compute, meter=meter))
            )
            for found in answers:
                work = works[found.job]
                if isinstance(found, Refused):
                    work.refused = found.reason
                else:
                    work.shards.add(found.row, found.value)
                    work.computed += 1


@dataclasses.dataclass(kw_only=True)
class _Work:
    """One batch's part."""

    source: Source
    key: str
    basis: dict[str, Any]
    spans_s: Spans
    folder: Path | None
    shards: Shards
    refused: str = ""
    computed: int = 0

    @classmethod
    def plan(
        cls, extraction: Extraction, source: Source, key: str, basis: dict[str, Any]
    ) -> "_Work":
        refused = ""
        try:
            spans_s = extraction.encoder.spans_s(source)
        except BadBatchError as error:
            spans_s, refused = np.empty((0, 2)), str(error)
        kept, compute = extraction.kept, extraction.compute
        return cls(
            source=source,
            key=key,
            basis=basis,
            spans_s=spans_s,
            folder=None if refused else kept.find(key),
            shards=Shards(_unfinished(kept, key), len(spans_s), compute.shard_rows),
            refused=refused,
        )

    def commit(self, extraction: Extraction) -> None:
        """Write the batch's artifact, or say why too much of it failed."""
        kept, identity = extraction.kept, extraction.encoder.identity
        if self.refused:
            return
        failed = {row: found for row, found in self.shards.rows() if isinstance(found, Failed)}
        allowed = max(1, int(extraction.compute.max_failed_share * len(self.spans_s)))
        if len(failed) > allowed or (failed and len(failed) == len(self.spans_s)):
            first = next(iter(failed.values())).reason
            self.refused = (
                f"{identity.name}: {len(failed)} of {len(self.spans_s)} rows failed; allowed "
                f"{allowed} (compute.max_failed_share). The first: {first}"
            )
            self._forget(kept)  # so that they are tried again
            return
        with artifacts.create(
            kept.place(self.key),
            kind=kept.kind,
            config=dataclasses.asdict(identity),
            parents={name: str(value) for name, value in self.basis.items()},
        ) as draft:
            modalities = extraction.write(draft.path, self.source, self.spans_s, self.shards.rows)
            facts = {
                **dataclasses.asdict(identity),
                "digest": identity.digest,
                "parents": self.basis,
                "rows": len(self.spans_s),
                "failed": {str(row): found.reason for row, found in failed.items()},
                "modalities": list(modalities),
            }
            artifacts.write_json(draft / f"{identity.name}.json", facts)
            draft.counts.update({"rows": len(self.spans_s), "failed": len(failed)})
        kept.publish(self.key)
        self._forget(kept)
        self.folder = kept.place(self.key)

    def _forget(self, kept: Kept) -> None:
        shutil.rmtree(_unfinished(kept, self.key), ignore_errors=True)


def _unfinished(kept: Kept, key: str) -> Path:
    """Where finished rows of a batch lie until all of them are there."""
    return kept.root / f"unfinished-{key}"
