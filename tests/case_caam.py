"""CAAM, small, for the laws of all models."""

from typing import Any

from model_case import Inputs, ModelCase, random_tokens, target_of

from crosswatch.models.settings.caam import CaamConfig
from crosswatch.records import InputShape

WIDTHS = {"video": 12, "audio": 10, "text": 8}
LENGTHS = {"video": 4, "audio": 40, "text": 5}
SIZES = {
    "width": 32, "heads": 4, "encoder_width": 16, "encoder_depth": 1,
    "audio_columns": 48, "video_frames": 8, "text_words": 9,
}  # fmt: skip
CLASSES = 3


def small_config(**changes: Any) -> CaamConfig:
    return CaamConfig(**{**SIZES, "audio_frontend": "small", **changes})


def shape_of(config: CaamConfig) -> InputShape:
    return InputShape(classes=CLASSES, widths=tuple(WIDTHS[stream] for stream in config.used))


def inputs_of(config: CaamConfig, seed: int, count: int) -> Inputs:
    return tuple(
        random_tokens(WIDTHS[stream], count=count, length=LENGTHS[stream], seed=seed + at)
        for at, stream in enumerate(config.used)
    )


def case_of(*, dead: tuple[str, ...] = (), **changes: Any) -> ModelCase:
    config = small_config(**changes)
    return ModelCase(
        config=config,
        shape=shape_of(config),
        inputs=lambda seed, count: inputs_of(config, seed, count),
        target=lambda count: target_of(count, CLASSES),
        removable=tuple(range(len(config.used))),
        dead=dead,
    )


def of_attentions(names: tuple[str, ...], *parts: str) -> tuple[str, ...]:
    return tuple(f"fuse.asking.{name}.first.attention.{part}" for name in names for part in parts)


# With one key, what asks has no influence (models/layers/cross_attention.py).
ONE_KEY = of_attentions(("audio_asks_video", "text_asks_video"), "to_query", "to_key")
CASES = {
    "caam-pooled": case_of(),
    "caam-pooled-separate": case_of(dead=ONE_KEY, audio_frontend="none", share_block=False),
    "caam-ca3": case_of(
        topology="ca3", video_tokens="frames", audio_frontend="none", vote="probability", depth=2,
    ),
    "caam-fixed-key": case_of(
        topology="fixed_key", video_tokens="frames", audio_frontend="none", softmax=False,
        share_block=False,
    ),
    "caam-stacked": case_of(
        topology="stacked_alternating", encoders="paper", audio_frontend=None, share_block=False,
    ),
    "caam-two": case_of(modalities=("text", "video"), video_tokens="frames"),
    "caam-one": case_of(modalities=("audio",)),
    "caam-padding-seen": case_of(masks=False, audio_frontend="none", vote="hard"),
}  # fmt: skip
