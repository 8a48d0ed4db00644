"""Features that tell when something happens, as extract would have written them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crosswatch import artifacts
from crosswatch.data.batches import Batch, open_set
from crosswatch.features.encoder import Identity
from crosswatch.features.schema import FEATURES, INDEX, Feature, modalities_in, write_feature

WIDTH = 12
MODALITIES = ("motion", "image", "mel", "hashed")


def telling(batch: Batch, *, every_s: float, seed: int, loud: float = 3.0) -> Feature:
    """A row each `every_s`; its first numbers are higher while an event lasts."""
    first, last = batch.span_s
    starts_s = np.arange(first, last - every_s, every_s)
    spans_s = np.stack([starts_s, starts_s + every_s], axis=1)
    middle_s = spans_s.mean(axis=1)
    values = np.random.default_rng(seed).normal(size=(len(starts_s), WIDTH)).astype(np.float32)
    for event in batch.events:
        values[(middle_s >= event.onset_s) & (middle_s < event.offset_s), :4] += loud
    return Feature(values=values, valid=np.ones(len(values), bool), spans_s=spans_s)


def make_features(
    batches: Path,
    out: Path,
    *,
    modalities: Sequence[str] = MODALITIES,
    version: str = "1",
    missing: Sequence[tuple[str, str]] = (),
    crops: int = 0,
    silent: bool = False,
) -> Path:
    """Write them for every batch of a set.

    `missing` names (batch, modality) that there are not. With `crops` each row of what is none of
    MODALITIES is so many; crop n is n higher, and crop 0 is not valid. `silent`: no row is valid.
    """
    batch_set = open_set(batches)
    parents = {"batches": batch_set.digest}
    with artifacts.create(out, kind=FEATURES, parents=parents) as draft:
        for seed, batch in enumerate(batch_set.batches):
            for number, name in enumerate(modalities):
                if (batch.id, name) in missing:
                    continue
                found = telling(batch, every_s=0.5 * (1 + number % 2), seed=10 * seed + number)
                found = found if name in MODALITIES else _cropped(found, crops)
                found = dataclasses.replace(found, valid=found.valid & (not silent))
                write_feature(draft.path / batch.id, name, found)
                identity = Identity(name=name, weights="", preprocessing={}, version=version)
                facts = {**dataclasses.asdict(identity), "digest": identity.digest}
                told = {**facts, "modalities": [name]}
                artifacts.write_json(draft / f"{batch.id}/{name}.json", told)
        index = {
            "batches": [batch.id for batch in batch_set.batches],
            "encoders": list(modalities),
            "modalities": modalities_in(draft.path),
        }
        artifacts.write_json(draft / INDEX, index)
    return out


def _cropped(found: Feature, crops: int) -> Feature:
    if not crops:
        return found
    values = np.stack([found.values + crop for crop in range(crops)], axis=1)
    valid = np.ones(values.shape[:2], bool)
    valid[:, 0] = False
    return Feature(values=values, valid=valid, spans_s=found.spans_s)
