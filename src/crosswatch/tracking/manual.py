"""Promotion and rollback by hand: the gate, the lock and the history of the automatic ones."""

import json
from typing import TYPE_CHECKING, Any

from crosswatch import config
from crosswatch.errors import UserError
from crosswatch.evaluation.predictions import Predictions
from crosswatch.models.detector import selected_on_evaluation
from crosswatch.tracking.history import ROLLBACK
from crosswatch.tracking.lineage import SELECTED_BY
from crosswatch.tracking.promotion import (
    GATE,
    SELECTED_ON_EVALUATION,
    Gate,
    Verdict,
    unjudged,
    weigh,
)
from crosswatch.tracking.registry import ModelRegistry, RegistryPlace, StageName

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


def promote(
    place: RegistryPlace, name: str, version: str, to: StageName, *, override: str | None
) -> dict[str, Any]:
    """Move a version to a stage; Production only through the gate, or with a reason to override.

    Raises:
        UserError: no such version, or the gate refuses and nobody overrode it.
    """
    models = ModelRegistry(place)
    with place.locked():
        candidate, champion = models.version(name, version), models.champion(name)
        facts: dict[str, Any] = {"override": override} if override else {}
        if to == "Production" and (
            champion is None or str(champion.version) != str(candidate.version)
        ):
            verdict = _gate(models, candidate, champion) if not override else None
            if verdict is not None and not verdict.promote:
                raise UserError(
                    f"{name} version {version} is not promoted: {'; '.join(verdict.reasons)}. "
                    "To promote it all the same: --override REASON"
                )
            facts |= {"verdict": verdict.plain()} if verdict else {}
        return models.move(name, version, to, action="promote by hand", **facts)


def rollback(place: RegistryPlace, name: str) -> dict[str, Any]:
    """Make the champion before this one champion again, and archive this one.

    Raises:
        UserError: nothing stood before the present champion.
    """
    models = ModelRegistry(place)
    with place.locked():
        champion = models.champion(name)
        stack = place.history.champions(name)
        if champion is not None and stack and stack[-1] == str(champion.version):
            stack.pop()
        if not stack:
            present = "" if champion is None else f" before version {champion.version}"
            raise UserError(f"{name}: no champion stood{present}")
        entry = models.move(name, stack[-1], "Production", action=ROLLBACK)
        return {**entry, "version": stack[-1]}


def _gate(
    models: ModelRegistry, candidate: "ModelVersion", champion: "ModelVersion | None"
) -> Verdict:
    tag_of = models.tag_of
    gate = config.build(Gate, json.loads(tag_of(candidate, GATE)), where=f"tag {GATE}")
    number = tag_of(candidate, "evaluation_set_version")
    mine, theirs = (
        None if version is None else _scores(models, candidate, version)
        for version in (candidate, champion)
    )
    if mine is None:
        raise UserError(f"the scores of {candidate.name} version {candidate.version} are lost")
    if selected_on_evaluation(candidate.tags.get(SELECTED_BY, "")):
        return unjudged(mine, gate, number, SELECTED_ON_EVALUATION)
    if champion is not None and theirs is None:
        raise UserError(
            f"the champion (version {champion.version}) has not been scored on evaluation set "
            f"{number}, on which version {candidate.version} was. Retrain on the present batches "
            "to compare like with like, or promote with --override REASON."
        )
    return weigh(mine, theirs, gate, number)


def _scores(
    models: ModelRegistry, candidate: "ModelVersion", version: "ModelVersion"
) -> Predictions | None:
    """What is kept of a version's scores on the candidate's evaluation set and labels."""
    path = models.place.predictions(
        models.tag_of(candidate, "evaluation_set_digest"),
        models.tag_of(candidate, "labels_digest"),
        models.tag_of(version, "checkpoint_digest"),
    )
    return Predictions.load(path) if path.exists() else None
