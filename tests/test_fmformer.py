"""FmFormer against the released model, and the laws that every variant obeys."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from crosswatch.errors import UserError
from crosswatch.models import MODELS
from crosswatch.models.fmformer import FmFormer
from crosswatch.models.settings.fmformer import FmFormerConfig
from crosswatch.models.tokens import Target
from crosswatch.records import InputShape
from crosswatch.training.losses.fmformer import fmformer_loss

GOLDEN = Path(__file__).parent / "golden"
SMALL = {"width": 24, "depth": 2, "head_width": 8, "feed_forward_width": 48}
SMALL_SHAPE = InputShape(frame_px=32, frames=4, signal_samples=20)
VARIANTS = {
    "cross_modal": {"modality": "cross_modal"},
    "cross_modal_classes": {"modality": "cross_modal", "pixel_head": False},
    "visual": {"modality": "visual"},
    "visual_no_dilated": {"modality": "visual", "dilated_tokens": False},
    "current": {"modality": "current", "pixel_head": False},
    "current_released": {
        "modality": "current", "pixel_head": False, "current_embed": "released"},
}  # fmt: skip
SIZES = {field.name for field in dataclasses.fields(InputShape)}
GOLDENS = {
    "vicu_cls": {"modality": "cross_modal", "pixel_head": False},
    "vicu_seg": {"modality": "cross_modal", "class_head": False},
    "video_cls": {"modality": "visual", "pixel_head": False},
    "current": {"modality": "current", "pixel_head": False},
}
# Released name, ours. `1` is the released models' video stream and `2` their current.
RENAMES = [
    (r"^(pos_embedding1|pos_embedding\.pe)$", "embed_video.position_1ND"),
    (r"^(pos_embedding2|pos_embedding)$", "embed_signal.position_1ND"),
    (r"^get_additional_tokens\.pos_embedding$", "embed_video.dilated_position_1ND"),
    (r"^get_additional_tokens\.to_patch_embedding\.", "embed_video.embed_dilated."),
    (r"^to_patch_embedding1\.", "embed_video.embed."),
    (r"^to_patch_embedding2\.", "embed_signal.embed."),
    (r"^transformer\.norm\.", "score_class.score.signal.0."),
    (r"^mlp_head\.", "score_class.score.signal.1."),
    (r"^head\.mlp_head1\.", "score_class.score.video."),
    (r"^head\.mlp_head2\.", "score_class.score.signal."),
    (r"^transformer\.layers\.(\d)\.0\.cross_attn\.", r"layers.\1.ask_each_other."),
    (r"^transformer\.layers\.(\d)\.0\.stream1\.", r"layers.\1.ask_itself.video."),
    (r"^transformer\.layers\.(\d)\.0\.stream2\.", r"layers.\1.ask_itself.signal."),
    (r"^transformer\.layers\.(\d)\.0\.", r"layers.\1.ask_itself.UNIMODAL."),
    (r"^transformer\.layers\.(\d)\.1\.ff1\.net\.", r"layers.\1.feed_forward.video."),
    (r"^transformer\.layers\.(\d)\.1\.ff2\.net\.", r"layers.\1.feed_forward.signal."),
    (r"^transformer\.layers\.(\d)\.1\.net\.", r"layers.\1.feed_forward.UNIMODAL."),
    (r"\.(norm|to_qkv|to_out)1\.", r".video_\1."),
    (r"\.(norm|to_qkv|to_out)2\.", r".signal_\1."),
    (r"(video|signal)_norm\.", r"\1_qkv.norm."),
    (r"(video|signal)_to_qkv\.", r"\1_qkv.project."),
    (r"(video|signal)_to_out\.0\.", r"\1_out.project."),
    (r"^(layers\.\d\.ask_itself\.\w+)\.norm\.", r"\1.to_qkv.norm."),
    (r"^(layers\.\d\.ask_itself\.\w+)\.to_qkv\.weight", r"\1.to_qkv.project.weight"),
    (r"^(layers\.\d\.ask_itself\.\w+)\.to_out\.0\.", r"\1.to_out.project."),
    (r"^cls_token1?$", "embed_video.class_token_11D"),
    (r"^cls_token2$", "embed_signal.class_token_11D"),
    (r"^head\.de_patch_embedding\.1\.", "score_pixels.merge.project."),
    (r"^head\.de_patch_embedding_dilated\.1\.", "score_pixels.merge_dilated.project."),
    (r"^head\.decode_dilated\.", "score_pixels.upsample_dilated."),
    (r"^head\.decode1\.", "score_pixels.decode.0."),
    (r"^head\.decode2\.", "score_pixels.decode.1."),
    (r"^head\.decode3\.", "score_pixels.decode.2."),
    (r"^head\.decode_out\.", "score_pixels.score."),
    (r"\.conv1\.", ".conv."),
    (r"\.bn1\.", ".norm."),
]
ONLY_VISUAL = [(r"^to_patch_embedding\.", "embed_video.embed."), (r"UNIMODAL", "video"),
               (r"^head\.mlp_head2\.", "unread_score.")]  # fmt: skip
ONLY_CURRENT = [(r"^to_patch_embedding\.", "embed_signal.embed."), (r"UNIMODAL", "signal"),
                (r"^cls_token$", "embed_signal.class_token_11D")]  # fmt: skip
SPECIAL = {"cross_modal": [], "visual": ONLY_VISUAL, "current": ONLY_CURRENT}
PATCH_NORM_FIRST = r"(embed_video\.embed\w*)\.([123])\."


def our_name(released: str, modality: str) -> str:
    for pattern, ours in SPECIAL[modality] + RENAMES + SPECIAL[modality]:
        released = re.sub(pattern, ours, released)
    return re.sub(PATCH_NORM_FIRST, lambda m: f"{m[1]}.{int(m[2]) - 1}.", released)


def load_released(model: FmFormer, golden: dict[str, torch.Tensor]) -> None:
    ours = model.state_dict()
    released = {
        our_name(name.removeprefix("w."), model.config.modality): value
        for name, value in golden.items()
        if name.startswith("w.")
    }
    assert released.keys() == ours.keys()
    model.load_state_dict({name: value.view_as(ours[name]) for name, value in released.items()})


@pytest.mark.parametrize("name", GOLDENS)
def test_forward_equals_the_released_model(name):
    with np.load(GOLDEN / f"fmf_small_{name}.npz") as file:
        golden = {key: torch.from_numpy(value) for key, value in file.items()}
    config = FmFormerConfig(**SMALL | GOLDENS[name], current_embed="released")
    model = config.build(SMALL_SHAPE).eval()
    load_released(model, golden)
    video = golden["in_video"].permute(0, 2, 3, 4, 1)
    signal = golden["in_current"]
    for valid in (None, torch.ones(signal.shape[:2], dtype=torch.bool)):
        scores = model(video, signal, valid)
        ours = scores.pixel_BKHW if scores.class_BK is None else scores.class_BK
        torch.testing.assert_close(ours, golden["out"], atol=1e-5, rtol=0)


CLASSES, PIXELS = {"pixel_head": False}, {"class_head": False}
NO_DILATED = {"dilated_tokens": False}
VISUAL, CURRENT = {"modality": "visual"}, {"modality": "current"} | CLASSES
MATCHED = {"unimodal_depth": "matched"}
BOTH = {"encoder_ff": "both"}
CROSS_MODAL_CLASSES, JOINT, FEED_FORWARD, EMBEDDER = 1_923_466, 2_420_620, 892_800, 37_920
SECOND_ATTENTIONS = 6 * 37_152
MLP = 96 * 96 + 96


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (CLASSES, CROSS_MODAL_CLASSES),
        (CLASSES | NO_DILATED, 1_877_866),
        (PIXELS, 2_419_848),
        (PIXELS | NO_DILATED, 2_207_880),
        ({}, JOINT),
        (NO_DILATED, 2_207_880 + 772),
        (VISUAL | CLASSES, 784_516),
        (VISUAL | CLASSES | {"frames": 8}, 776_836),
        (VISUAL | PIXELS, 1_280_898),
        (VISUAL | PIXELS | NO_DILATED, 1_068_930),
        (CURRENT, 693_512),
        (CURRENT | {"signal_samples": 440}, 712_712),
        (CLASSES | BOTH, CROSS_MODAL_CLASSES + FEED_FORWARD),
        (BOTH, JOINT + FEED_FORWARD),
        ({"embed_shared": True}, JOINT - EMBEDDER),
        ({"mechanisms": "mhsa"}, JOINT),
        ({"mechanisms": "mhca"}, JOINT),
        ({"linear_fusion": False}, JOINT),
        ({"dense_unit": "paper"}, JOINT),
        ({"head": "mlp"}, JOINT + 2 * MLP),
        (VISUAL | {"head": "mlp"}, 1_280_898 + 386 + MLP),
        (VISUAL | PIXELS | MATCHED, 1_280_898 + SECOND_ATTENTIONS),
        (CURRENT | MATCHED | BOTH, 693_512 + SECOND_ATTENTIONS + FEED_FORWARD // 2),
        ({"current_embed": "linear"}, JOINT - 2 * 3 - 2 * 96),
        ({"frames": 2}, JOINT - 4 * (64 + 16) * 96 - 2 * 4 * 96 * 96),
    ],
)
def test_parameter_count_is_the_published_one_or_follows_from_it(options, count):
    sizes = {"signal_samples": 240} | {key: options[key] for key in options if key in SIZES}
    switches = {key: options[key] for key in options if key not in SIZES}
    config = MODELS["fmformer"](**{"current_embed": "released"} | switches)
    assert parameters(config.build(InputShape(**sizes))) == count


def test_parts_have_the_published_numbers_of_parameters():
    model = FmFormerConfig(current_embed="released").build(InputShape(signal_samples=240))
    video, signal = model.embed_video, model.embed_signal
    dilated = parameters(video.embed_dilated) + video.dilated_position_1ND.numel()
    assert (parameters(video.embed), dilated, parameters(signal.embed)) == (37_920, 45_600, 582)
    assert (video.position_1ND.numel(), signal.position_1ND.numel()) == (30_816, 23_136)
    assert parameters(model.layers) == 1_784_448 == 6 * (4 * 37_152 + 2 * 74_400)
    assert (parameters(model.score_class), parameters(model.score_pixels)) == (772, 497_154)


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(name: str, **changes) -> FmFormer:
    torch.manual_seed(7)
    sizes = {key: changes.pop(key) for key in list(changes) if key in SIZES}
    config = FmFormerConfig(**SMALL | VARIANTS[name] | changes)
    return config.build(dataclasses.replace(SMALL_SHAPE, **sizes))


def batch(count: int = 4, channels: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    chance = torch.Generator().manual_seed(3)
    video = torch.randint(0, 256, (count, 4, 32, 32, 3), generator=chance, dtype=torch.uint8)
    return video, torch.randn(count, 20, channels, generator=chance)


def loss_of(model: FmFormer) -> torch.Tensor:
    classes = torch.arange(4) % 2
    masks = torch.zeros(4, 32, 32, dtype=torch.long)
    masks[1::2, 8:20, 12:24] = 1
    target = Target(classes, torch.nn.functional.one_hot(classes).float(), masks)
    return fmformer_loss(model(*batch()), target, model.config)


@pytest.mark.parametrize("name", VARIANTS)
def test_heads_score_classes_and_pixels(name):
    model = small(name, classes=3)
    scores = model(*batch())
    assert scores.class_BK.shape == (4, 3)
    if model.config.pixel_head:
        assert scores.pixel_BKHW.shape == (4, 3, 32, 32)
    else:
        assert scores.pixel_BKHW is None


@pytest.mark.parametrize("name", VARIANTS)
def test_a_score_does_not_depend_on_the_rest_of_the_batch(name):
    model = small(name).eval()
    video, signal = batch()
    order = torch.tensor([2, 0, 3, 1])
    for straight, shuffled in zip(
        model(video, signal), model(video[order], signal[order]), strict=True
    ):
        if straight is not None:
            torch.testing.assert_close(straight[order], shuffled, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_memorises_one_batch(name):
    model = small(name).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_reach_every_parameter(name):
    model = small(name).train()
    loss_of(model).backward()
    trained = {name: value.grad for name, value in model.named_parameters() if value.requires_grad}
    unreached = [name for name, grad in trained.items() if grad is None or not grad.any()]
    assert unreached == []


def test_only_the_released_visual_head_that_nothing_reads_is_frozen():
    for name in VARIANTS:
        frozen = {n.split(".")[0] for n, p in small(name).named_parameters() if not p.requires_grad}
        assert frozen == ({"unread_score"} if name.startswith("visual") else set())


@pytest.mark.parametrize("name", ["visual", "current"])
def test_a_variant_needs_only_its_own_stream(name):
    model = small(name).eval()
    video, signal = batch()
    alone = model(video, None) if name == "visual" else model(None, signal)
    torch.testing.assert_close(alone.class_BK, model(video, signal).class_BK)


def test_byte_and_float_video_score_the_same():
    model = small("visual").eval()
    video, _ = batch()
    torch.testing.assert_close(model(video, None), model(video.float(), None))


def test_only_the_linear_embedding_sees_the_size_of_the_current():
    _, signal = batch()
    released, linear = small("current_released").eval(), small("current").eval()
    swollen = 1.7 * signal + 3.0
    change = (released(None, signal).class_BK - released(None, swollen).class_BK).abs().max()
    assert change < 1e-4
    assert (linear(None, signal).class_BK - linear(None, swollen).class_BK).abs().max() > 1e-2


def test_dropout_acts_in_training_alone():
    model, inputs = small("cross_modal", dropout=0.5), batch()
    first, second = (model.train()(*inputs).class_BK for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (model.eval()(*inputs).class_BK for _ in range(2))
    assert torch.equal(first, second)


def test_any_number_of_signal_channels():
    model = small("current", signal_channels=5)
    assert model(None, batch(channels=5)[1]).class_BK.shape == (4, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modality": "current"}, "pixel_head needs video, which modality 'current' lacks"),
        ({"class_head": False, "pixel_head": False}, "needs one of them"),
        ({"patch_px": 16}, "patch_px: 16, but the pixel head enlarges patches 8 times"),
        ({"heads": 0}, "heads: 0, but at least 1 needed"),
        ({"dropout": 1.0}, "dropout: 1.0, but 0 or more and less than 1 allowed"),
    ],
)
def test_refuses_settings_that_contradict_each_other(options, message):
    with pytest.raises(UserError, match=message):
        FmFormerConfig(**options)


@pytest.mark.parametrize(
    ("options", "sizes", "message"),
    [
        ({}, {"frame_px": 72}, r"ingest.frame_px: 72 is no .* of 16 .* allowed: 64 and 80"),
        ({"dilated_tokens": False}, {"frame_px": 60}, "60 is no .* of 8 .* allowed: 56 and 64"),
        ({}, {"frames": 9}, "windows.frames: 9 is no .* of 2 .patch_frames 2.* 8 and 10"),
        ({}, {"frames": 0}, "windows.frames: 0 is no positive multiple of 2"),
        ({}, {"signal_samples": 0}, "needs a signal, and a window holds none"),
        ({"current_embed": "released"}, {"signal_channels": 1}, "at least 2 needed"),
        ({}, {"classes": 1}, "classes: 1, but at least 2 needed"),
    ],
)
def test_refuses_inputs_that_no_such_model_can_take(options, sizes, message):
    with pytest.raises(UserError, match=message):
        FmFormerConfig(**options).build(InputShape(**sizes))
