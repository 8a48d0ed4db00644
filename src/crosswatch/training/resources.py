"""What a model needs to be trained beside its settings."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

from crosswatch.features.settings import ClipConfig
from crosswatch.models import ModelConfig
from crosswatch.models.settings.vad import ClipTextConfig, VadConfig

SECTION = "model.text"
TEXT_TOWER = "text_tower"
INSTEAD = "model.class_text=learned --set 'model.prompts=[]'"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundResources:
    """
    Attributes:
        digests: of the weights that are found, by their role: parents of what is trained.
        load: called in each worker, for it is larger than what one wants to send.
    """

    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    load: Callable[[], dict[str, Any]] = dict


def resources_of(model: ModelConfig) -> FoundResources:
    """
    Raises:
        UserError: weights are missing; now, before workers are started.
    """
    if not isinstance(model, VadConfig) or model.class_text != "clip":
        return FoundResources()
    from crosswatch.features.pictures.clip_weights import find_clip
    from crosswatch.features.weights.finding import absolute

    found = dataclasses.replace(model.text, weights=absolute(model.text.weights))
    weights = find_clip(clip_of(found), instead=INSTEAD, section=SECTION)
    return FoundResources(
        digests={TEXT_TOWER: weights.sha256}, load=functools.partial(_text_tower, found)
    )


def _text_tower(config: ClipTextConfig) -> dict[str, Any]:
    from crosswatch.features.text.clip_text import load_clip_text

    return {TEXT_TOWER: load_clip_text(clip_of(config), instead=INSTEAD, section=SECTION)}


def clip_of(config: ClipTextConfig) -> ClipConfig:
    """The settings that find CLIP's weights."""
    return ClipConfig(model=config.model, weights=config.weights)
