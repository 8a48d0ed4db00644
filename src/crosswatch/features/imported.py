"""Arrays that others computed, taken into a features artifact as they are."""

import dataclasses
from collections.abc import Sequence

from crosswatch import artifacts, progress
from crosswatch.artifacts import Draft
from crosswatch.data.adapters.imported_sets import PARTS, ImportedSet, open_imported
from crosswatch.errors import BadBatchError, UserError
from crosswatch.features.encoder import Identity
from crosswatch.features.exchange.imported import UNKNOWN
from crosswatch.features.extraction import Extracted
from crosswatch.features.schema import read_feature
from crosswatch.features.settings import FeatureConfig
from crosswatch.features.source import Source, refuse_other_adapters

NAME = "imported"


def take_imported(draft: Draft, sources: Sequence[Source], features: FeatureConfig) -> Extracted:
    """Link every array of each batch's import into the draft, verified.

    Nobody knows what made them. To a model they are the same features whichever import brought
    them, so long as its layout and features.imported.made_with are the same.

    Raises:
        UserError: the batches are no imported ones, an import holds what another encoder would
            write too, or imports differ in the width of a modality.
    """
    refused: dict[str, str] = {}
    widths: dict[str, int] = {}
    rows = 0
    for source in progress.track(sources, what=NAME, total=len(sources)):
        refuse_other_adapters(source, NAME, "features.encoders")
        try:
            folder = source.original.path  # opening it verifies every byte
        except BadBatchError as error:
            refused[source.batch_id] = str(error)
            continue
        opened = open_imported(folder.parent)
        _refuse_twice(opened, features)
        rows += _take(draft, source, opened, features.imported.made_with, widths)
    return Extracted(folders={}, refused=refused, rows=rows, computed=rows)


def identity_of(layout: str, made_with: str) -> Identity:
    return Identity(
        name=NAME,
        weights=UNKNOWN,
        preprocessing={"imported": layout, "made_with": made_with},
        version=UNKNOWN,
    )


def _refuse_twice(opened: ImportedSet, features: FeatureConfig) -> None:
    for encoder in features.encoders:
        for modality in (encoder, f"{encoder}_tokens"):
            if modality in opened.modalities:
                raise UserError(
                    f"{opened.folder}: holds {modality!r}, which {encoder} in features.encoders "
                    "would write too. Leave one of them out."
                )


def _take(
    draft: Draft, source: Source, opened: ImportedSet, made_with: str, widths: dict[str, int]
) -> int:
    """Rows of all modalities of one batch; `widths` of those that were met before."""
    name, rows = source.batch_id, 0
    for modality in opened.modalities_of(name):
        for file in (f"{modality}{part}.npy" for part in PARTS):
            artifacts.link_file(opened.folder / name / file, draft / f"{name}/{file}")
            draft.verified[f"{name}/{file}"] = opened.files[name][file]
        feature = read_feature(draft.path / name, modality)
        assert feature is not None, "it was linked this moment"
        width = feature.values.shape[-1]
        if widths.setdefault(modality, width) != width:
            raise UserError(
                f"{opened.folder}: {modality!r} of {name} is {width} wide, that of others "
                f"{widths[modality]}. Give imports of one model."
            )
        rows += len(feature)
    identity = identity_of(opened.layout, made_with)
    parents = {"batch": source.stored_digest, "arrival": source.batch_digest}
    facts = {
        **dataclasses.asdict(identity),
        "digest": identity.digest,
        "parents": {**parents, "import": opened.digest},
        "rows": rows,
        "failed": {},
        "modalities": list(opened.modalities_of(name)),
    }
    artifacts.write_json(draft / f"{name}/{NAME}.json", facts)
    return rows
