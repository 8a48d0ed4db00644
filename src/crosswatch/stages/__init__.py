"""The stages: functions of directories and sections of the configuration.

A stage's signature is its command line: a `Path` is a flag, any other parameter is the section of
that name. This table is the one place that lists them; the command line, dvc.yaml, components and
pipelines are held to it by a test.
"""

import dataclasses
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crosswatch import config, progress
from crosswatch.data.store.place import Bucket, Place
from crosswatch.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """Where a stage is used; its function bears its name, in the module of its name."""

    summary: str
    example: str
    in_retrain: bool = True
    in_dvc: bool = True


STAGES: dict[str, Stage] = {
    "simulate": Stage(
        summary="Write batches of a simulated furnace, as a plant would deliver them.",
        example="crosswatch simulate --out arrivals --set simulate.batches=1",
        in_retrain=False,
    ),
    "ingest": Stage(
        summary="Verify, decode and synchronise deliveries into a batch set with splits.",
        example="crosswatch ingest --arrivals arrivals --out batches",
    ),
    "refine": Stage(
        summary="Turn an expert's sparse notes into a box, a class and a mask.",
        example="crosswatch refine --batches batches --out labels",
    ),
    "caption": Stage(
        summary="Describe pictures in sentences: BLIP, a table, or templates without weights.",
        example="crosswatch caption --batches batches --out captions --set caption.source=template",
    ),
    "extract": Stage(
        summary="Encode pictures, sound and captions into features, each row with its time.",
        example="crosswatch extract --batches batches --captions captions --out features "
        "--set 'features.encoders=[motion, mel, hashed]'",
    ),
    "train": Stage(
        summary="Train a detector under Ray Train, with checkpoints.",
        example="crosswatch train --batches batches --labels labels --out checkpoint",
    ),
    "evaluate": Stage(
        summary="Score a checkpoint on the evaluation set, with intervals and plots.",
        example="crosswatch evaluate --checkpoint checkpoint --batches batches --labels labels "
        "--out evaluation",
    ),
    "register": Stage(
        summary="Register a checkpoint in MLflow and promote it if it beats the champion.",
        example="crosswatch register --checkpoint checkpoint --evaluation evaluation "
        "--batches batches --labels labels --registry workspace --out registration",
        in_dvc=False,
    ),
}


def function_of(name: str) -> Callable[..., None]:
    module = importlib.import_module(f"crosswatch.stages.{name}")
    return typing.cast(Callable[..., None], getattr(module, name))


def paths_of(name: str) -> dict[str, bool]:
    """A stage's directories, and whether each may be left out."""
    parameters = inspect.signature(function_of(name)).parameters
    return {role: parameters[role].default is None for role in _places_of(name)}


def sections_of(name: str) -> dict[str, type]:
    """The sections of the configuration that a stage reads."""
    hints = typing.get_type_hints(function_of(name))
    return {
        parameter: hint
        for parameter, hint in hints.items()
        if parameter != "return" and not _is_path(hint)
    }


def run(name: str, *, values: Mapping[str, Any], paths: Mapping[str, Place | None]) -> None:
    """Call a stage, and tell of its beginning and its end."""
    with progress.stage(name):
        call(name, values=values, paths=paths)


def call(name: str, *, values: Mapping[str, Any], paths: Mapping[str, Place | None]) -> None:
    """Build a stage's sections from plain values and call it.

    Raises:
        UserError: a value is wrong, or a bucket stands where the stage needs a folder.
    """
    for role, hint in _places_of(name).items():
        if isinstance(paths.get(role), Bucket) and Bucket not in typing.get_args(hint):
            raise UserError(f"--{role} {paths[role]}: is a bucket; a folder is needed here")
    sections: dict[str, Any] = {
        section: config.build(cls, values.get(section, {}), where=section)
        for section, cls in sections_of(name).items()
    }
    function_of(name)(**paths, **sections)


def _places_of(name: str) -> dict[str, Any]:
    hints = typing.get_type_hints(function_of(name))
    return {role: hint for role, hint in hints.items() if role != "return" and _is_path(hint)}


def _is_path(hint: Any) -> bool:
    if hint is Path:
        return True
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return is_union and Path in typing.get_args(hint)
