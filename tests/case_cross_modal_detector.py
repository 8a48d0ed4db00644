"""Small variants of the CrossModalDetector for the laws of all models."""

from itertools import permutations

from model_case import Inputs, ModelCase, random_tokens, target_of

from crosswatch.models.settings.cross_modal_detector import STREAMS, CrossModalDetectorConfig
from crosswatch.records import InputShape

WIDTHS = (10, 12, 14)
SMALL = {"width": 16, "heads": 4, "dropout": 0.0, "classifier_dropout": 0.0}
PAPER = ("image_asks_audio", "image_asks_video", "audio_asks_video")
FULL = tuple(f"{asks}_asks_{answers}" for asks, answers in permutations(STREAMS, 2))


def unasked(*blocks: str) -> tuple[str, ...]:
    """With one key, what asks has no influence (models/layers/cross_attention.py)."""
    return tuple(f"{block}.attention.{part}" for block in blocks for part in ("to_query", "to_key"))


def three_streams(seed: int, count: int) -> Inputs:
    return tuple(
        random_tokens(width, count=count, length=5 - number, seed=seed + number)
        for number, width in enumerate(WIDTHS)
    )


def case(*, classes: int = 2, dead: tuple[str, ...] = (), **options: object) -> ModelCase:
    return ModelCase(
        config=CrossModalDetectorConfig(**(SMALL | options)),
        shape=InputShape(widths=WIDTHS, classes=classes),
        inputs=three_streams,
        target=lambda count: target_of(count, classes),
        removable=(0, 1, 2),
        dead=dead,
    )


ALONE = tuple(f"ask_itself.{stream}" for stream in STREAMS)
CASES = {
    "cross-modal-detector-sequence": case(),
    "cross-modal-detector-pooled": case(
        token_mode="pooled", dead=unasked(*(f"ask.{name}" for name in PAPER))
    ),
    "cross-modal-detector-full": case(pairs="full", self_attn="per_modality", classes=3),
    "cross-modal-detector-full-pooled": case(
        token_mode="pooled",
        pairs="full",
        self_attn="per_modality",
        emb_std=0.02,
        dead=unasked(*ALONE, *(f"ask.{name}" for name in FULL)),
    ),
}
