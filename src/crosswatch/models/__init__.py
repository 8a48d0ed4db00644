"""The models by the name that a recipe uses."""

from crosswatch.models.settings.caam import CaamConfig
from crosswatch.models.settings.cmaf import CmafConfig
from crosswatch.models.settings.cross_modal_detector import CrossModalDetectorConfig
from crosswatch.models.settings.fmformer import FmFormerConfig
from crosswatch.models.settings.vad import VadConfig

FeatureModelConfig = CmafConfig | CrossModalDetectorConfig | CaamConfig | VadConfig
"""Of models that look at features, not at frames and samples."""

ModelConfig = FmFormerConfig | CmafConfig | CrossModalDetectorConfig | CaamConfig | VadConfig

MODELS = {
    "fmformer": FmFormerConfig,
    "cmaf": CmafConfig,
    "cross_modal_detector": CrossModalDetectorConfig,
    "caam": CaamConfig,
    "clipfusion_vad": VadConfig,
}
