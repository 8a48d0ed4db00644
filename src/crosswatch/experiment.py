"""Every section of the configuration on one page, and how a recipe becomes one."""

import dataclasses
import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crosswatch import config
from crosswatch.annotation.refine import RefineConfig
from crosswatch.data.ingestion import IngestConfig
from crosswatch.data.splits import SplitConfig
from crosswatch.data.sync import SyncConfig
from crosswatch.data.windows import WindowConfig
from crosswatch.errors import UserError
from crosswatch.evaluation.measure import EvaluateConfig
from crosswatch.models import ModelConfig
from crosswatch.synthetic.plant import SimulateConfig
from crosswatch.tracking.lineage import LineageConfig
from crosswatch.tracking.promotion import RegisterConfig
from crosswatch.training.learner import TrainConfig

DEFAULT_RECIPE = "fmformer-furnace"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    simulate: SimulateConfig = dataclasses.field(default_factory=SimulateConfig)
    ingest: IngestConfig = dataclasses.field(default_factory=IngestConfig)
    sync: SyncConfig = dataclasses.field(default_factory=SyncConfig)
    windows: WindowConfig = dataclasses.field(default_factory=WindowConfig)
    split: SplitConfig = dataclasses.field(default_factory=SplitConfig)
    refine: RefineConfig = dataclasses.field(default_factory=RefineConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = dataclasses.field(default_factory=EvaluateConfig)
    register: RegisterConfig = dataclasses.field(default_factory=RegisterConfig)
    lineage: LineageConfig = dataclasses.field(default_factory=LineageConfig)


def recipes() -> tuple[str, ...]:
    folder = importlib.resources.files("crosswatch.recipes")
    return tuple(sorted(Path(e.name).stem for e in folder.iterdir() if e.name.endswith(".yaml")))


def recipe_values(name: str) -> dict[str, Any]:
    """What a packaged recipe says.

    Raises:
        UserError: there is no recipe of that name.
    """
    if name not in recipes():
        raise UserError(f"--recipe {name}: unknown; recipes: {', '.join(recipes())}")
    text = importlib.resources.files("crosswatch.recipes").joinpath(f"{name}.yaml").read_text()
    return config.parse_yaml(text, where=f"recipe {name}")


def over(config_file: Path | None, assignments: Sequence[str]) -> dict[str, Any]:
    """What --config FILE and --set a.b=c put over a recipe."""
    values = config.read_yaml(config_file) if config_file is not None else {}
    return config.override(values, assignments)


def resolve(recipe: str, overrides: Mapping[str, Any]) -> Experiment:
    """Defaults < recipe < overrides, checked.

    Raises:
        UserError: unknown recipe or key, wrong type, or values that contradict each other.
    """
    values = config.merge(recipe_values(recipe), overrides)
    return config.build(Experiment, values, where="configuration")
