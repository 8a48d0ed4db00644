"""Which kind of examples a model takes, and where they come from."""

import dataclasses
from pathlib import Path

from crosswatch import artifacts
from crosswatch.annotation.labels import BatchLabels, open_labelled, open_labels
from crosswatch.data.batches import BatchSet, open_set
from crosswatch.errors import UserError
from crosswatch.examples.clips import ClipExamples
from crosswatch.examples.streams import CLIP
from crosswatch.examples.windows import WindowExamples
from crosswatch.features.schema import FEATURES, FeatureSet, open_features
from crosswatch.models import FeatureModelConfig, WindowModelConfig
from crosswatch.models.detector import DetectorFacts
from crosswatch.models.settings.common import Stream
from crosswatch.records import Block


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sources:
    """What a model may look at."""

    batch_set: BatchSet
    labels: tuple[BatchLabels, ...]
    labels_digest: str
    features: FeatureSet | None

    @classmethod
    def open(
        cls, batches: Path, labels: Path, features: Path | None, *, verify: bool = True
    ) -> "Sources":
        """
        Raises:
            UserError: one of them is no such artifact, is damaged, or was made of other batches.
        """
        batch_set = open_set(batches, verify=verify)
        labelled = open_labelled(labels, batch_set_digest=batch_set.digest, verify=verify)
        if verify:
            _refuse_features_of_other_batches(features, batch_set)
        return cls(
            batch_set=batch_set,
            labels=tuple(open_labels(labels, batch) for batch in batch_set.batches),
            labels_digest=labelled.digest,
            features=None if features is None else open_features(features, verify=verify),
        )

    def digests(self) -> dict[str, str]:
        """Of what was opened, by its role: the parents of what is made of it."""
        found = {"batches": self.batch_set.digest, "labels": self.labels_digest}
        return found if self.features is None else {**found, "features": self.features.digest}

    def needed_features(self) -> FeatureSet:
        """
        Raises:
            UserError: none were given.
        """
        if self.features is None:
            raise UserError("--features is missing, and the model looks at nothing else.")
        return self.features


def open_examples(
    sources: Sources, facts: DetectorFacts, block: Block
) -> WindowExamples | ClipExamples:
    """The windows or clips of one block, as the model takes them.

    Raises:
        UserError: the batches or features are not those that the model was made for.
    """
    if facts.model.task == "instants":
        return WindowExamples.open(sources.batch_set, sources.labels, facts, block)
    features = sources.needed_features()
    refuse_other_features(features, facts)
    return ClipExamples.open(sources.batch_set, features, facts, block)


def encoders_of(
    features: FeatureSet, model: FeatureModelConfig
) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    """Digests of what made each stream, and how wide each of the features is that it joins.

    Raises:
        UserError: a stream is not among the features, or cannot be made of them.
    """
    digests, parts = [], []
    for stream in model.streams:
        told = [features.modalities[name] for name in _present(features, stream)]
        _refuse_several_a_row(features, stream, moments=model.task == "moments")
        digests.append("+".join(each["digest"] for each in told))
        parts.append(tuple(int(each["width"]) for each in told))
    return tuple(digests), tuple(parts)


def _refuse_several_a_row(features: FeatureSet, stream: Stream, *, moments: bool) -> None:
    """Rows of several vectors can neither be joined with others, nor told apart in time."""
    several = [name for name in stream.modalities if features.modalities[name]["axes"] > 2]
    if several and len(stream.modalities) > 1:
        raise UserError(
            f"the model's stream {stream.name!r} joins {'+'.join(stream.modalities)}, and a row of "
            f"{several[0]} is several vectors (crops or words); allowed are features of one vector "
            f"a row. Name {several[0]} alone, or leave it out."
        )
    if moments and several and several != [CLIP]:
        raise UserError(
            f"the model's stream {stream.name!r} is {several[0]}, of which a row is several "
            "vectors, and the model tells moments by rows; allowed are features of one vector a "
            "row, such as motion or clip."
        )


def _present(features: FeatureSet, stream: Stream) -> tuple[str, ...]:
    for name in stream.modalities:
        if name not in features.modalities:
            raise UserError(
                f"{features.folder}: holds no {name!r}, which the model's stream {stream.name!r} "
                f"is made of; it holds {', '.join(features.modalities) or 'nothing'}. Add its "
                "encoder to features.encoders, see that the batches give it something to look at, "
                "and run extract."
            )
    return stream.modalities


def refuse_other_features(features: FeatureSet, facts: DetectorFacts) -> None:
    """Raise UserError for features that another encoder made."""
    assert not isinstance(facts.model, WindowModelConfig), "it looks at no features"
    digests, _ = encoders_of(features, facts.model)
    for stream, found, known in zip(facts.streams, digests, facts.encoders, strict=True):
        if found != known:
            raise UserError(
                f"{features.folder}: {'+'.join(stream.modalities)} is of another encoder (weights, "
                f"settings or version) than the model was trained with, {found[:12]} instead of "
                f"{known[:12]}. Run extract with the model's settings, or train again."
            )


def _refuse_features_of_other_batches(features: Path | None, batch_set: BatchSet) -> None:
    if features is None:
        return
    manifest = artifacts.open_artifact(features, kind=FEATURES, verify=False)
    if manifest.parents.get("batches") != batch_set.digest:
        raise UserError(f"{features}: was made from another batch set. Run extract on this one.")
