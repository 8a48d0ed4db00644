"""The encoders by the name that features.encoders uses; `imported` computes nothing and is none."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar

from crosswatch.features.encoder import Encoder
from crosswatch.features.settings import (
    AudioConfig,
    ClipConfig,
    DistilbertConfig,
    EncoderName,
    FeatureConfig,
    Word2vecConfig,
)
from crosswatch.features.source import Source
from crosswatch.features.weights.finding import absolute


@dataclasses.dataclass(frozen=True)
class EncoderKind:
    build: Callable[[FeatureConfig, Sequence[Source]], Encoder]  # for the batches that are given
    reads_captions: bool = False


Weighty = TypeVar("Weighty", ClipConfig, AudioConfig, DistilbertConfig, Word2vecConfig)


def _located(config: Weighty) -> Weighty:
    return dataclasses.replace(config, weights=absolute(config.weights))


def _clip(features: FeatureConfig, _: Sequence[Source]) -> Encoder:
    from crosswatch.features.pictures.clip import ClipEncoder

    return ClipEncoder(_located(features.clip), features.compute.precision)


def _image(features: FeatureConfig, _: Sequence[Source]) -> Encoder:
    from crosswatch.features.pictures.image import ImageEncoder

    return ImageEncoder(features.image, _located(features.clip), features.compute.precision)


def _motion(features: FeatureConfig, _: Sequence[Source]) -> Encoder:
    from crosswatch.features.pictures.motion import MotionEncoder

    return MotionEncoder(features.motion)


def _audio(features: FeatureConfig, _: Sequence[Source]) -> Encoder:
    from crosswatch.features.sound.audio import AudioEncoder

    return AudioEncoder(_located(features.audio), features.compute.precision)


def _mel(features: FeatureConfig, _: Sequence[Source]) -> Encoder:
    from crosswatch.features.sound.mel import MelEncoder

    return MelEncoder(features.mel)


def _distilbert(features: FeatureConfig, _: Sequence[Source]) -> Encoder:
    from crosswatch.features.text.distilbert import DistilbertEncoder

    return DistilbertEncoder(_located(features.distilbert), features.compute.precision)


def _hashed(features: FeatureConfig, _: Sequence[Source]) -> Encoder:
    from crosswatch.features.text.hashed import HashedEncoder

    return HashedEncoder(features.hashed)


def _word2vec(features: FeatureConfig, sources: Sequence[Source]) -> Encoder:
    from crosswatch.features.text.word2vec import Word2vecEncoder

    return Word2vecEncoder.of(_located(features.word2vec), sources)


ENCODERS: dict[EncoderName, EncoderKind] = {
    "clip": EncoderKind(_clip),
    "image": EncoderKind(_image),
    "motion": EncoderKind(_motion),
    "audio": EncoderKind(_audio),
    "mel": EncoderKind(_mel),
    "distilbert": EncoderKind(_distilbert, reads_captions=True),
    "hashed": EncoderKind(_hashed, reads_captions=True),
    "word2vec": EncoderKind(_word2vec, reads_captions=True),
}
