"""What a model needs to be trained beside its settings."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from crosswatch.features.settings import ClipConfig
from crosswatch.models import ModelConfig
from crosswatch.models.settings.vad import ClipTextConfig, VadConfig

SECTION = "model.text"
INSTEAD = "model.class_text=learned with 'model.prompts=[]'"


def resources_of(model: ModelConfig) -> Callable[[], dict[str, Any]]:
    """Called in each worker, for it is larger than what one wants to send.

    Raises:
        UserError: weights are missing; now, before workers are started.
    """
    if not isinstance(model, VadConfig) or model.class_text != "clip":
        return dict
    from crosswatch.features.pictures.clip_weights import find_clip
    from crosswatch.features.weights.finding import absolute

    found = dataclasses.replace(model.text, weights=absolute(model.text.weights))
    find_clip(clip_of(found), instead=INSTEAD, section=SECTION)
    return functools.partial(_text_tower, found)


def _text_tower(config: ClipTextConfig) -> dict[str, Any]:
    from crosswatch.features.text.clip_text import load_clip_text

    return {"text_tower": load_clip_text(clip_of(config), instead=INSTEAD, section=SECTION)}


def clip_of(config: ClipTextConfig) -> ClipConfig:
    """The settings that find CLIP's weights."""
    return ClipConfig(model=config.model, weights=config.weights)
