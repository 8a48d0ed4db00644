"""CMAF against the released fusion, what its settings change, and what its scores rest on."""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_case import remove, target_of, under_our_names, whole

from crosswatch.errors import UserError
from crosswatch.models.cmaf import Cmaf
from crosswatch.models.cmaf_scores import Answer, CmafScores
from crosswatch.models.layers.fusion import GatedFusion
from crosswatch.models.settings.cmaf import CmafConfig
from crosswatch.models.tokens import Tokens
from crosswatch.records import InputShape
from crosswatch.training.losses.cmaf import align, cmaf_loss, diversity, half_way
from tests.case_cmaf import CASES, TEXT_WIDTH, frames_and_text

GOLDEN = Path(__file__).parent / "golden" / "cmaf_small.npz"
CLOSE = {"atol": 5e-6, "rtol": 1e-5}
RENAMES = (
    ("cmaf.text_projection.", "fuse.project_text."),
    ("cmaf.visual_projection.", "fuse.project_visual."),
    ("cmaf.visual_to_text_attention.", "fuse.visual_asks_text."),
    ("cmaf.text_to_visual_attention.", "fuse.text_asks_visual."),
    ("cmaf.fusion_gate.0.", "fuse.mix.weigh."),
    ("cmaf.final_projection.", "fuse.project_out."),
    ("anomaly_head.", "score."),
    ("out_proj.", "to_out."),
)
PUBLISHED = InputShape(widths=(512, 768))


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def released(golden, **options) -> Cmaf:
    weights = under_our_names(golden, RENAMES)
    config = CmafConfig(hidden=32, token_mode="pooled", **options)
    model = config.build(InputShape(widths=(512, 768)[: len(config.streams)]))
    if not config.use_cmaf:
        weights = {name: found for name, found in weights.items() if name.startswith("score.")}
    model.load_state_dict(weights)
    return model.eval()


def streams(golden) -> tuple[Tokens, Tokens]:
    return whole(golden["in_frame_features"]), whole(golden["in_text"][:, None])


def test_scores_as_the_released_fusion(golden):
    model = released(golden)
    scores = model(*streams(golden))
    near = lambda found, name: torch.testing.assert_close(found, golden[name], **CLOSE)  # noqa: E731
    near(scores.frames_BV, "out_visual")
    near(scores.text_BE, "out_text_proj")
    near(scores.visual_asked.values_BE, "out_visual_attended")
    near(scores.text_asked.values_BE, "out_text_attended")
    near(scores.gate, "out_gate")
    near(scores.cosine_B, "out_cos")
    near(scores.logit_B[:, None], "out_logit")
    mixed = model.fuse.mix(golden["out_visual_attended"], golden["out_text_attended"])
    near(mixed.values_ND, "out_fused_hidden")
    fused = model.fuse(whole(golden["out_visual"][:, None]), whole(golden["in_text"][:, None]))
    near(fused.visual_BE, "out_visual_proj")
    near(fused.values_BV, "out_fused")
    near(scores.frames_BV + fused.values_BV, "out_enhanced")
    near(align(scores), "out_align")


def test_the_losses_alignment_is_the_papers(golden):
    scores, target = released(golden)(*streams(golden)), target_of(3, 2)
    paper, none = (
        cmaf_loss(scores, target, CmafConfig(loss=loss, token_mode="pooled"))
        for loss in ("paper", "none")
    )
    # The diversity of a single key is not defined, and adds nothing.
    torch.testing.assert_close(paper - none, golden["out_align_alpha_0_1"], **CLOSE)


def test_missing_text_is_the_released_zero_vector(golden):
    frames, text = streams(golden)
    scores = released(golden)(*remove((frames, text), 1, 1e3))
    torch.testing.assert_close(scores.logit_B[:, None], golden["out_logit_text_none_list"], **CLOSE)


