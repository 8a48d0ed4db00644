"""The MLflow model registry: versions, the alias `champion`, and the stage that moves with it."""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock

from crosswatch import artifacts
from crosswatch.errors import UserError
from crosswatch.models.detector import FACTS
from crosswatch.tracking.history import History

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
LOCK_TIMEOUT_S = 60
StageName = Literal["Staging", "Production", "Archived"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegistryPlace:
    """Where a laptop keeps MLflow's database and artifacts, and beside them the history."""

    folder: Path
    tracking_uri: str | None = None  # another MLflow server; None: sqlite in the folder

    @property
    def uri(self) -> str:
        return self.tracking_uri or f"sqlite:///{self.folder.resolve() / 'mlflow.db'}"

    @property
    def artifacts_uri(self) -> str | None:
        """Where new experiments put their artifacts; None leaves it to the server."""
        return None if self.tracking_uri else (self.folder.resolve() / "mlartifacts").as_uri()

    @property
    def history(self) -> History:
        return History(folder=self.folder / "history")

    def predictions(
        self, evaluation_set_digest: str, labels_digest: str, checkpoint_digest: str
    ) -> Path:
        """Where a checkpoint's scores on one evaluation-set version and its labels are kept."""
        scored_on = artifacts.digest_of([evaluation_set_digest, labels_digest])
        return self.folder / "evaluations" / scored_on[:16] / f"{checkpoint_digest[:16]}.parquet"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One promotion at a time; MLflow has no compare-and-set for aliases."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".promotion.lock", timeout=LOCK_TIMEOUT_S):
            yield


class ModelRegistry:
    def __init__(self, place: RegistryPlace) -> None:
        self.place = place
        self.client = connect(place)

    def champion(self, name: str) -> "ModelVersion | None":
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_model_version_by_alias(name, CHAMPION)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise

    def version(self, name: str, version: str) -> "ModelVersion":
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_model_version(name, version)
        except MlflowException as error:
            raise UserError(f"{name} version {version}: {self._known(name)}") from error

    def checkpoint(self, version: "ModelVersion") -> Path:
        """Fetch a version's checkpoint; the folder that holds the detector."""
        import mlflow

        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=version.source))
        (facts,) = folder.glob(f"artifacts/*/{FACTS}")
        return facts.parent

    def tag_of(self, version: "ModelVersion", tag: str) -> str:
        """A tag that `register` writes.

        Raises:
            UserError: the version was made otherwise, or its registration was cut off.
        """
        if tag not in version.tags:
            raise UserError(
                f"{version.name} version {version.version} has no tag {tag!r}, so it was not "
                "registered to the end by Crosswatch. To use it all the same: --override REASON"
            )
        return str(version.tags[tag])

    def tag(self, name: str, version: str, tags: Mapping[str, Any]) -> None:
        for key, value in tags.items():
            self.client.set_model_version_tag(name, version, key, str(value))

    def move(
        self, name: str, version: str, to: StageName, *, action: str, **facts: Any
    ) -> dict[str, Any]:
        """Move stage and alias together and record it; the caller holds the lock."""
        champion = self.champion(name)
        was_champion = champion is not None and str(champion.version) == str(version)
        if to == "Production":
            self.client.set_registered_model_alias(name, CHAMPION, version)
        elif was_champion:
            self.client.delete_registered_model_alias(name, CHAMPION)
        with warnings.catch_warnings():
            # Stages are deprecated in MLflow and still what its users' tools look at.
            warnings.simplefilter("ignore", FutureWarning)
            self.client.transition_model_version_stage(
                name, version, to, archive_existing_versions=to == "Production"
            )
        entry = {
            "to": to,
            "champion": to == "Production",
            "replaced": None if champion is None or was_champion else str(champion.version),
            **facts,
        }
        self.place.history.append(name, action=action, version=str(version), **entry)
        return entry

    def _known(self, name: str) -> str:
        models = [model.name for model in self.client.search_registered_models()]
        if name not in models:
            listed = ", ".join(models) or "none"
            return f"there is no such model; registered here: {listed}"
        versions = self.client.search_model_versions(f"name = '{name}'")
        listed = ", ".join(sorted((str(v.version) for v in versions), key=int))
        return f"there is no such version; known: {listed}"


def connect(place: RegistryPlace) -> "MlflowClient":
    """A client of the place's MLflow; makes the database on first use.

    Raises:
        UserError: the folder cannot be written.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{place.folder}: cannot be written: {error.strerror}") from error
    import mlflow

    mlflow.set_tracking_uri(place.uri)
    mlflow.set_registry_uri(place.uri)
    return mlflow.MlflowClient()
