"""The encoders by the name that features.encoders uses."""

import dataclasses
from collections.abc import Callable

from crosswatch.features.encoder import Encoder
from crosswatch.features.settings import EncoderName, FeatureConfig


@dataclasses.dataclass(frozen=True)
class EncoderKind:
    build: Callable[[FeatureConfig], Encoder]
    reads_captions: bool = False


def _clip(features: FeatureConfig) -> Encoder:
    from crosswatch.features.clip import ClipEncoder

    return ClipEncoder(features.clip, features.compute.precision)


def _image(features: FeatureConfig) -> Encoder:
    from crosswatch.features.image import ImageEncoder

    return ImageEncoder(features.image, features.clip, features.compute.precision)


def _motion(features: FeatureConfig) -> Encoder:
    from crosswatch.features.motion import MotionEncoder

    return MotionEncoder(features.motion)


def _audio(features: FeatureConfig) -> Encoder:
    from crosswatch.features.audio import AudioEncoder

    return AudioEncoder(features.audio, features.compute.precision)


def _mel(features: FeatureConfig) -> Encoder:
    from crosswatch.features.mel import MelEncoder

    return MelEncoder(features.mel)


def _distilbert(features: FeatureConfig) -> Encoder:
    from crosswatch.features.distilbert import DistilbertEncoder

    return DistilbertEncoder(features.distilbert, features.compute.precision)


def _hashed(features: FeatureConfig) -> Encoder:
    from crosswatch.features.hashed import HashedEncoder

    return HashedEncoder(features.hashed)


ENCODERS: dict[EncoderName, EncoderKind] = {
    "clip": EncoderKind(_clip),
    "image": EncoderKind(_image),
    "motion": EncoderKind(_motion),
    "audio": EncoderKind(_audio),
    "mel": EncoderKind(_mel),
    "distilbert": EncoderKind(_distilbert, reads_captions=True),
    "hashed": EncoderKind(_hashed, reads_captions=True),
}