def test_without_the_fusion_the_head_sees_the_frames(golden):
    model = released(golden, use_cmaf=False)
    assert [stream.name for stream in model.config.streams] == ["visual"]
    scores = model(streams(golden)[0])
    torch.testing.assert_close(scores.logit_B[:, None], golden["out_logit_no_cmaf"], **CLOSE)
    assert scores.explain() == {}
    bce = torch.nn.functional.binary_cross_entropy_with_logits(
        scores.logit_B, torch.tensor([0.0, 1.0, 0.0])
    )
    torch.testing.assert_close(cmaf_loss(scores, target_of(3, 2), model.config), bce)


def test_a_sentence_is_the_mean_of_its_valid_rows(golden):
    model = released(golden)
    frames, text = streams(golden)
    away = torch.randn(3, 1, 768)
    rows = torch.cat((text.values_BLD + away, text.values_BLD - away, 99 * away), dim=1)
    valid = torch.tensor([True, True, False]).expand(3, 3)
    torch.testing.assert_close(
        model(frames, Tokens(rows, valid)).logit_B, model(frames, text).logit_B
    )


def count(module: torch.nn.Module | None) -> int:
    return 0 if module is None else sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("head", "shares"), [("enhanced", [0.2, 0.1]), ("plain", [0.1])])
def test_the_heads_drop_as_much_as_published(head, shares):
    score = CmafConfig(head=head).build(PUBLISHED).score
    assert [layer.p for layer in score if isinstance(layer, torch.nn.Dropout)] == shares


@pytest.mark.parametrize(
    ("options", "fusion", "head"),
    [
        ({}, 3_810_816, 165_121),
        ({"head": "plain"}, 3_810_816, 131_585),
        ({"use_cmaf": False, "head": "plain"}, 0, 131_585),
        ({"gate": "scalar"}, 3_810_816 - 524_800 + 1_025, 165_121),
        ({"gate": "fixed"}, 3_810_816 - 524_800, 165_121),
        ({"direction": "visual_to_text"}, 3_810_816 - 524_800 - 1_050_624, 165_121),
        ({"direction": "text_to_visual"}, 3_810_816 - 524_800 - 1_050_624, 165_121),
    ],
)
def test_has_as_many_parameters_as_published(options, fusion, head):
    config = CmafConfig(**options)
    model = config.build(InputShape(widths=PUBLISHED.widths[: len(config.streams)]))
    assert (count(model.fuse), count(model.score)) == (fusion, head)


def test_every_part_has_as_many_parameters_as_published():
    model = CmafConfig().build(PUBLISHED)
    parts = {
        "fuse.project_text": 394_752, "fuse.project_visual": 263_680,
        "fuse.visual_asks_text": 1_050_624, "fuse.text_asks_visual": 1_050_624,
        "fuse.mix.weigh": 524_800, "fuse.project_out": 526_336, "score": 165_121,
    }  # fmt: skip
    assert {name: count(model.get_submodule(name)) for name in parts} == parts
    dead = 3  # modality weights and a temperature, which are left out
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 3_975_940 - dead
    assert sum(parts.values()) == 3_975_940 - dead
    assert count(CmafConfig(head="plain").build(PUBLISHED).score) == 131_585


def test_the_fusion_begins_as_released():
    fuse = CmafConfig().build(PUBLISHED).fuse
    linears = [fuse.project_visual[0], fuse.project_text[0], fuse.project_out[0]]
    for linear in (*linears, fuse.project_out[4]):
        out_width, in_width = linear.weight.shape
        bound = math.sqrt(6 / (in_width + out_width))
        assert linear.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert not linear.bias.any()


def small(name: str = "cmaf-sequence", **options) -> Cmaf:
    case = CASES[name]
    torch.manual_seed(3)
    return dataclasses.replace(case.config, **options).build(case.shape)


SWITCHES = {
    "token_mode": {"token_mode": "pooled"},
    "head": {"head": "plain"},
    "visual_to_text": {"direction": "visual_to_text"},
    "text_to_visual": {"direction": "text_to_visual"},
    "scalar": {"gate": "scalar"},
    "fixed": {"gate": "fixed"},
    "residual": {"residual": False},
}


