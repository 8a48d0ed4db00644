"""The models by the name that a recipe uses."""

from crosswatch.models.settings.fmformer import FmFormerConfig

ModelConfig = FmFormerConfig

MODELS = {"fmformer": FmFormerConfig}
