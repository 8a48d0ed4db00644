"""One MLflow run: parameters, curves, artifacts and the model."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from crosswatch.tracking.registry import RegistryPlace, connect

PARAMETER_LIMIT = 100  # values a batch of MLflow's log_batch takes


class Tracker:
    """The run that is open now."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    def parameters(self, config: Mapping[str, Any]) -> None:
        import mlflow

        flat = list(_flatten(config))
        for at in range(0, len(flat), PARAMETER_LIMIT):
            mlflow.log_params(dict(flat[at : at + PARAMETER_LIMIT]))

    def metrics(self, metrics: Mapping[str, float | None], *, step: int | None = None) -> None:
        """Log what is defined."""
        import mlflow

        finite = {
            key: value
            for key, value in metrics.items()
            if value is not None and math.isfinite(value)
        }
        mlflow.log_metrics(finite, step=step)

    def folder(self, path: Path, name: str) -> None:
        import mlflow

        mlflow.log_artifacts(str(path), artifact_path=name)

    def model(self, checkpoint: Path, *, name: str, requirements: Sequence[str]) -> str:
        """Log a checkpoint as a pyfunc model and register it; the new version."""
        import mlflow

        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("scoring_model.py")),
            artifacts={"checkpoint": str(checkpoint)},
            pip_requirements=list(requirements),
            registered_model_name=name,
        )
        return str(info.registered_model_version)


@contextlib.contextmanager
def tracked_run(place: RegistryPlace, *, experiment: str, name: str) -> Iterator[Tracker]:
    """Open a run in an experiment, which is made where it does not exist yet."""
    client = connect(place)
    import mlflow

    found = client.get_experiment_by_name(experiment)
    if found is None:
        client.create_experiment(experiment, artifact_location=place.artifacts_uri)
    mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name=name) as run:
        yield Tracker(run.info.run_id)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