@pytest.mark.parametrize("name", SWITCHES)
def test_every_switch_changes_the_score(name):
    plain, switched = small().eval(), small(**SWITCHES[name]).eval()
    known = plain.state_dict()
    fitting = {
        key: known[key] if key in known and known[key].shape == own.shape else own
        for key, own in switched.state_dict().items()
    }
    switched.load_state_dict(fitting)
    inputs = frames_and_text(1, 4)
    assert not torch.allclose(plain(*inputs).logit_B, switched(*inputs).logit_B, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in CASES if name != "cmaf-frames-alone"])
def test_a_clip_without_its_padding_scores_as_with_it(name):
    model, inputs = small(name).eval(), frames_and_text(1, 4)
    together = model(*inputs)
    for number in range(4):
        alone = tuple(whole(values[number : number + 1, valid[number]]) for values, valid in inputs)
        scores = model(*alone)
        torch.testing.assert_close(scores.logit_B, together.logit_B[number : number + 1])
        torch.testing.assert_close(scores.cosine_B, together.cosine_B[number : number + 1])


def test_sequences_are_asked_as_the_formula_says():
    model, inputs = small().eval(), frames_and_text(1, 4)
    values, valid = inputs[0]
    frames = torch.nn.functional.normalize(values[0, valid[0]], dim=-1)
    v = model.fuse.project_visual(frames)[None]
    t = model.fuse.project_text(inputs[1].values_BLD[0, inputs[1].valid_BL[0]])[None]
    va = model.fuse.visual_asks_text(v, t).values_BQD.mean(1)
    ta = model.fuse.text_asks_visual(t, v).values_BQD.mean(1)
    gate = model.fuse.mix.weigh(torch.cat((va, ta), dim=1)).sigmoid()
    fused = model.fuse.project_out(gate * va + (1 - gate) * ta)
    logit = model.score(frames.mean(0) + fused)
    torch.testing.assert_close(model(*inputs).logit_B[:1], logit[0])


def test_a_fixed_gate_weighs_as_told():
    inputs = frames_and_text(1, 4)
    for fixed in (0.5, 0.7):
        model = small(gate="fixed", fixed_gate=fixed).eval()
        scores = model(*inputs)
        assert (scores.gate == fixed).all()
        va, ta = scores.visual_asked.values_BE, scores.text_asked.values_BE
        torch.testing.assert_close(model.fuse.mix(va, ta).values_ND, fixed * va + (1 - fixed) * ta)
        torch.testing.assert_close(scores.explain()["gate"], torch.full((4,), fixed))


@pytest.mark.parametrize(("gate", "width"), [("vector", 16), ("scalar", 1)])
def test_a_learned_gate_lies_between_what_it_mixes(gate, width):
    mix = GatedFusion(16, gate=gate)
    a, b = torch.randn(2, 5, 16)
    values, share = mix(a, b)
    assert share.shape == (5, width)
    assert torch.equal(share, mix.weigh(torch.cat((a, b), dim=1)).sigmoid())
    assert (values >= torch.minimum(a, b) - 1e-6).all()
    assert (values <= torch.maximum(a, b) + 1e-6).all()


def test_one_direction_leaves_nothing_to_gate():
    inputs = frames_and_text(1, 4)
    for direction, share in (("visual_to_text", 1.0), ("text_to_visual", 0.0)):
        scores = small(direction=direction).eval()(*inputs)
        assert (scores.explain()["gate"] == share).all()
        assert [scores.visual_asked is None, scores.text_asked is None] == [share == 0, share == 1]


def test_every_frame_counts_alike_however_long_its_vector():
    model = small(token_mode="pooled").eval()
    (values, valid), text = frames_and_text(1, 4)
    longer = values * torch.rand(4, 5, 1).add(0.5)
    torch.testing.assert_close(
        model(Tokens(longer, valid), text).logit_B, model(Tokens(values, valid), text).logit_B
    )


