"""CAAM against the released model, and each of its switches."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from model_case import random_tokens, target_of
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from crosswatch.errors import UserError
from crosswatch.models.caam import Caam, CaamScores, share_of_votes
from crosswatch.models.layers.gated_embedding import GatedEmbedding
from crosswatch.models.settings.caam import CaamConfig, Directed
from crosswatch.models.tokens import Tokens
from crosswatch.records import InputShape
from crosswatch.training.losses.caam import caam_loss
from tests.case_caam import CLASSES, WIDTHS, inputs_of, shape_of, small_config

GOLDEN = np.load(Path(__file__).parent / "golden" / "caam_small.npz")
CLOSE = {"atol": 5e-6, "rtol": 1e-5}
SUFFIXES = ("", "_linear", "_vseq", "_vseq_linear")
LETTERS = {"V": "video", "A": "audio", "T": "text"}
RELEASED_SHAPE = InputShape(classes=20, widths=(4096, 40, 300))
# Released name, ours.
RENAMES = [
    (r"^fusion\.blocks\.0\.", "fuse.asking.shared.first."),
    (r"\.norm1\.", ".norm_attention."),
    (r"\.norm2\.", ".norm_feed_forward."),
    (r"\.cross_attn\.w_q\.", ".attention.to_query."),
    (r"\.cross_attn\.w_k\.", ".attention.to_key."),
    (r"\.cross_attn\.w_v\.", ".attention.to_value."),
    (r"\.cross_attn\.w_concat\.", ".attention.to_out."),
    (r"\.mlp\.fc1\.", ".feed_forward.0."),
    (r"\.mlp\.fc2\.", ".feed_forward.3."),
    (r"^classifier1\.", "score.va."),
    (r"^classifier2\.", "score.at."),
    (r"^classifier3\.", "score.tv."),
    (r"\.layer_1\.", ".0."),
    (r"\.layer_2\.", ".2."),
    (r"\.layer_3\.", ".4."),
    (r"^gu_2d\.fc\.", "embed."),
    (r"^gu_2d\.cg\.fc\.", "gate."),
]


def golden(name: str) -> Tensor:
    return torch.from_numpy(GOLDEN[name]).float()


def golden_weights(*, gated: bool) -> dict[str, Tensor]:
    weights = {}
    for name in GOLDEN.files:
        if name.startswith("w.") and name.startswith("w.gu_") == gated:
            renamed = name.removeprefix("w.")
            for pattern, ours in RENAMES:
                renamed = re.sub(pattern, ours, renamed)
            weights[renamed] = golden(name)
    return weights


def golden_model(suffix: str, **changes: Any) -> Caam:
    config = CaamConfig(
        **{"width": 32, "heads": 4, "audio_frontend": "none", "masks": False}
        | {"softmax": "linear" not in suffix}
        | changes
    )
    model = config.build(InputShape(classes=20, widths=(4, 4, 4))).eval()
    weights = golden_weights(gated=False)
    # Where attentions or classifiers are others, those of the released model are left out.
    theirs = {name: weight for name, weight in weights.items() if name in model.state_dict()}
    if not changes:
        assert theirs.keys() == weights.keys()
    missing = model.load_state_dict(
        {name: w for name, w in theirs.items() if w.shape == model.state_dict()[name].shape},
        strict=False,
    ).missing_keys
    assert all(name.startswith(("embed.", "score.")) for name in missing)
    return model


def golden_tokens(suffix: str) -> dict[str, Tokens]:
    video = golden("in_video_seq" if "vseq" in suffix else "in_video")
    values = {"video": video, "audio": golden("in_audio"), "text": golden("in_text")}
    return {
        name: Tokens(each, torch.ones(each.shape[:2], dtype=torch.bool))
        for name, each in values.items()
    }


def directed(letters: str) -> Directed:
    key, query = letters
    return Directed(LETTERS[key], LETTERS[query])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_attention_is_the_released_one(suffix):
    model, tokens = golden_model(suffix), golden_tokens(suffix)
    for letters in ("VA", "AV", "AT", "TA", "TV", "VT"):
        asked, _ = model.fuse.attend(directed(letters), tokens)
        name = "out_tokens_k{}_q{}".format(*letters) + suffix
        torch.testing.assert_close(asked.values_BLD, golden(name), **CLOSE)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_pairs_logits_and_soft_vote_are_the_released_ones(suffix):
    model = golden_model(suffix)
    known = model.fuse(golden_tokens(suffix)).groups
    logits = {}
    for pair in ("VA", "AT", "TV"):
        feature = known[pair.lower()]
        torch.testing.assert_close(feature, golden(f"out_pair_{pair}{suffix}"), **CLOSE)
        logits[pair] = model.score[pair.lower()](feature)
        torch.testing.assert_close(logits[pair], golden(f"out_logits_{pair}{suffix}"), **CLOSE)
    voted = CaamScores(logits, "soft", {}).probability_BK()
    torch.testing.assert_close(voted, golden(f"out_mean_logits{suffix}").softmax(-1), **CLOSE)


def test_a_group_of_a_fixed_key_knows_one_mean_of_both_queries():
    model = golden_model("_vseq", topology="fixed_key")
    known = model.fuse(golden_tokens("_vseq")).groups
    assert known.keys() == {"video", "audio", "text"}
    for key, queries in {"V": "AT", "A": "VT", "T": "VA"}.items():
        asked = [golden(f"out_tokens_k{key}_q{query}_vseq") for query in queries]
        expected = torch.cat(asked, dim=1).mean(1)
        torch.testing.assert_close(known[LETTERS[key]], expected, **CLOSE)


def test_ca3_has_the_first_half_of_every_pair():
    known = golden_model("", topology="ca3").fuse(golden_tokens("")).groups
    for pair in ("VA", "AT", "TV"):
        torch.testing.assert_close(known[pair.lower()], golden(f"out_pair_{pair}")[:, :32], **CLOSE)


@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_gated_embedding_is_the_released_one(kind):
    gated = GatedEmbedding(24, 32)
    gated.load_state_dict(golden_weights(gated=True))
    torch.testing.assert_close(gated(golden(f"in_gu_{kind}")), golden(f"out_gu_{kind}"), **CLOSE)


def test_eps_of_the_norms_is_seen():
    exact = golden_model("").fuse(golden_tokens("")).groups["va"]
    larger = golden_model("", eps=1e-5).fuse(golden_tokens("")).groups["va"]
    assert not torch.allclose(exact, larger, **CLOSE)


def released_counts() -> dict[str, int]:
    with torch.device("meta"):
        model = CaamConfig().build(RELEASED_SHAPE)
    return {name: size(part) for name, part in model.named_modules()} | {"all": size(model)}


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_released_sizes():
    counts = released_counts()
    assert counts["all"] == 334_539_452
    assert counts["embed.audio.encoder"] == 314_710_016
    assert counts["all"] - counts["embed.audio.encoder"] == 19_829_436
    assert counts["embed.video.gated"] == counts["embed.audio.gated"] == 5_244_928
    assert counts["embed.text.gated"] == 1_357_824
    assert counts["fuse"] == 6_301_696
    assert [counts[f"score.{pair}"] for pair in ("va", "at", "tv")] == 3 * [560_020]


@pytest.mark.parametrize(
    ("topology", "inputs"),
    [("ca3", 1024), ("fixed_key", 1024), ("alternating", 2048), ("stacked_alternating", 2048)],
)
def test_topologies_have_one_block_and_classifiers_of_one_shape(topology, inputs):
    with torch.device("meta"):
        model = CaamConfig(topology=topology).build(RELEASED_SHAPE)
    assert size(model.fuse) == 6_301_696
    for head in model.score.values():
        linears = [part for part in head if isinstance(part, nn.Linear)]
        assert [each.in_features for each in linears] == [inputs, 256, 128]
        assert linears[-1].out_features == 20


def test_own_blocks_for_every_attention():
    blocks = {
        topology: size(small(topology=topology, share_block=False).fuse)
        / size(small(topology=topology).fuse)
        for topology in ("ca3", "fixed_key", "alternating", "stacked_alternating")
    }
    assert blocks == {"ca3": 3, "fixed_key": 6, "alternating": 6, "stacked_alternating": 6}


def small(**changes: Any) -> Caam:
    torch.manual_seed(0)
    config = small_config(**changes)
    return config.build(shape_of(config)).eval()


def scores(model: Caam, *, seed: int = 1, count: int = 3) -> CaamScores:
    with torch.no_grad():
        return model(*inputs_of(model.config, seed, count))


def differ(one: CaamScores, other: CaamScores) -> bool:
    return not torch.allclose(one.probability_BK(), other.probability_BK(), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "groups"),
    [
        ({"modalities": ("video",)}, {"video": []}),
        ({"modalities": ("text", "video")}, {"tv": ["video_asks_text", "text_asks_video"]}),
        ({"modalities": ("video", "audio")}, {"va": ["audio_asks_video", "video_asks_audio"]}),
        ({"modalities": ("audio", "text")}, {"at": ["text_asks_audio", "audio_asks_text"]}),
        (
            {"modalities": ("audio", "text"), "topology": "fixed_key"},
            {"audio": ["text_asks_audio"], "text": ["audio_asks_text"]},
        ),
        (
            {"topology": "ca3"},
            {"va": ["audio_asks_video"], "at": ["text_asks_audio"], "tv": ["video_asks_text"]},
        ),
        (
            {"topology": "fixed_key"},
            {
                "video": ["audio_asks_video", "text_asks_video"],
                "audio": ["video_asks_audio", "text_asks_audio"],
                "text": ["video_asks_text", "audio_asks_text"],
            },
        ),
    ],
)
def test_groups_and_their_attentions(changes, groups):
    model = small(**changes)
    found = scores(model)
    assert {
        name: [each.name for each in group] for name, group in model.config.groups.items()
    } == groups
    assert found.maps.keys() == {name for names in groups.values() for name in names}
    assert found.logits.keys() == found.branches().keys() == groups.keys()
    for name, probability in found.branches().items():
        torch.testing.assert_close(probability, found.logits[name].softmax(-1))


def test_a_single_modality_has_no_attention():
    model = small(modalities=("audio",))
    assert size(model.fuse) == 0
    audio = inputs_of(model.config, 1, 3)[0]
    mean = model.embed["audio"](audio).mean()
    torch.testing.assert_close(scores(model).logits["audio"], model.score["audio"](mean))


def test_the_stack_takes_every_pair_in_turn_and_exchanges_roles():
    config = CaamConfig(topology="stacked_alternating")
    order = ("VA", "TA", "TV", "AV", "AT", "VT")
    assert config.stack == tuple(map(directed, order))
    deeper = dataclasses.replace(config, depth=8)
    assert deeper.stack == (*config.stack, *config.stack[:2])
    two = dataclasses.replace(config, modalities=("video", "text"))
    assert two.stack == (directed("TV"), directed("VT"))


def test_stacked_blocks_see_what_those_before_made():
    model = small(topology="stacked_alternating", depth=3, share_block=False).double()
    tokens = embedded(model)
    first, second, third = (asking.first for asking in model.fuse.asking)
    audio = first(tokens["audio"].values_BLD, tokens["video"].values_BLD, **keys(tokens["video"]))
    audio = second(audio.values_BQD, tokens["text"].values_BLD, **keys(tokens["text"])).values_BQD
    video = third(tokens["video"].values_BLD, tokens["text"].values_BLD, **keys(tokens["text"]))
    audio_mean = Tokens(audio, tokens["audio"].valid_BL).mean()
    video_mean = Tokens(video.values_BQD, tokens["video"].valid_BL).mean()
    known = model.fuse(tokens)
    torch.testing.assert_close(known.groups["va"], torch.cat((audio_mean, video_mean), -1))
    expected = torch.cat((tokens["text"].mean(), audio_mean), -1)
    torch.testing.assert_close(known.groups["at"], expected)
    assert list(known.maps) == ["0_audio_asks_video", "1_audio_asks_text", "2_video_asks_text"]


def test_deeper_attentions_ask_with_their_answers():
    model = small(depth=2).double()
    tokens = embedded(model)
    text, audio = tokens["text"], tokens["audio"]
    asked = text.values_BLD
    shared = model.fuse.asking["shared"]
    for block in (shared.first, *shared.others):
        asked = block(asked, audio.values_BLD, **keys(audio)).values_BQD
    found, _ = model.fuse.attend(directed("AT"), tokens)
    torch.testing.assert_close(found.values_BLD, asked)


def embedded(model: Caam) -> dict[str, Tokens]:
    generator = torch.Generator().manual_seed(7)
    return {
        name: Tokens(
            torch.randn(2, length, model.config.width, generator=generator, dtype=torch.float64),
            torch.arange(length) < torch.tensor([[length], [length - 1]]),
        )
        for name, length in {"video": 3, "audio": 4, "text": 5}.items()
    }


def keys(tokens: Tokens) -> dict[str, Tensor]:
    return {"valid_BK": tokens.valid_BL}


def test_pooled_video_is_one_key_and_frames_are_several():
    assert scores(small()).maps["audio_asks_video"].shape[-1] == 1
    assert scores(small(video_tokens="frames")).maps["audio_asks_video"].shape[-1] == 4
    assert small_config(encoders="paper").frames
    assert not small_config(encoders="paper", video_tokens="pooled").frames


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({"audio_frontend": "none"}, 40),
        ({"audio_frontend": "small"}, 3),
        ({"audio_frontend": "gru"}, 40),
        ({"audio_frontend": None, "encoders": "paper"}, 40),
        ({"audio_frontend": "small", "masks": False, "audio_columns": 100}, 7),
    ],
)
def test_tokens_of_each_front_end(changes, tokens):
    assert scores(small(**changes)).maps["text_asks_audio"].shape[-1] == tokens


def test_front_end_follows_the_encoders_unless_named():
    assert CaamConfig().frontend == "davenet_v2"
    assert CaamConfig(encoders="paper").frontend == "gru"
    assert CaamConfig(encoders="paper", audio_frontend="small").frontend == "small"


def test_encoder_width_and_depth():
    paper = {"encoders": "paper", "audio_frontend": "gru"}
    model = small(**paper, encoder_width=24, encoder_depth=3)
    assert model.embed["audio"].encoder.out_width == 48
    assert model.embed["text"].encoder.out_width == 24
    assert len(model.embed["text"].encoder.blocks) == 3


@pytest.mark.parametrize(("encoders", "matters"), [("released", False), ("paper", True)])
def test_the_order_of_words_matters_to_the_paper_s_encoder(encoders, matters):
    model = small(encoders=encoders)
    video, audio, text = inputs_of(model.config, 1, 1)
    back = Tokens(text.values_BLD.flip(1), text.valid_BL.flip(1))
    with torch.no_grad():
        assert differ(model(video, audio, text), model(video, audio, back)) == matters


def test_attention_is_split_in_heads():
    model, single = small(), small(heads=1)
    for parameter in model.fuse.parameters():
        nn.init.normal_(parameter, std=0.5)
    single.load_state_dict(model.state_dict())
    assert scores(model).maps["text_asks_audio"].shape[1] == 4
    assert differ(scores(model), scores(single))


def test_maps_of_softmax_sum_to_one_and_teach_nothing():
    found = small()(*inputs_of(small_config(), 1, 3))
    for weight in found.maps.values():
        torch.testing.assert_close(weight.sum(-1), torch.ones(weight.shape[:-1]))
        assert not weight.requires_grad
    linear = scores(small(softmax=False)).maps["text_asks_audio"]
    assert (linear < 0).any()


def test_mlp_ratio_sets_the_hidden_width():
    model = small(mlp_ratio=2.5)
    assert model.fuse.asking["shared"].first.feed_forward[0].out_features == 80


def test_linears_of_a_block_begin_small_and_without_bias():
    block = small(width=128).fuse.asking["shared"].first
    linears = [part for part in block.modules() if isinstance(part, nn.Linear)]
    assert len(linears) == 6
    for linear in linears:
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not linear.bias.any()


def test_released_padding_is_seen_and_as_long_as_ever():
    model, masked = small(masks=False, text_words=7), small()
    masked.load_state_dict(model.state_dict())
    assert differ(scores(model), scores(masked))
    found = scores(model)
    assert found.maps["audio_asks_text"].shape[-1] == 7
    video, audio, text = inputs_of(model.config, 1, 3)
    zeros = torch.cat((text.cleared(), torch.zeros(3, 2, WIDTHS["text"])), dim=1)
    everything = Tokens(zeros, torch.ones(3, 7, dtype=torch.bool))
    columns = torch.nn.functional.pad(audio.cleared(), (0, 0, 0, 8))
    sound = Tokens(columns, torch.ones(3, 48, dtype=torch.bool))
    with torch.no_grad():
        assert not differ(masked(video, sound, everything), found)


def test_a_clip_of_nothing_is_scored():
    for changes in ({}, {"masks": False}, {"audio_frontend": "gru"}, {"encoders": "paper"}):
        model = small(**changes)
        nothing = [
            Tokens(torch.zeros(2, 0, width), torch.zeros(2, 0, dtype=torch.bool))
            for width in WIDTHS.values()
        ]
        assert model(*nothing).probability_BK().isfinite().all()


def test_a_missing_stream_has_a_zero_mean():
    model = small()
    tokens = embedded(model.double())
    tokens["audio"] = Tokens(tokens["audio"].values_BLD, torch.zeros(2, 4, dtype=torch.bool))
    known = model.fuse(tokens)
    width = model.config.width
    assert not known.groups["va"][:, :width].any()
    assert known.groups["va"][:, width:].any()
    assert not known.maps["text_asks_audio"].any()


def test_votes_on_logits_that_disagree():
    # Two groups prefer class 1 a little, the third class 0 by far.
    logits = {"va": [0.0, 1.0, 0.0], "at": [0.0, 1.0, 0.0], "tv": [9.0, 0.0, 0.0]}
    groups = {name: torch.tensor([values]) for name, values in logits.items()}
    found = {
        vote: CaamScores(groups, vote, {}).probability_BK()
        for vote in ("soft", "probability", "hard")
    }
    assert {vote: int(each.argmax()) for vote, each in found.items()} == {
        "soft": 0, "probability": 0, "hard": 1}  # fmt: skip
    torch.testing.assert_close(found["soft"], torch.tensor([[3.0, 2 / 3, 0.0]]).softmax(-1))
    mean = torch.stack([each.softmax(-1) for each in groups.values()]).mean(0)
    torch.testing.assert_close(found["probability"], mean)
    torch.testing.assert_close(
        found["hard"], torch.tensor([[1 / 3, 2 / 3, 0.0]]), atol=0.01, rtol=0
    )


@given(st.integers(1, 4), st.integers(2, 6), st.sampled_from([0.1, 1.0, 100.0]), st.integers(0))
def test_most_votes_win_and_ties_go_to_the_mean_logits(groups, classes, scale, seed):
    generator = torch.Generator().manual_seed(seed % 2**63)
    logits = scale * torch.randn(groups, 5, classes, generator=generator)
    share = share_of_votes(logits)
    torch.testing.assert_close(share.sum(-1), torch.ones(5))
    for clip in range(5):
        votes = logits[:, clip].argmax(-1).bincount(minlength=classes)
        first = [k for k in range(classes) if votes[k] == votes.max()]
        winner = max(first, key=lambda k, clip=clip: logits[:, clip, k].mean().item())
        assert share[clip].argmax() == winner
        torch.testing.assert_close(share[clip], votes / groups, atol=0.0101, rtol=0)


def test_loss_is_the_sum_over_the_groups():
    config = small_config()
    found, target = scores(small()), target_of(3, CLASSES)
    expected = sum(cross_entropy(logits, target.class_B) for logits in found.logits.values())
    torch.testing.assert_close(caam_loss(found, target, config), expected)


def test_probabilities_are_float32_under_autocast():
    model = small()
    with torch.autocast("cpu", torch.bfloat16):
        found = model(*inputs_of(model.config, 1, 3))
        assert found.logits["va"].dtype == torch.bfloat16
        assert found.probability_BK().dtype == torch.float32
    exact = scores(model).probability_BK()
    torch.testing.assert_close(found.probability_BK(), exact, atol=0.02, rtol=0)


def test_streams_in_the_order_of_forward():
    config = CaamConfig(video=("2d_pooled", "3d_pooled"), audio=("audio",), text=("word2vec",))
    video, audio, text = config.streams
    assert (video.modalities, video.most, video.shorten, video.unit) == (
        ("2d_pooled", "3d_pooled"), 48, "pool", True)  # fmt: skip
    assert (audio.modalities, audio.most, audio.shorten, audio.unit) == (
        ("audio",), 5120, "cut", False)  # fmt: skip
    assert (text.modalities, text.most, text.shorten, text.unit) == (
        ("word2vec",), 30, "cut", False)  # fmt: skip
    changed = CaamConfig(
        modalities=("text", "video"), unit_video=False, video_frames=12, text_words=20
    )
    assert [(each.name, each.most, each.unit) for each in changed.streams] == [
        ("video", 12, False), ("text", 20, False)]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"heads": 7}, "width is 1024, which heads, 7, does not divide"),
        ({"depth": 0}, "depth is 0; allowed 1 and above"),
        ({"audio_columns": 0}, "audio_columns is 0; allowed 1 and above"),
        ({"eps": 0.0}, "eps is 0.0; allowed 1e-12 and above"),
        ({"mlp_ratio": 0.0}, "mlp_ratio is 0.0, of width 1024"),
        ({"encoders": "paper", "encoder_width": 20}, "encoder_width is 20; encoders: paper needs"),
        ({"modalities": ()}, "modalities are []; name one or more of video, audio, text"),
        ({"modalities": ("text", "text")}, "modalities are ['text', 'text']; name one or more"),
        ({"text": ()}, "text names no features. Name some, or leave text out of modalities"),
    ],
)
def test_refuses_settings(changes, words):
    with pytest.raises(UserError, match=re.escape(words)):
        CaamConfig(**changes)


def test_a_modality_that_is_left_out_needs_no_features():
    assert CaamConfig(modalities=("video", "text"), audio=()).used == ("video", "text")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ({"classes": 1, "widths": (4, 4, 4)}, "classes: 1, but at least 2 needed."),
        ({"widths": (4, 0, 4)}, "audio: mel have no features. Name others, or leave audio out"),
    ],
)
def test_refuses_shapes(shape, words):
    with pytest.raises(UserError, match=re.escape(words)):
        small_config().build(InputShape(**shape))


def test_rows_that_are_not_valid_do_not_enter_the_pooled_token():
    video = random_tokens(WIDTHS["video"], count=3, length=4, seed=5)
    model = small()
    _, audio, text = inputs_of(model.config, 1, 3)
    one = Tokens(video.mean()[:, None], torch.ones(3, 1, dtype=torch.bool))
    with torch.no_grad():
        assert not differ(model(video, audio, text), model(one, audio, text))
