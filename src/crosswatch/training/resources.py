"""What a model needs to be trained beside its settings."""

from collections.abc import Callable
from typing import Any

from crosswatch.models import ModelConfig


def resources_of(model: ModelConfig) -> Callable[[], dict[str, Any]]:
    """Called in each worker, for it is larger than what one wants to send."""
    return dict
