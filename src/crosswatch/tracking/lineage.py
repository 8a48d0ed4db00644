"""Where a model version comes from, as tags on it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from crosswatch import artifacts

SELECTED_BY = "selected_by"  # the tag of a version that says by what its epoch was picked


@dataclasses.dataclass(frozen=True, kw_only=True)
class LineageConfig:
    """What only the caller knows; the pipeline fills it in."""

    kfp_run_id: str = ""
    data_revision: str = ""  # NAME@DIGEST of the deliveries' manifest
    image_digest: str = ""


def lineage_tags(
    lineage: LineageConfig,
    *,
    checkpoint: artifacts.Manifest,
    evaluation: artifacts.Manifest,
    arrivals: Mapping[str, str],
    evaluation_set: Mapping[str, Any],
    selected_by: str,
) -> dict[str, str]:
    """Tags that lead from a version back to the hashes of the raw files, and say by what its epoch
    was picked."""
    tags = {
        "kfp_run_id": lineage.kfp_run_id,
        "data_revision": lineage.data_revision,
        "image_digest": lineage.image_digest,
        "code_version": checkpoint.code_version,
        "checkpoint_digest": checkpoint.digest,
        "batch_set_digest": checkpoint.parents["batches"],
        "labels_digest": checkpoint.parents["labels"],
        "features_digest": checkpoint.parents.get("features", ""),
        "text_tower_digest": checkpoint.parents.get("text_tower", ""),
        "evaluation_digest": evaluation.digest,
        "evaluation_set_version": str(evaluation_set["version"]),
        "evaluation_set_digest": str(evaluation_set["digest"]),
        SELECTED_BY: selected_by,
    }
    tags |= {f"arrival.{batch}": digest for batch, digest in arrivals.items()}
    return {key: value for key, value in tags.items() if value}
