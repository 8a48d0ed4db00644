"""The models by the name that a recipe uses."""

from crosswatch.models.settings.caam import CaamConfig
from crosswatch.models.settings.cmaf import CmafConfig
from crosswatch.models.settings.cross_modal_detector import CrossModalDetectorConfig
from crosswatch.models.settings.fmformer import FmFormerConfig
from crosswatch.models.settings.fmformer_fused import FusedConfig
from crosswatch.models.settings.vad import VadConfig

WindowModelConfig = FmFormerConfig | FusedConfig
"""Of models that look at frames and samples."""

FeatureModelConfig = CmafConfig | CrossModalDetectorConfig | CaamConfig | VadConfig
"""Of models that look at features."""

ModelConfig = (
    FmFormerConfig | CmafConfig | CrossModalDetectorConfig | CaamConfig | VadConfig | FusedConfig
)

MODELS = {
    "fmformer": FmFormerConfig,
    "cmaf": CmafConfig,
    "cross_modal_detector": CrossModalDetectorConfig,
    "caam": CaamConfig,
    "clipfusion_vad": VadConfig,
    "fmformer_fused": FusedConfig,
}
