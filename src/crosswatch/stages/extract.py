"""Encode pictures, sound and captions into features, each row with its time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crosswatch import artifacts, config, progress
from crosswatch.data.batches import BATCH_SET, open_set
from crosswatch.data.kept import hidden_beside, open_kept
from crosswatch.data.store.place import Place
from crosswatch.data.store.settings import TransferConfig
from crosswatch.errors import UserError
from crosswatch.features.captioning.captions import CAPTIONS, CaptionSet, open_captions
from crosswatch.features.encoder import Spans
from crosswatch.features.encoders import ENCODERS
from crosswatch.features.extraction import Extracted, Extraction
from crosswatch.features.imported import NAME as IMPORTED
from crosswatch.features.imported import take_imported
from crosswatch.features.schema import FEATURES, INDEX, RowsInOrder, modalities_in, write_rows
from crosswatch.features.settings import FeatureConfig
from crosswatch.features.source import Source, sources_of

FEATURE = "feature"  # of one batch and one encoder


def extract(
    *,
    batches: Path,
    captions: Path | None = None,
    out: Path,
    known: Path | None = None,
    originals: Path | None = None,
    store: Place | None = None,
    features: FeatureConfig,
    transfer: TransferConfig,
) -> None:
    """Encoders of text need `captions`. What earlier runs computed with the same weights and
    settings is taken from `known` (by default .known beside `out`), with a store also what other
    machines computed."""
    settings = {"features": config.plain(features)}
    if not features.encoders:
        _write_nothing(batches, captions, out, settings)
        return
    batch_set = open_set(batches)
    captioned = _open_captions(captions, batch_set.digest, features)
    fetched = originals or hidden_beside(out, "deliveries")
    sources = sources_of(batches, batch_set, fetched=fetched, transfer=transfer, captions=captioned)
    place = known or hidden_beside(out, "features")
    kept = open_kept(place, kind=FEATURE, store=store, transfer=transfer)
    parents = {"batches": batch_set.digest}
    parents |= {} if captioned is None else {"captions": captioned.digest}
    computing = [name for name in features.encoders if name != IMPORTED]
    encoders = {name: ENCODERS[name].build(features, sources) for name in computing}
    for encoder in encoders.values():
        _ = encoder.identity  # weights that are missing are told before hours of work
    with artifacts.create(out, kind=FEATURES, config=settings, parents=parents) as draft:
        found: dict[str, Extracted] = {}
        if IMPORTED in features.encoders:
            found[IMPORTED] = take_imported(draft, sources, features)
            _tell_refused(draft, IMPORTED, found[IMPORTED])
        for name, encoder in encoders.items():
            extraction = Extraction(
                encoder=encoder, compute=features.compute, kept=kept, write=_write
            )
            reads = captioned if ENCODERS[name].reads_captions else None
            basis = {source.batch_id: _basis(source, reads) for source in sources}
            found[name] = extraction.over(sources, basis)
            _take(draft, name, found[name])
        _refuse_nothing(sources, found)
        _write_index(draft, [source.batch_id for source in sources], features.encoders)
        _summarise(draft, found)


def _write_nothing(
    batches: Path, captions: Path | None, out: Path, settings: Mapping[str, Any]
) -> None:
    parents = {"batches": artifacts.open_artifact(batches, kind=BATCH_SET, verify=False).digest}
    if captions is not None:
        opened = artifacts.open_artifact(captions, kind=CAPTIONS, verify=False)
        parents["captions"] = opened.digest
    with artifacts.create(out, kind=FEATURES, config=settings, parents=parents) as draft:
        _write_index(draft, [], [])
        draft.note = "features.encoders is empty: this recipe needs no features"
        progress.outcome(draft.note)


def _write_index(draft: artifacts.Draft, batches: Sequence[str], encoders: Sequence[str]) -> None:
    index = {
        "batches": list(batches),
        "encoders": list(encoders),
        "modalities": modalities_in(draft.path),
    }
    artifacts.write_json(draft / INDEX, index)


def _open_captions(
    captions: Path | None, batch_set_digest: str, features: FeatureConfig
) -> CaptionSet | None:
    """
    Raises:
        UserError: an encoder of text has none to read.
    """
    found = None if captions is None else open_captions(captions, batch_set_digest=batch_set_digest)
    readers = [name for name, kind in ENCODERS.items() if kind.reads_captions]
    readers = [name for name in features.encoders if name in readers]
    if readers and (found is None or not found.hashes):
        why = "--captions is missing" if captions is None else f"{captions} holds no captions"
        raise UserError(
            f"{why}, which features.encoders {', '.join(readers)} would encode. Run caption with "
            "caption.source=template (or blip, supplied or imported), or leave them out."
        )
    return found


def _basis(source: Source, captions: CaptionSet | None) -> dict[str, str]:
    basis = {"batch": source.stored_digest, "arrival": source.batch_digest}
    if captions is not None:
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
    _tell_refused(draft, name, found)


def _tell_refused(draft: artifacts.Draft, name: str, found: Extracted) -> None:
    for batch_id, reason in found.refused.items():
        told = f"{name}: {reason}"
        before = draft.quarantined.get(batch_id)
        draft.quarantined[batch_id] = told if before is None else f"{before}; {told}"
        progress.warn(f"{batch_id} has no {name}: {reason}")


def _refuse_nothing(sources: Sequence[Source], found: dict[str, Extracted]) -> None:
    for name, extracted in found.items():
        if len(extracted.refused) == len(sources):
            batch_id, reason = next(iter(extracted.refused.items()))
            raise UserError(
                f"{name} has no batch left. {batch_id}: {reason} Or leave {name} out of "
                "features.encoders."
            )


def _summarise(draft: artifacts.Draft, found: dict[str, Extracted]) -> None:
    told = []
    for name, extracted in found.items():
        draft.counts[name] = extracted.rows
        if not extracted.rows:
            draft.warnings.append(f"no batch gave {name} anything to look at")
            progress.warn(draft.warnings[-1])
        known = extracted.rows - extracted.computed
        told.append(f"{name} {extracted.rows}" + (f" ({known} known)" if known else ""))
    left_out = len(draft.quarantined)
    telling = f"; {left_out} batches lack some" if left_out else ""
    progress.outcome("rows: " + ", ".join(told) + telling)
