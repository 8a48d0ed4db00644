"""Describe pictures in sentences: BLIP, a table, or templates without weights."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crosswatch import artifacts, config, progress
from crosswatch.data.batches import BATCH_SET, open_set
from crosswatch.data.kept import Kept, hidden_beside, open_kept
from crosswatch.data.store.place import Place
from crosswatch.data.store.settings import TransferConfig
from crosswatch.errors import BadBatchError, UserError
from crosswatch.features.captioning.captioners import captioned
from crosswatch.features.captioning.captions import CAPTIONS, FILE, read_captions, write_captions
from crosswatch.features.captioning.shuffled import shuffled
from crosswatch.features.settings import CaptionConfig
from crosswatch.features.source import Source, sources_of

CAPTIONED = "captioned"  # one batch, by a captioner with weights


def caption(
    *,
    batches: Path,
    out: Path,
    known: Path | None = None,
    originals: Path | None = None,
    store: Place | None = None,
    caption: CaptionConfig,
    transfer: TransferConfig,
) -> None:
    """What BLIP said in earlier runs with the same weights and settings is taken from `known` (by
    default .known beside `out`), with a store also what other machines computed."""
    settings = {"caption": config.plain(caption)}
    if caption.source == "none":
        _write_nothing(batches, out, settings)
        return
    batch_set = open_set(batches)
    fetched = originals or hidden_beside(out, "deliveries")
    sources = sources_of(batches, batch_set, fetched=fetched, transfer=transfer)
    parents = {"batches": batch_set.digest}
    with artifacts.create(out, kind=CAPTIONS, config=settings, parents=parents) as draft:
        if caption.source == "blip":
            place = known or hidden_beside(out, "captions")
            kept = open_kept(place, kind=CAPTIONED, store=store, transfer=transfer)
            _with_blip(draft, sources, caption, kept)
        else:
            _directly(draft, sources, caption)
        if len(draft.quarantined) == len(sources):
            batch_id, reason = next(iter(draft.quarantined.items()))
            raise UserError(f"no batch has captions. {batch_id}: {reason}")
        total = int(draft.counts.get("captions", 0))
        if not total:
            _warn(draft, f"caption.source={caption.source} found nothing to say of any batch")
        if caption.shuffle_seed is not None and total:
            _shuffle(draft, caption.shuffle_seed)
        progress.outcome(f"{total} captions by {caption.source}")


def _write_nothing(batches: Path, out: Path, settings: Mapping[str, Any]) -> None:
    parents = {"batches": artifacts.open_artifact(batches, kind=BATCH_SET, verify=False).digest}
    with artifacts.create(out, kind=CAPTIONS, config=settings, parents=parents) as draft:
        draft.note = "caption.source is none: this recipe needs no captions"
        progress.outcome(draft.note)


def _directly(draft: artifacts.Draft, sources: Sequence[Source], caption: CaptionConfig) -> None:
    for source in progress.track(sources, what="captions", total=len(sources)):
        try:
            said = captioned(caption, source)
        except BadBatchError as error:
            _refuse(draft, source.batch_id, str(error))
            continue
        write_captions(draft / f"{source.batch_id}/{FILE}", said.captions)
        draft.counts["captions"] = draft.counts.get("captions", 0) + len(said.captions)
        if not said.captions:
            _warn(draft, f"{source.batch_id}: caption.source={caption.source} says nothing of it")
        if said.left_out:
            _warn(draft, f"{source.batch_id}: {said.left_out} sentences lie outside of its time")


def _with_blip(
    draft: artifacts.Draft, sources: Sequence[Source], caption: CaptionConfig, kept: Kept
) -> None:
    from crosswatch.features.captioning.blip import BlipCaptioner
    from crosswatch.features.captioning.captioners import write_said
    from crosswatch.features.extraction import Extraction
    from crosswatch.features.weights.finding import absolute

    blip = dataclasses.replace(caption.blip, weights=absolute(caption.blip.weights))
    extraction = Extraction(
        encoder=BlipCaptioner(blip, caption.frames, caption.compute.precision),
        compute=caption.compute,
        kept=kept,
        write=write_said(caption),
    )
    basis = {
        source.batch_id: {
            "batch": source.stored_digest,
            "arrival": source.batch_digest,
            "explain_s": str(caption.explain_s),
        }
        for source in sources
    }
    found = extraction.over(sources, basis)
    for batch_id, folder in found.folders.items():
        manifest = artifacts.open_artifact(folder, kind=CAPTIONED, verify=False)
        artifacts.link_file(folder / FILE, draft / f"{batch_id}/{FILE}")
        draft.verified[f"{batch_id}/{FILE}"] = manifest.files[FILE]
        said = int(manifest.counts["rows"] - manifest.counts["failed"])
        draft.counts["captions"] = draft.counts.get("captions", 0) + said
        if manifest.counts["failed"]:
            _warn(draft, f"{batch_id}: {manifest.counts['failed']:.0f} pictures got no caption")
    for batch_id, reason in found.refused.items():
        _refuse(draft, batch_id, reason)


def _shuffle(draft: artifacts.Draft, seed: int) -> None:
    captions = {path.parent.name: read_captions(path) for path in draft.path.glob(f"*/{FILE}")}
    for batch_id, of_batch in shuffled(captions, seed=seed).items():
        name = f"{batch_id}/{FILE}"
        (draft / name).unlink()  # it may be another name of a kept file, which has to stay
        draft.verified.pop(name, None)
        write_captions(draft / name, of_batch)
    alone = sum(map(len, captions.values())) == 1
    told = "the only one keeps its sentence" if alone else "each row has another row's sentence"
    _warn(draft, f"captions are shuffled (caption.shuffle_seed={seed}), as a control: {told}")


def _warn(draft: artifacts.Draft, text: str) -> None:
    draft.warnings.append(text)
    progress.warn(text)


def _refuse(draft: artifacts.Draft, batch_id: str, reason: str) -> None:
    draft.quarantined[batch_id] = reason
    progress.warn(f"{batch_id} has no captions: {reason}")
