"""Every section of the configuration on one page, and how a recipe becomes one."""

import dataclasses
import importlib.resources
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crosswatch import config
from crosswatch.annotation.refine import RefineConfig
from crosswatch.data.clips import ClipsConfig
from crosswatch.data.folds import CrossvalidateConfig
from crosswatch.data.ingestion import IngestConfig
from crosswatch.data.ledger.ledger import LedgerConfig
from crosswatch.data.splits import SplitConfig
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.data.windows import WindowConfig
from crosswatch.errors import UserError
from crosswatch.evaluation.settings import EvaluateConfig
from crosswatch.features.settings import CaptionConfig, FeatureConfig
from crosswatch.models import FeatureModelConfig, ModelConfig
from crosswatch.models.settings.fmformer import FmFormerConfig
from crosswatch.models.settings.fmformer_fused import FusedConfig
from crosswatch.records import InputShape
from crosswatch.synthetic.plant import SimulateConfig
from crosswatch.tracking.lineage import LineageConfig
from crosswatch.tracking.promotion import RegisterConfig
from crosswatch.training.settings import TrainConfig

DEFAULT_RECIPE = "fmformer-furnace"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    simulate: SimulateConfig = dataclasses.field(default_factory=SimulateConfig)
    ingest: IngestConfig = dataclasses.field(default_factory=IngestConfig)
    sync: SyncConfig = dataclasses.field(default_factory=SyncConfig)
    windows: WindowConfig = dataclasses.field(default_factory=WindowConfig)
    clips: ClipsConfig = dataclasses.field(default_factory=ClipsConfig)
    split: SplitConfig = dataclasses.field(default_factory=SplitConfig)
    refine: RefineConfig = dataclasses.field(default_factory=RefineConfig)
    caption: CaptionConfig = dataclasses.field(default_factory=CaptionConfig)
    features: FeatureConfig = dataclasses.field(default_factory=FeatureConfig)
    model: ModelConfig = dataclasses.field(default_factory=FmFormerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = dataclasses.field(default_factory=EvaluateConfig)
    register: RegisterConfig = dataclasses.field(default_factory=RegisterConfig)
    lineage: LineageConfig = dataclasses.field(default_factory=LineageConfig)
    transfer: TransferConfig = dataclasses.field(default_factory=TransferConfig)
    ledger: LedgerConfig = dataclasses.field(default_factory=LedgerConfig)
    crossvalidate: CrossvalidateConfig = dataclasses.field(default_factory=CrossvalidateConfig)

    def __post_init__(self) -> None:
        """Refuse now what would fail after hours."""
        if isinstance(self.model, FusedConfig):
            raise UserError("model.name is fmformer_fused, which is made by crosswatch fuse")
        if isinstance(self.model, FmFormerConfig):
            self._refuse_windows(self.model)
        else:
            self._refuse_missing_features(self.model)
        for key, metric in (
            ("train.metric", self.train.metric),
            ("register.primary", self.register.primary),
        ):
            self._refuse_undefined(key, metric)

    def _refuse_windows(self, model: FmFormerConfig) -> None:
        model.refuse_shape(
            InputShape(
                frames=self.windows.frames,
                frame_px=self.ingest.frame_px,
                signal_samples=1 if self.windows.signal_s else 0,
                classes=len(self.ingest.classes),
            )
        )
        if not model.class_head:
            raise UserError("model.class_head is false; selection and the gate need it")

    def _refuse_missing_features(self, model: FeatureModelConfig) -> None:
        """An imported set brings modalities of its own names."""
        encoders = self.features.encoders
        for stream in model.streams if "imported" not in encoders else ():
            for name in stream.modalities:
                if name.removesuffix("_tokens") not in encoders:
                    raise UserError(
                        f"model.{stream.name} is {'+'.join(stream.modalities)}, and "
                        f"features.encoders is {', '.join(encoders) or 'empty'}: add "
                        f"{name.removesuffix('_tokens')} to features.encoders, or set "
                        f"model.{stream.name} to what is there."
                    )

    def _refuse_undefined(self, key: str, metric: str) -> None:
        known, classes = {"accuracy", "balanced_accuracy"}, len(self.ingest.classes)
        # Validation takes the first class for normal whatever evaluate.has_normal says.
        has_normal = key == "train.metric" or self.evaluate.has_normal
        known |= {"f1"} if classes == 2 and has_normal else {"macro_f1"}
        known |= {"auc", "ap"} if has_normal else set()
        if self.model.task == "moments":
            known |= {"auc2", "ap2"}
        if isinstance(self.model, FmFormerConfig) and self.model.pixel_head:
            known |= {"miou"} if key == "register.primary" else set()
            known -= {"miou"} if self.evaluate.pool == "segment" else set()
        if metric not in known:
            none = "" if has_normal else ", none of them normal (evaluate.has_normal=false),"
            raise UserError(
                f"{key} is {metric}, which is not defined for {classes} classes{none} and these "
                f"heads; allowed: {', '.join(sorted(known))}"
            )


def recipes() -> tuple[str, ...]:
    folder = importlib.resources.files("crosswatch.recipes")
    return tuple(sorted(Path(e.name).stem for e in folder.iterdir() if e.name.endswith(".yaml")))


def recipe_values(name: str) -> dict[str, Any]:
    """What a packaged recipe says.

    Raises:
        UserError: there is no recipe of that name.
    """
    return config.parse_yaml(_recipe_text(name), where=f"recipe {name}")


def recipe_says(name: str) -> tuple[str, str]:
    """What a packaged recipe is, in a sentence, and what else its first comment says.

    Raises:
        UserError: there is no recipe of that name.
    """
    lines = itertools.takewhile(lambda line: line[:1] == "#", _recipe_text(name).splitlines())
    said = " ".join(line.removeprefix("#").strip() for line in lines)
    first, _, rest = said.partition(". ")
    return f"{first.removesuffix('.')}.", rest


def _recipe_text(name: str) -> str:
    if name not in recipes():
        raise UserError(f"--recipe {name}: unknown; recipes: {', '.join(recipes())}")
    folder = importlib.resources.files("crosswatch.recipes")
    return folder.joinpath(f"{name}.yaml").read_text(encoding="utf-8")


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
