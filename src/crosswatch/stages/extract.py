"""Encode pictures, sound and captions into features, each row with its time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crosswatch import artifacts, config, progress
from crosswatch.data.batches import open_set
from crosswatch.data.kept import hidden_beside, open_kept
from crosswatch.data.store.place import Place
from crosswatch.data.store.settings import TransferConfig
from crosswatch.errors import UserError
from crosswatch.features.captioning.captions import CAPTIONS, CaptionSet, open_captions
from crosswatch.features.encoder import Spans
from crosswatch.features.encoders import ENCODERS
from crosswatch.features.extraction import Extracted, Extraction
from crosswatch.features.schema import FEATURES, INDEX, RowsInOrder, modalities_in, write_rows
from crosswatch.features.settings import FeatureConfig
from crosswatch.features.source import Source, sources_of

FEATURE = "feature"  # of one batch and one encoder


def extract(
    *,
    batches: Path,
    captions: Path,
    out: Path,
    known: Path | None = None,
    originals: Path | None = None,
    store: Place | None = None,
    features: FeatureConfig,
    transfer: TransferConfig,
) -> None:
    """What earlier runs computed with the same weights and settings is taken from `known` (by
    default a hidden folder beside `out`), with a store also what other machines computed."""
    settings = {"features": config.plain(features)}
    if not features.encoders:
        _write_nothing(batches, captions, out, settings)
        return
    batch_set = open_set(batches)
    captioned = open_captions(captions, batch_set_digest=batch_set.digest)
    fetched = originals or hidden_beside(out, "deliveries")
    sources = sources_of(batches, batch_set, fetched=fetched, transfer=transfer, captions=captioned)
    place = known or hidden_beside(out, "known")
    kept = open_kept(place, kind=FEATURE, store=store, transfer=transfer)
    parents = {"batches": batch_set.digest, "captions": captioned.digest}
    with artifacts.create(out, kind=FEATURES, config=settings, parents=parents) as draft:
        found: dict[str, Extracted] = {}
        for name in features.encoders:
            encoder, reads_captions = ENCODERS[name].build(features), ENCODERS[name].reads_captions
            extraction = Extraction(
                encoder=encoder, compute=features.compute, kept=kept, write=_write
            )
            basis = {each.batch_id: _basis(each, captioned, reads_captions) for each in sources}
            found[name] = extraction.over(sources, basis)
            _take(draft, name, found[name])
        _refuse_nothing(sources, found)
        _write_index(draft, [source.batch_id for source in sources])
        _summarise(draft, found)


def _write_nothing(batches: Path, captions: Path, out: Path, settings: Mapping[str, Any]) -> None:
    parents = {
        "batches": artifacts.open_artifact(batches, verify=False).digest,
        "captions": artifacts.open_artifact(captions, kind=CAPTIONS, verify=False).digest,
    }
    with artifacts.create(out, kind=FEATURES, config=settings, parents=parents) as draft:
        _write_index(draft, [])
        draft.note = "features.encoders is empty: this recipe needs no features"
        progress.outcome(draft.note)


def _write_index(draft: artifacts.Draft, batches: Sequence[str]) -> None:
    index = {"batches": list(batches), "modalities": modalities_in(draft.path)}
    artifacts.write_json(draft / INDEX, index)


def _basis(source: Source, captions: CaptionSet, reads_captions: bool) -> dict[str, str]:
    basis = {"batch": source.stored_digest, "arrival": source.batch_digest}
    if reads_captions:
        basis["captions"] = captions.hashes.get(source.batch_id, "none")
    return basis


def _write(folder: Path, _: Source, spans_s: Spans, rows: RowsInOrder) -> tuple[str, ...]:
    return write_rows(folder, spans_s, rows)


def _take(draft: artifacts.Draft, name: str, found: Extracted) -> None:
    """Link what is kept of each batch into the set; say which batches an encoder refused."""
    for batch_id, folder in found.folders.items():
        manifest = artifacts.open_artifact(folder, kind=FEATURE, verify=False)
        for file in manifest.files:
            artifacts.link_file(folder / file, draft / f"{batch_id}/{file}")
        draft.verified |= {f"{batch_id}/{file}": entry for file, entry in manifest.files.items()}
        failed = int(manifest.counts["failed"])
        draft.counts[f"{name}_failed"] = draft.counts.get(f"{name}_failed", 0) + failed
        if failed:
            draft.warnings.append(f"{batch_id}: {failed} rows of {name} failed and are not valid")
            progress.warn(draft.warnings[-1])
    for batch_id, reason in found.refused.items():
        told = f"{name}: {reason}"
        before = draft.quarantined.get(batch_id)
        draft.quarantined[batch_id] = told if before is None else f"{before}; {told}"
        progress.warn(f"{batch_id} has no {name}: {reason}")


def _refuse_nothing(sources: Sequence[Source], found: dict[str, Extracted]) -> None:
    for name, extracted in found.items():
        if len(extracted.refused) == len(sources):
            batch_id, reason = next(iter(extracted.refused.items()))
            raise UserError(f"{name} has no batch left. {batch_id}: {reason}")


def _summarise(draft: artifacts.Draft, found: dict[str, Extracted]) -> None:
    told = []
    for name, extracted in found.items():
        draft.counts[name] = extracted.rows
        known = extracted.rows - extracted.computed
        told.append(f"{name} {extracted.rows}" + (f" ({known} known)" if known else ""))
    progress.outcome("rows: " + ", ".join(told))
