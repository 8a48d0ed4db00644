"""Small variants of CMAF for the laws of all models."""

from model_case import Inputs, ModelCase, random_tokens, target_of

from crosswatch.models.settings.cmaf import CmafConfig
from crosswatch.records import InputShape

VISUAL_WIDTH, TEXT_WIDTH = 24, 12
SMALL = {"hidden": 16, "heads": 4, "dropout": 0.0}
# With one key, what asks has no influence (models/layers/cross_attention.py).
UNASKED = tuple(
    f"fuse.{asks}.{part}"
    for asks in ("visual_asks_text", "text_asks_visual")
    for part in ("to_query", "to_key")
)


def frames_and_text(seed: int, count: int) -> Inputs:
    return (
        random_tokens(VISUAL_WIDTH, count=count, length=5, seed=seed),
        random_tokens(TEXT_WIDTH, count=count, length=4, seed=seed + 1),
    )


def frames(seed: int, count: int) -> Inputs:
    return frames_and_text(seed, count)[:1]


def case(*, dead: tuple[str, ...] = (), **options: object) -> ModelCase:
    config = CmafConfig(**(SMALL | options))
    both = config.use_cmaf
    return ModelCase(
        config=config,
        shape=InputShape(widths=(VISUAL_WIDTH, TEXT_WIDTH) if both else (VISUAL_WIDTH,)),
        inputs=frames_and_text if both else frames,
        target=lambda count: target_of(count, 2),
        removable=(0, 1) if both else (0,),
        dead=dead,
    )


CASES = {
    "cmaf-sequence": case(),
    "cmaf-pooled": case(token_mode="pooled", dead=UNASKED),
    "cmaf-scalar-entropy": case(gate="scalar", diversity="entropy", head="plain"),
    "cmaf-fixed-no-residual": case(gate="fixed", fixed_gate=0.7, residual=False, loss="none"),
    "cmaf-code-loss": case(hidden=VISUAL_WIDTH, loss="code"),
    "cmaf-frames-ask": case(direction="visual_to_text"),
    "cmaf-text-asks": case(direction="text_to_visual"),
    "cmaf-frames-alone": case(use_cmaf=False),
}
