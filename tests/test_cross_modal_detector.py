"""The CrossModalDetector against its notebook, and what its settings change."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_case import remove, target_of, under_our_names, whole

from crosswatch.errors import UserError
from crosswatch.models.cross_modal_detector import PAIRS, CrossModalDetector
from crosswatch.models.settings.cross_modal_detector import STREAMS, CrossModalDetectorConfig
from crosswatch.models.tokens import Tokens
from crosswatch.records import InputShape
from crosswatch.training.losses.classes import class_loss, cross_entropy
from tests.case_cross_modal_detector import CASES, three_streams

GOLDEN = Path(__file__).parent / "golden" / "xmd_small.npz"
CLOSE = {"atol": 5e-6, "rtol": 1e-5}
RENAMES = (
    ("img_proj.", "project.image."),
    ("aud_proj.", "project.audio."),
    ("vid_proj.", "project.video."),
    ("modality_embed.weight", "modality_SD"),
    ("img_to_aud.", "ask.image_asks_audio."),
    ("img_to_vid.", "ask.image_asks_video."),
    ("aud_to_vid.", "ask.audio_asks_video."),
    (".multihead_attn.out_proj.", ".attention.to_out."),
    (".multihead_attn.", ".attention."),
    (".norm1.", ".norm_attention."),
    (".norm2.", ".norm_feed_forward."),
    (".ffn.", ".feed_forward."),
    ("classifier.", "classify."),
)
PUBLISHED = InputShape(widths=(512, 768, 512))


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def released(golden, **options) -> CrossModalDetector:
    weights = under_our_names(golden, RENAMES)
    model = CrossModalDetectorConfig(width=64, **options).build(PUBLISHED)
    model.load_state_dict(weights)
    return model.eval()


@pytest.mark.parametrize("token_mode", ["pooled", "sequence"])
def test_scores_as_the_notebook(golden, token_mode):
    """Of one token a stream, both modes are the same."""
    model = released(golden, token_mode=token_mode)
    inputs = tuple(whole(golden[f"in_{name}"][:, None]) for name in ("img", "aud", "vid"))
    torch.testing.assert_close(model(*inputs).class_BK, golden["out_logits"], **CLOSE)


def test_every_step_is_as_in_the_notebook(golden):
    model = released(golden, token_mode="pooled")
    seen = {}
    for name, block in model.ask.items():
        block.register_forward_hook(
            lambda _, asked, found, name=name: seen.update({name: (asked, found.values_BQD)})
        )
    model.classify.register_forward_pre_hook(lambda _, given: seen.update(concat=given[0]))
    model(*(whole(golden[f"in_{name}"][:, None]) for name in ("img", "aud", "vid")))
    short = {"image": "img", "audio": "aud", "video": "vid"}
    for asks, answers in PAIRS["paper"]:
        (query, key), found = seen[f"{asks}_asks_{answers}"]
        torch.testing.assert_close(query, golden[f"out_tok_{short[asks]}"], **CLOSE)
        torch.testing.assert_close(key, golden[f"out_tok_{short[answers]}"], **CLOSE)
        expected = golden[f"out_block_{short[asks]}_{short[answers]}"]
        torch.testing.assert_close(found, expected, **CLOSE)
    torch.testing.assert_close(seen["concat"], golden["out_concat"], **CLOSE)


def test_a_block_on_sequences_is_as_in_the_notebook(golden):
    block = released(golden).ask["image_asks_audio"]
    found = block(golden["in_seq_q"], golden["in_seq_kv"])
    torch.testing.assert_close(found.values_BQD, golden["out_seq"], **CLOSE)
    torch.testing.assert_close(found.weight_BHQK.mean(1), golden["out_seq_attn_weights"], **CLOSE)


def test_pooled_takes_the_mean_of_valid_tokens(golden):
    model = released(golden, token_mode="pooled")
    pooled = []
    for name in ("img", "aud", "vid"):
        mean = golden[f"in_{name}"][:, None]
        away = torch.randn_like(mean)
        valid = torch.tensor([True, True, False]).expand(3, 3)
        pooled.append(Tokens(torch.cat((mean + away, mean - away, 99 * away), dim=1), valid))
    torch.testing.assert_close(model(*pooled).class_BK, golden["out_logits"])


BLOCK = 3_152_384


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 11_165_698),
        ({"self_attn": "per_modality"}, 11_165_698 + 3 * BLOCK),
        ({"pairs": "full"}, 11_165_698 + 3 * BLOCK),
    ],
)
def test_has_as_many_parameters_as_the_notebook(options, expected):
    model = CrossModalDetectorConfig(**options).build(PUBLISHED)
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    assert count(model) == expected
    assert {count(block) for block in model.ask.values()} == {BLOCK}
    assert count(model.project) == 919_040
    assert model.modality_SD.numel() == 1_536
    assert count(model.classify) == 787_970


def small(**options) -> CrossModalDetector:
    case = CASES["cross-modal-detector-sequence"]
    torch.manual_seed(3)
    return dataclasses.replace(case.config, **options).build(case.shape)


@pytest.mark.parametrize(
    "options", [{"token_mode": "pooled"}, {"pairs": "full"}, {"self_attn": "per_modality"}]
)
def test_every_switch_changes_the_score(options):
    plain, switched = small().eval(), small(**options).eval()
    switched.load_state_dict(plain.state_dict(), strict=False)
    inputs = three_streams(1, 4)
    assert not torch.allclose(plain(*inputs).class_BK, switched(*inputs).class_BK, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_clip_without_its_padding_scores_as_with_it(name):
    model, inputs = CASES[name].config.build(CASES[name].shape).eval(), three_streams(1, 4)
    together = model(*inputs).class_BK
    for number in range(4):
        alone = (whole(values[number : number + 1, valid[number]]) for values, valid in inputs)
        torch.testing.assert_close(model(*alone).class_BK[0], together[number])


@pytest.mark.parametrize("deviation", [1.0, 0.02])
def test_the_embedding_of_a_modality_begins_as_wide_as_told(deviation):
    model = CrossModalDetectorConfig(emb_std=deviation, width=1024).build(PUBLISHED)
    assert model.modality_SD.std().item() == pytest.approx(deviation, rel=0.05)


@pytest.mark.parametrize("name", ["dropout", "classifier_dropout"])
def test_dropout_acts_in_training_alone(name):
    model, inputs = small(**{name: 0.5}), three_streams(1, 4)
    first, second = (model.train()(*inputs).class_BK for _ in range(2))
    assert not torch.equal(first, second)
    first, second = (model.eval()(*inputs).class_BK for _ in range(2))
    assert torch.equal(first, second)


def test_in_full_every_stream_is_the_mean_of_what_it_found():
    model, inputs = small(pairs="full").eval(), three_streams(1, 4)
    found, seen = {}, {}
    for name, block in model.ask.items():
        block.register_forward_hook(
            lambda _, asked, out, name=name: found.update({name: out.values_BQD})
        )
    model.classify.register_forward_pre_hook(lambda _, given: seen.update(given=given[0]))
    model(*inputs)
    assert len(found) == 6
    parts = []
    for stream, tokens in zip(STREAMS, inputs, strict=True):
        mine = [values for name, values in found.items() if name.startswith(f"{stream}_asks")]
        parts.append(Tokens((mine[0] + mine[1]) / 2, tokens.valid_BL).mean())
    torch.testing.assert_close(seen["given"], torch.cat(parts, dim=1))


@pytest.mark.parametrize("token_mode", ["pooled", "sequence"])
@pytest.mark.parametrize("missing", range(3))
def test_a_missing_stream_adds_zeros_and_is_asked_in_vain(token_mode, missing):
    model, seen = small(token_mode=token_mode, pairs="full").eval(), {}
    blocks = {}
    for name, block in model.ask.items():
        block.attention.register_forward_hook(
            lambda _, asked, found, name=name: blocks.update({name: found})
        )
    model.classify.register_forward_pre_hook(lambda _, given: seen.update(given=given[0]))
    model(*remove(three_streams(1, 4), missing, 1e3))
    width = model.config.width
    assert not seen["given"][:, missing * width : (missing + 1) * width].any()
    for name, found in blocks.items():
        if name.endswith(f"asks_{STREAMS[missing]}"):
            bias = model.ask[name].attention.to_out.bias
            torch.testing.assert_close(found.values_BQD, bias.expand_as(found.values_BQD))


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.tuples(*(st.integers(0, 3) for _ in STREAMS)), min_size=1, max_size=4),
    name=st.sampled_from(sorted(CASES)),
    fill=st.sampled_from([0.0, 1e3, float("nan")]),
)
def test_learns_from_clips_of_any_lengths(lengths, name, fill):
    """Of one clip too, and of such as lack streams, or all."""
    case = CASES[name]
    model, inputs = case.config.build(case.shape), []
    for stream, width in enumerate(case.shape.widths):
        valid = torch.arange(3) < torch.tensor([length[stream] for length in lengths])[:, None]
        inputs.append(Tokens(torch.randn(*valid.shape, width).where(valid[..., None], fill), valid))
    scores = model(*inputs)
    class_loss(scores, case.target(len(lengths)), case.config).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    torch.testing.assert_close(scores.probability_BK().sum(1), torch.ones(len(lengths)))


def test_probabilities_and_loss_are_those_of_the_logits():
    model, inputs, target = small().eval(), three_streams(1, 4), target_of(4, 2)
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(*inputs)
        loss = class_loss(scores, target, model.config)
    assert loss.dtype == scores.probability_BK().dtype == torch.float32
    torch.testing.assert_close(
        scores.probability_BK(), model(*inputs).probability_BK(), atol=0.03, rtol=0
    )
    right = scores.probability_BK()[torch.arange(4), target.class_B]
    torch.testing.assert_close(loss, -right.log().mean())
    torch.testing.assert_close(cross_entropy(scores.class_BK, target, model.config), loss)
    assert scores.branches() == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 20}, "width is 20, which heads, 8, does not divide"),
        ({"heads": 0}, "heads is 0; allowed 1 and above"),
        ({"dropout": 1.0}, "dropout is 1.0; allowed 0 to 1, 1 excluded"),
        ({"classifier_dropout": -0.1}, "classifier_dropout is -0.1; allowed 0 to 1, 1 excluded"),
        ({"emb_std": -1.0}, "emb_std is -1.0; allowed 0 and above"),
        ({"most_tokens": 0}, "most_tokens is 0; allowed 1 and above"),
        ({"audio": ()}, "audio names no features; at least one is needed"),
    ],
)
def test_refuses_settings_that_make_no_model(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        CrossModalDetectorConfig(**options)


def test_refuses_labels_of_a_single_class():
    with pytest.raises(UserError, match="classes: 1, but at least 2 needed"):
        CrossModalDetectorConfig().build(InputShape(widths=(4, 4, 4), classes=1))


def test_streams_are_in_the_order_of_forward():
    config = CrossModalDetectorConfig(audio=("audio", "mel"), most_tokens=7)
    assert [stream.name for stream in config.streams] == ["image", "audio", "video"]
    assert config.streams[1].modalities == ("audio", "mel")
    assert {stream.most for stream in config.streams} == {7}