def test_dropout_acts_in_training_alone():
    model, inputs = small(dropout=0.3), frames_and_text(1, 4)
    first, second = (model.train()(*inputs).logit_B for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (model.eval()(*inputs).logit_B for _ in range(2))
    assert torch.equal(first, second)


def test_probabilities_are_of_both_classes():
    logit = torch.tensor([-40.0, 0.0, 1.0, 40.0], dtype=torch.bfloat16)
    probability = CmafScores(logit, torch.zeros(4, 2), torch.ones(4, dtype=bool)).probability_BK()
    assert probability.dtype == torch.float32
    torch.testing.assert_close(probability[:, 1], logit.float().sigmoid())
    torch.testing.assert_close(probability.sum(1), torch.ones(4))
    assert probability[3, 0] > 0


def answer(heads: torch.Tensor) -> Answer:
    """Of maps (H, K) of one clip whose only token asks."""
    return Answer(
        torch.zeros(1, 4), heads[None, :, None], torch.tensor([[True]]),
        torch.ones(1, heads.shape[1], dtype=torch.bool),
    )  # fmt: skip


def test_heads_overlap_between_not_at_all_and_entirely():
    assert answer(torch.eye(4)).overlap().item() == pytest.approx(0)
    assert answer(torch.tensor([[0.5, 0.5, 0.0]] * 4)).overlap().item() == pytest.approx(1 - 1 / 4)
    two = torch.tensor([[1.0, 0.0], [0.6, 0.8]])  # cosine 0.6 of unit rows: 2 x 0.36 / 4
    assert answer(two).overlap().item() == pytest.approx(0.18)


def test_entropy_is_of_the_heads_mean_map():
    assert answer(torch.eye(4)).entropy().item() == pytest.approx(math.log(4))
    assert answer(torch.tensor([[0.0, 1.0, 0.0]] * 2)).entropy().item() == pytest.approx(0)


def test_the_diversity_of_one_key_is_zero_and_told_to_be_undefined():
    one_sentence = (frames_and_text(1, 3)[0], whole(torch.randn(3, 1, TEXT_WIDTH)))
    model = small(direction="visual_to_text").eval()
    scores = model(*one_sentence)
    for kind in ("head_decorrelation", "entropy"):
        assert diversity(scores, dataclasses.replace(model.config, diversity=kind)) == 0
    facts = scores.explain()
    assert facts["head_overlap"].isnan().all()
    assert (facts["text_attention"] == 1).all()
    pooled = small(token_mode="pooled").eval()(*frames_and_text(1, 3))
    assert pooled.visual_asked.map_BHQK is None
    for kind in ("head_decorrelation", "entropy"):
        assert diversity(pooled, CmafConfig(token_mode="pooled", diversity=kind)) == 0
    assert set(pooled.explain()) == {"gate", "cosine"}


def terms(scores: CmafScores, **options) -> float:
    return cmaf_loss(scores, target_of(4, 2), CmafConfig(hidden=16, heads=4, **options)).item()


def test_the_loss_is_the_sum_of_its_terms():
    scores = small(hidden=24).eval()(*frames_and_text(1, 4))
    bce = terms(scores, loss="none")
    overlap = (scores.visual_asked.overlap() + scores.text_asked.overlap()).mean().item() / 2
    entropy = (scores.visual_asked.entropy() + scores.text_asked.entropy()).mean().item() / 2
    aligned = 1 - scores.cosine_B.mean().item()
    assert overlap > 0.1
    assert terms(scores) == pytest.approx(bce + 0.1 * (aligned + overlap), rel=1e-5)
    assert terms(scores, alpha=1.0, beta=0.5) == pytest.approx(bce + aligned + 0.5 * overlap)
    assert terms(scores, diversity="entropy") == pytest.approx(
        bce + 0.1 * (aligned - entropy), rel=1e-5
    )
    assert terms(scores, diversity="none") == pytest.approx(bce + 0.1 * aligned)
    cosine = torch.cosine_similarity(scores.frames_BV, scores.text_BE)
    away = (cosine - 0.5).abs().mean().item()
    assert terms(scores, loss="code") == pytest.approx(bce + 0.1 * away, rel=1e-5)


def test_the_released_loss_has_its_gradient_here():
    model = small("cmaf-code-loss")
    half_way(model(*frames_and_text(1, 4))).backward()
    assert model.fuse.project_text[0].weight.grad.any()


def test_clips_that_lack_a_stream_are_not_aligned():
    model = small("cmaf-code-loss").eval()
    (frames, text), target = frames_and_text(1, 4), target_of(4, 2)
    valid = text.valid_BL.clone()
    valid[2] = False
    some = model(frames, Tokens(text.values_BLD, valid))
    rest = torch.tensor([0, 1, 3])
    full = model(*(Tokens(s.values_BLD[rest], s.valid_BL[rest]) for s in (frames, text)))
    torch.testing.assert_close(align(some), align(full))
    torch.testing.assert_close(half_way(some), half_way(full))
    assert some.explain()["cosine"].isnan().tolist() == [False, False, True, False]
    none = model(*remove((frames, text), 1, 1e3))
    assert align(none) == half_way(none) == 0
    assert cmaf_loss(none, target, model.config).isfinite()


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=4),
    name=st.sampled_from([name for name in CASES if name != "cmaf-frames-alone"]),
    fill=st.sampled_from([0.0, 1e3, math.nan]),
)
def test_learns_from_clips_of_any_lengths(lengths, name, fill):
    """Of one clip too, and of such as lack a stream, or both."""
    model = small(name)
    count_of, config = len(lengths), model.config
    inputs = []
    for stream, width in enumerate(CASES[name].shape.widths):
        valid = torch.arange(4) < torch.tensor([length[stream] for length in lengths])[:, None]
        values = torch.randn(count_of, 4, width).where(valid[..., None], fill)
        inputs.append(Tokens(values, valid))
    scores = model(*inputs)
    cmaf_loss(scores, target_of(count_of, 2), config).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    facts = scores.explain()
    for fact in ("text_attention", "frame_attention"):
        if fact in facts:
            asked = inputs[1] if fact == "text_attention" else inputs[0]
            assert not facts[fact][~asked.valid_BL].any()
            both = scores.paired_B.float()
            torch.testing.assert_close(facts[fact].sum(1), both, atol=1e-5, rtol=0)


