"""The encoders by the name that features.encoders uses."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

from crosswatch.features.encoder import Encoder
from crosswatch.features.settings import (
    AudioConfig,
    ClipConfig,
    DistilbertConfig,
    EncoderName,
    FeatureConfig,
)
from crosswatch.features.weights.finding import absolute


@dataclasses.dataclass(frozen=True)
class EncoderKind:
    build: Callable[[FeatureConfig], Encoder]
    reads_captions: bool = False


Weighty = TypeVar("Weighty", ClipConfig, AudioConfig, DistilbertConfig)


def _located(config: Weighty) -> Weighty:
    return dataclasses.replace(config, weights=absolute(config.weights))


def _clip(features: FeatureConfig) -> Encoder:
    from crosswatch.features.pictures.clip import ClipEncoder

    return ClipEncoder(_located(features.clip), features.compute.precision)


def _image(features: FeatureConfig) -> Encoder:
    from crosswatch.features.pictures.image import ImageEncoder

    return ImageEncoder(features.image, _located(features.clip), features.compute.precision)


def _motion(features: FeatureConfig) -> Encoder:
    from crosswatch.features.pictures.motion import MotionEncoder

    return MotionEncoder(features.motion)


def _audio(features: FeatureConfig) -> Encoder:
    from crosswatch.features.sound.audio import AudioEncoder

    return AudioEncoder(_located(features.audio), features.compute.precision)


def _mel(features: FeatureConfig) -> Encoder:
    from crosswatch.features.sound.mel import MelEncoder

    return MelEncoder(features.mel)


def _distilbert(features: FeatureConfig) -> Encoder:
    from crosswatch.features.text.distilbert import DistilbertEncoder

    return DistilbertEncoder(_located(features.distilbert), features.compute.precision)


def _hashed(features: FeatureConfig) -> Encoder:
    from crosswatch.features.text.hashed import HashedEncoder

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
