"""Features that were computed elsewhere, as a features artifact.

Beside what features/schema.py says it holds labels.json, a record a batch; no ENCODER.json, for
nobody knows what they were made with.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from crosswatch import artifacts
from crosswatch.artifacts import Draft
from crosswatch.data.adapters.arrival import RESERVED
from crosswatch.data.adapters.imported_sets import LABELS as LABELS
from crosswatch.features.encoder import Identity
from crosswatch.features.schema import INDEX
from crosswatch.features.versions import version_of

BESIDE = (*RESERVED, INDEX, LABELS)  # names that no batch can have
UNKNOWN = "unknown"  # which weights; empty would say that none were needed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Of a modality's arrays: the numbers in a vector, and the array's axes."""

    width: int
    axes: int


def write_index(
    draft: Draft, batches: Sequence[str], shapes: Mapping[str, Shape], *, layout: str, module: str
) -> None:
    """features.json; `module` is the name of the one that read the layout."""
    modalities = {}
    for name, shape in shapes.items():
        identity = Identity(
            name=name,
            weights=UNKNOWN,
            preprocessing={"imported": layout},
            version=version_of(module, __name__),
        )
        facts = {**dataclasses.asdict(identity), "digest": identity.digest}
        modalities[name] = {**facts, **dataclasses.asdict(shape)}
    index = {"batches": list(batches), "encoders": list(modalities), "modalities": modalities}
    artifacts.write_json(draft / INDEX, index)


def digests_of(**files: Path | None) -> dict[str, str]:
    """SHA-256 of the files that were read, by their role: the artifact's parents."""
    return {role: artifacts.sha256_of(path) for role, path in files.items() if path is not None}