def test_explains_in_half_precision():
    model, inputs = small().eval(), frames_and_text(1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(*inputs)
        loss = cmaf_loss(scores, target_of(4, 2), model.config)
    exact = model(*inputs)
    assert loss.dtype == torch.float32
    assert all(fact.dtype == torch.float32 for fact in scores.explain().values())
    torch.testing.assert_close(scores.probability_BK(), exact.probability_BK(), atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 20}, "hidden is 20, which heads, 8, does not divide"),
        ({"heads": 0}, "heads is 0; allowed 1 and above"),
        ({"dropout": 0.5}, "dropout is 0.5; allowed 0 to 0.5, 0.5 excluded"),
        ({"fixed_gate": 1.1}, "fixed_gate is 1.1; allowed 0 to 1"),
        ({"alpha": -0.1}, "alpha is -0.1; allowed 0 and above"),
        ({"beta": -1.0}, "beta is -1.0; allowed 0 and above"),
        ({"most_words": 0}, "most_words is 0; allowed 1 and above"),
        ({"text": ()}, "text names no features; at least one is needed"),
    ],
)
def test_refuses_settings_that_make_no_model(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        CmafConfig(**options)


@pytest.mark.parametrize(
    ("options", "shape", "message"),
    [
        ({}, InputShape(widths=(512, 768), classes=3), "the labels have 3 classes; allowed 2"),
        (
            {"loss": "code", "hidden": 256},
            PUBLISHED,
            "frames of width 512 with text of width 256 (hidden); allowed are equal widths. "
            "Set hidden: 512 or loss: paper.",
        ),
    ],
)
def test_refuses_inputs_that_no_such_model_can_take(options, shape, message):
    with pytest.raises(UserError, match=re.escape(message)):
        CmafConfig(**options).build(shape)


def test_streams_are_in_the_order_of_forward():
    config = CmafConfig(visual=("clip", "image"), text=("distilbert",), most_frames=9)
    visual, text = config.streams
    assert (visual.name, visual.modalities, visual.most) == ("visual", ("clip", "image"), 9)
    assert (text.name, text.modalities, text.most) == ("text", ("distilbert",), 128)
