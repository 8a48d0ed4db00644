"""Where paper and released code differ, and what of FmFormer its tables switch: each does what it
says, and nothing else."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, interpolate

from crosswatch.annotation.refine import UNKNOWN
from crosswatch.errors import UserError
from crosswatch.models.fmformer import FmFormer, Scores
from crosswatch.models.fmformer_fused import FusedLogits
from crosswatch.models.layers.dense import PaperUnit
from crosswatch.models.layers.positions import Grid, resized_grid, resized_samples, stretched
from crosswatch.models.settings.fmformer import FmFormerConfig
from crosswatch.models.settings.fmformer_fused import FusedConfig
from crosswatch.models.tokens import Target
from crosswatch.training.losses.fmformer import class_of_mask, fmformer_loss
from tests.case_fmformer import CASES, SHAPE, SIZES, target, windows

CLASSES, MATCHED = {"pixel_head": False}, {"unimodal_depth": "matched"}
VISUAL, CURRENT = {"modality": "visual"}, {"modality": "current"} | CLASSES


def build(seed: int = 7, **options: object) -> FmFormer:
    """Sizes of InputShape among the options are those of the inputs."""
    torch.manual_seed(seed)
    names = {known.name for known in dataclasses.fields(SHAPE)}
    shape = dataclasses.replace(SHAPE, **{k: v for k, v in options.items() if k in names})
    config = FmFormerConfig(**SIZES | {k: v for k, v in options.items() if k not in names})
    return config.build(shape).eval()


def like(model: FmFormer, **changes: object) -> FmFormer:
    """The same weights under other settings."""
    other = dataclasses.replace(model.config, **changes).build(SHAPE).eval()
    other.load_state_dict(model.state_dict())
    return other


VIDEO, SIGNAL, _ = windows(seed=5, count=4)
SIGNAL = SIGNAL / SIGNAL.abs().amax((1, 2), keepdim=True)
OTHER_VIDEO, OTHER_SIGNAL = VIDEO.flip(0), SIGNAL.flip(0)


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"embed_shared": True},
        {"encoder_ff": "both"},
        {"mechanisms": "mhsa"},
        {"mechanisms": "mhca"},
        {"linear_fusion": False},
        {"head": "mlp"},
        {"dilated_tokens": False},
        {"current_embed": "released"},
    ],
    ids=str,
)
def test_a_switch_changes_the_class(options):
    one, other = build(), build(**options)
    same = {k: v for k, v in one.state_dict().items() if k in other.state_dict()}
    fits = {k: v for k, v in same.items() if v.shape == other.state_dict()[k].shape}
    other.load_state_dict(fits, strict=False)
    change = one(VIDEO, SIGNAL).class_BK - other(VIDEO, SIGNAL).class_BK
    assert change.abs().max() > 1e-2


def test_one_embedder_for_both_patches_is_two_with_the_same_weights():
    shared, separate = build(embed_shared=True), build()
    weights = shared.state_dict()
    of_dilated = {
        name.replace("embed_video.embed.", "embed_video.embed_dilated."): value
        for name, value in weights.items()
        if name.startswith("embed_video.embed.")
    }
    separate.load_state_dict(weights | of_dilated)
    close(shared(VIDEO, SIGNAL).class_BK, separate(VIDEO, SIGNAL).class_BK)


@pytest.mark.parametrize("options", [{}, VISUAL | MATCHED], ids=["cross_modal", "visual"])
def test_the_second_feed_forward_stands_between_the_attentions(options):
    one, two = build(**options), build(encoder_ff="both", **options)
    two.load_state_dict(one.state_dict(), strict=False)
    for name, value in two.named_parameters():
        if "feed_forward_between" in name and ".4." in name:
            torch.nn.init.zeros_(value)
    close(one(VIDEO, SIGNAL).class_BK, two(VIDEO, SIGNAL).class_BK)
    assert two.config.layer_steps[1] == "feed_forward_between"
    assert list(two.layers[0]) == list(two.config.layer_steps)


def test_self_attention_alone_is_two_matched_unimodal_models():
    """Table V, 1: it is also "Cross-modality + LF" with weights trained together."""
    together = build(mechanisms="mhsa")
    visual, current = build(**VISUAL | MATCHED), build(**CURRENT | MATCHED)
    for alone in (visual, current):
        alone.load_state_dict(alone.state_dict() | only(together, alone), strict=True)
    both, fused = together(VIDEO, SIGNAL), FusedLogits(visual, current)(VIDEO, SIGNAL)
    for found, expected in zip(both, fused, strict=True):
        close(found, expected)


def only(whole: FmFormer, part: FmFormer) -> dict[str, torch.Tensor]:
    return {name: value for name, value in whole.state_dict().items() if name in part.state_dict()}


def test_cross_attention_alone_never_asks_the_own_stream():
    """One layer, whose first answers do not reach the signal: no way from video back to video."""
    for mechanisms, sees_itself in (("mhca", False), ("both", True)):
        model = build(depth=1, mechanisms=mechanisms, **CLASSES)
        for name, value in model.named_parameters():
            if "ask_each_other.signal_out" in name:
                torch.nn.init.zeros_(value)
        one, other = model(VIDEO, SIGNAL).video_BK, model(OTHER_VIDEO, SIGNAL).video_BK
        assert torch.equal(one, other) is not sees_itself
        assert not torch.equal(one, model(VIDEO, OTHER_SIGNAL).video_BK)


@pytest.mark.parametrize("modality", [VISUAL, CURRENT], ids=["visual", "current"])
def test_matched_depth_asks_twice_a_layer(modality):
    released, matched = build(**modality), build(**modality, **MATCHED)
    matched.load_state_dict(released.state_dict(), strict=False)
    assert list(matched.layers[0]) == ["ask_itself", "ask_itself_again", "feed_forward"]
    change = released(VIDEO, SIGNAL).class_BK - matched(VIDEO, SIGNAL).class_BK
    assert change.abs().max() > 1e-3
    for name, value in matched.named_parameters():
        if "ask_itself_again" in name and "to_out" in name:
            torch.nn.init.zeros_(value)
    close(released(VIDEO, SIGNAL).class_BK, matched(VIDEO, SIGNAL).class_BK)


def test_the_same_weights_are_judged_with_and_without_linear_fusion():
    fused = build()
    alone = like(fused, linear_fusion=False)
    with_both, with_video = fused(VIDEO, SIGNAL), alone(VIDEO, SIGNAL)
    close(with_both.video_BK + with_both.signal_BK, with_both.class_BK)
    close(with_video.class_BK, with_both.video_BK)
    close(with_video.probability_BK(), with_both.branches()["video"])
    close(with_video.pixel_BKHW, with_both.pixel_BKHW)
    assert with_video.signal_BK is None


def test_a_signal_head_that_was_never_trained_adds_nothing_once_it_is_fused():
    alone = build(linear_fusion=False)
    close(alone(VIDEO, SIGNAL).class_BK, like(alone, linear_fusion=True)(VIDEO, SIGNAL).class_BK)


def test_the_paper_head_is_one_hidden_layer():
    model = build(head="mlp", **VISUAL)
    norm, enter, bend, leave = model.score_class.score["video"]
    assert isinstance(bend, torch.nn.GELU)
    assert (norm.normalized_shape, enter.out_features, leave.in_features) == ((24,), 24, 24)
    assert "unread_score.0.weight" not in model.state_dict()


def test_the_paper_unit_is_convolution_norm_relu():
    torch.manual_seed(3)
    unit, x = PaperUnit(5).eval(), torch.randn(2, 5, 6, 7)
    unit.norm.running_mean.uniform_(-1, 1)
    close(unit(x), torch.relu(unit.norm(unit.conv(x))))
    released = build(**VISUAL)
    paper = like(released, dense_unit="paper")
    assert not torch.allclose(paper(VIDEO, None).pixel_BKHW, released(VIDEO, None).pixel_BKHW)


@settings(deadline=None, max_examples=60)
@given(length=st.integers(1, 40), count=st.integers(1, 60), seed=st.integers(0, 99))
def test_stretched_steps_are_interpolated_back_from_the_last(length, count, seed):
    table = torch.randn(1, length, 2, generator=torch.Generator().manual_seed(seed))
    at = length - 1 - np.arange(count)[::-1] * length / count
    expected = [np.interp(at, np.arange(length), column) for column in table[0].T.numpy()]
    found = stretched(table, count)
    np.testing.assert_allclose(found[0].T, expected, atol=1e-4)
    assert torch.equal(found[:, -1], table[:, -1])
    if count == length:
        assert torch.equal(found, table)


@pytest.mark.parametrize("count", [3, 6, 24])
def test_stretched_steps_are_as_far_apart_as_without_aligned_corners(count):
    table = torch.arange(12.0).reshape(1, 12, 1)
    middle = slice(count // 2 - 1, count // 2 + 1)
    expected = interpolate(table.mT, size=count, mode="linear").mT[:, middle]
    close(stretched(table, count)[:, middle].diff(dim=1), expected.diff(dim=1))


def test_positions_are_cropped_at_either_end():
    table = torch.arange(12.0).reshape(1, 12, 1)
    assert resized_samples(table, 5, "end_crop").flatten().tolist() == [7, 8, 9, 10, 11]
    assert resized_samples(table, 5, "slice").flatten().tolist() == [0, 1, 2, 3, 4]
    grid = torch.arange(12.0).reshape(1, 12, 1)
    built, given_ = Grid(3, 2, 2), Grid(2, 2, 2)
    assert resized_grid(grid, built, given_, "end_crop").flatten().tolist() == [*range(4, 12)]
    assert resized_grid(grid, built, given_, "slice").flatten().tolist() == [*range(8)]


def test_video_positions_are_interpolated_in_time_rows_and_columns():
    """A table that is linear in all three stays so, away from the borders."""
    built, given_ = Grid(4, 4, 4), Grid(8, 8, 8)
    steps = torch.stack(torch.meshgrid(*[torch.arange(4.0)] * 3, indexing="ij"), dim=-1)
    table = resized_grid(steps.reshape(1, 64, 3), built, given_, "interp").reshape(8, 8, 8, 3)
    inner = (torch.arange(1, 7) + 0.5) / 2 - 0.5
    expected = torch.stack(torch.meshgrid(inner, inner, inner, indexing="ij"), dim=-1)
    close(table[1:-1, 1:-1, 1:-1], expected)


@pytest.mark.parametrize("samples", [5, 30])
@pytest.mark.parametrize("how", ["interp", "end_crop", "slice"])
def test_another_number_of_samples_runs_as_a_model_with_resized_positions(how, samples):
    model = build(**CURRENT, pe_resize=how)
    signal = torch.randn(4, samples, 3)
    if samples > SHAPE.signal_samples and how != "interp":
        with pytest.raises(UserError, match=rf"30 samples, .* for 12: pe_resize: {how} cannot add"):
            model(None, signal)
        return
    resized = build(**CURRENT, signal_samples=samples)
    weights = model.state_dict()
    table = weights["embed_signal.position_1ND"]
    kept = resized_samples(table[:, 1:], samples, how)
    resized.load_state_dict(
        weights | {"embed_signal.position_1ND": torch.cat((table[:, :1], kept), dim=1)}
    )
    close(model(None, signal).class_BK, resized(None, signal).class_BK)


def test_the_end_of_a_window_scores_as_the_window_whose_beginning_is_missing():
    model = build(pe_resize="end_crop")
    valid = torch.arange(12).expand(4, 12) >= 5
    for cut, masked in zip(model(VIDEO, SIGNAL[:, 5:]), model(VIDEO, SIGNAL, valid), strict=True):
        close(cut, masked)


@pytest.mark.parametrize("frames", [2, 8])
@pytest.mark.parametrize("how", ["interp", "end_crop", "slice"])
def test_another_number_of_frames(how, frames):
    model, video = build(**VISUAL, pe_resize=how), VIDEO.repeat(1, 2, 1, 1, 1)[:, :frames]
    if frames > SHAPE.frames and how != "interp":
        with pytest.raises(UserError, match=rf"4 patch times, .* for 2: pe_resize: {how} cannot"):
            model(video, None)
        return
    resized, weights = build(**VISUAL, **CLASSES, frames=frames), model.state_dict()
    for name, cells, first in (("position", 4, 1), ("dilated_position", 2, 0)):
        table = weights[f"embed_video.{name}_1ND"]
        grids = Grid(2, cells, cells), Grid(frames // 2, cells, cells)
        kept = resized_grid(table[:, first:], *grids, how)
        weights[f"embed_video.{name}_1ND"] = torch.cat((table[:, :first], kept), dim=1)
    resized.load_state_dict({name: weights[name] for name in resized.state_dict()})
    scores = model(video, None)
    close(scores.class_BK, resized(video, None).class_BK)
    assert scores.pixel_BKHW.shape == (4, 2, 32, 32)


def test_the_mask_of_a_clip_of_another_length_is_that_of_its_times_stretched():
    merge = build(**VISUAL).score_pixels.merge
    moving, still = torch.randn(1, 5, 4, 4, 24), torch.randn(1, 1, 4, 4, 24)
    two_times = torch.stack((moving[:, 1].lerp(moving[:, 2], 0.5), moving[:, 4]), dim=1)
    close(merge(moving), merge(two_times))
    close(merge(still), merge(still.repeat(1, 2, 1, 1, 1)))


@pytest.mark.parametrize("name", CASES)
def test_frozen_is_what_nothing_reads_and_no_more(name):
    """What is trained without a gradient would stop a run of several workers."""
    case = CASES[name]
    model = case.config.build(case.shape).train()
    scores = model(*case.inputs(1, 4))
    fmformer_loss(scores, case.target(4), case.config).backward()
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    reached = {name for name, value in model.named_parameters() if value.grad is not None}
    unread = {name for name, _ in model.named_parameters() if name.startswith(case.dead or ("-",))}
    assert trained == reached == {name for name, _ in model.named_parameters()} - unread


def test_larger_frames_need_interpolated_positions():
    larger = torch.randint(0, 256, (2, 4, 48, 48, 3), dtype=torch.uint8)
    assert build(**VISUAL)(larger, None).pixel_BKHW.shape == (2, 2, 48, 48)
    with pytest.raises(UserError, match=r"2 x 6 x 6 .* for 2 x 4 x 4: pe_resize: slice changes t"):
        build(**VISUAL, pe_resize="slice")(larger, None)


@pytest.mark.parametrize("size", [(3, 32, 32), (4, 24, 32), (0, 32, 32)])
def test_refuses_clips_that_patches_do_not_divide(size):
    with pytest.raises(UserError, match=r"frames of .* allowed are multiples of 2 frames and 16"):
        build(**VISUAL)(torch.zeros(1, *size, 3), None)


@pytest.mark.parametrize("name", ["fmformer", "fmformer-current", "fmformer-mhca"])
def test_a_sample_that_is_not_there_has_no_influence(name):
    case = CASES[name]
    model = case.config.build(case.shape).eval()
    video, signal, valid = case.inputs(3, 4)
    base = model(video, signal, valid).class_BK
    for fill in (0.0, 1e6, math.nan):
        spoilt = signal.masked_fill(~valid[..., None], fill)
        assert torch.equal(model(video, spoilt, valid).class_BK, base)
    assert not torch.allclose(model(video, signal, torch.ones_like(valid)).class_BK, base)


def test_padding_in_front_is_cut_but_a_longer_window_is_not():
    model = build(**CURRENT)
    valid = torch.ones(4, 12, dtype=torch.bool)
    base = model(None, SIGNAL, valid).class_BK
    longer = torch.cat((torch.full((4, 3, 3), math.nan), SIGNAL), dim=1)
    padded = torch.cat((torch.zeros(4, 3, dtype=torch.bool), valid), dim=1)
    close(model(None, longer, padded).class_BK, base)
    held = padded.clone()
    held[0, 0] = True
    finite = longer.nan_to_num()
    assert not torch.allclose(model(None, finite, held).class_BK[1:], base[1:])


def test_a_model_of_pixels_alone_says_the_class_of_the_likeliest_anomaly():
    pixels = torch.zeros(2, 3, 4, 4)
    pixels[:, 0] = 9.0
    pixels[1, :, 2, 3] = torch.tensor([0.0, 1.0, 3.0])
    scores = Scores(class_BK=None, pixel_BKHW=pixels)
    close(scores.probability_BK()[0], torch.tensor([9.0, 0.0, 0.0]).softmax(0))
    close(scores.probability_BK()[1], torch.tensor([0.0, 1.0, 3.0]).softmax(0))
    assert scores.branches() == {}
    joint = build()(VIDEO, SIGNAL)
    assert list(joint.branches()) == ["video", "signal", "pixels"]
    for chance in (joint.probability_BK(), *joint.branches().values()):
        close(chance.sum(1), torch.ones(4))


def test_bf16_logits_give_float32_probabilities():
    with torch.autocast("cpu", torch.bfloat16):
        scores = build()(VIDEO, SIGNAL)
    found = [scores.probability_BK(), *scores.branches().values()]
    assert {chance.dtype for chance in found} == {torch.float32}


def scores_of(logits: torch.Tensor, pixels: torch.Tensor) -> Scores:
    return Scores(class_BK=logits, pixel_BKHW=pixels)


def test_alpha_weighs_the_class_beside_the_pixels():
    answers, logits, pixels = target(4), torch.randn(4, 2), torch.randn(4, 2, 32, 32)
    by_class = cross_entropy(logits, answers.class_B)
    by_pixel = cross_entropy(pixels, answers.mask_BHW)
    for alpha in (0.0, 0.1, 2.0):
        config = FmFormerConfig(alpha=alpha)
        joint = fmformer_loss(scores_of(logits, pixels), answers, config)
        close(joint, by_pixel + alpha * by_class)
        alone = fmformer_loss(Scores(logits, None), answers._replace(mask_BHW=None), config)
        close(alone, by_class)
        close(fmformer_loss(Scores(None, pixels), answers, config), by_pixel)


def test_tau_makes_the_class_from_the_mask():
    mask = torch.zeros(4, 8, 8, dtype=torch.long)
    mask[1, 0, 0] = 1
    mask[2, :2] = 1
    mask[3] = UNKNOWN
    answers = Target(torch.tensor([1, 0, 0, 1]), torch.zeros(4, 2), mask)
    assert class_of_mask(answers, 0.5).tolist() == [0, 1, 1, 1]
    assert class_of_mask(answers, 1.0).tolist() == [0, 0, 1, 1]
    assert class_of_mask(answers, 16.0).tolist() == [0, 0, 0, 1]
    logits, pixels = torch.randn(4, 2), torch.randn(4, 2, 8, 8)
    by_mask = fmformer_loss(scores_of(logits, pixels), answers, FmFormerConfig(tau=0.5))
    agreeing = answers._replace(class_B=torch.tensor([0, 1, 1, 1]))
    close(by_mask, fmformer_loss(scores_of(logits, pixels), agreeing, FmFormerConfig()))


def test_fused_logits_are_the_sum_of_two_models_trained_apart():
    visual, current = build(seed=1, **VISUAL), build(seed=2, **CURRENT, current_embed="released")
    fused = FusedLogits(visual, current).eval()
    scores = fused(VIDEO, SIGNAL)
    seen, measured = visual(VIDEO, None), current(None, SIGNAL)
    assert torch.equal(scores.class_BK, seen.class_BK + measured.class_BK)
    assert torch.equal(scores.pixel_BKHW, seen.pixel_BKHW)
    close(scores.branches()["video"], seen.probability_BK())
    close(scores.branches()["signal"], measured.probability_BK())
    valid = torch.arange(12).expand(4, 12) > 6
    expected = seen.class_BK + current(None, SIGNAL, valid).class_BK
    assert torch.equal(fused(VIDEO, SIGNAL, valid).class_BK, expected)


def test_settings_of_two_models_rebuild_what_their_weights_fit():
    visual, current = build(seed=1, **VISUAL), build(seed=2, **CURRENT)
    fused = FusedLogits(visual, current)
    config = FusedConfig(visual=visual.config, current=current.config)
    again = config.build(SHAPE).eval()
    again.load_state_dict(fused.state_dict())
    close(again(VIDEO, SIGNAL).class_BK, fused(VIDEO, SIGNAL).class_BK)
    assert config.streams == ("video", "signal")
    assert (config.normalises, config.pixel_head) == (True, True)


@pytest.mark.parametrize(
    ("visual", "current", "message"),
    [
        ({}, CURRENT, "modality 'visual' with class_head: true; found 'cross_modal'"),
        (VISUAL, VISUAL, "modality 'current' with class_head: true; found 'visual'"),
        (VISUAL | {"class_head": False}, CURRENT, "found 'visual' with class_head: false"),
        (VISUAL, CURRENT | {"classes": 3}, "knows 2 classes, the current model 3"),
    ],
)
def test_refuses_to_fuse_what_is_no_pair(visual, current, message):
    with pytest.raises(UserError, match=message):
        FusedLogits(build(**visual), build(**current))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (VISUAL | {"mechanisms": "mhsa"}, "mechanisms: mhsa says how two streams attend, and mod"),
        (CURRENT | {"linear_fusion": False}, "linear_fusion: false takes the class from one st"),
        (VISUAL | {"encoder_ff": "both"}, "encoder_ff: both needs two attentions a layer"),
        ({"mechanisms": "mhsa", "linear_fusion": False}, "mhsa keeps the streams apart"),
        ({"mechanisms": "mhsa", "class_head": False}, "the signal would change nothing"),
        ({"tau": -1.0}, r"tau: -1.0, but 0 or more pixels allowed"),
        ({"tau": math.nan}, r"tau: nan, but 0 or more pixels allowed"),
        ({"tau": 0.5, "pixel_head": False}, "tau: 0.5 makes the class from the mask, which needs"),
        ({"tau": 0.5, "classes": 3}, "tau: 0.5 tells normal from anomalous, and there are 3"),
    ],
)
def test_refuses_switches_that_mean_nothing_together(options, message):
    with pytest.raises(UserError, match=message):
        build(**options)
