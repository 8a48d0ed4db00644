"""VadCLIP and ClipFusionVAD: their published sizes and numbers, and what every switch changes."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_case import random_tokens
from torch import Tensor

from crosswatch import config
from crosswatch.errors import UserError
from crosswatch.models.clipfusion_vad import ClipFusionVad, VadScores, likeness, unit
from crosswatch.models.layers.global_attention import GlobalAttention, SeenBatchNorm
from crosswatch.models.layers.graph import GraphConvolution, distance_graph, similarity_graph
from crosswatch.models.layers.lengths import chunks, pool
from crosswatch.models.layers.quick_mlp import QuickMlp
from crosswatch.models.layers.windowed import WindowedTransformer
from crosswatch.models.settings.vad import VadConfig
from crosswatch.models.tokens import Tokens
from crosswatch.records import InputShape

GOLDEN = Path(__file__).parent / "golden"
CLOSE = {"atol": 5e-6, "rtol": 1e-5}
LARGE = {"atol": 1e-4, "rtol": 1e-5}
SCORE = {"atol": 2e-5, "rtol": 1e-5}
SIZES = {
    "ucf": {"layers": 2, "window": 8, "length": 32},
    "xd": {"layers": 3, "window": 16, "length": 32},
}


def golden(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def released_names(like: str) -> dict[str, str]:
    """Ours to theirs, of tensors that are the same."""
    names = {
        "position_LD": "frame_position_embeddings.weight",
        "relate.sigma": "disAdj.sigma",
    }
    for ours, theirs in (
        ("relate.join", "linear"), ("score", "classifier"), ("to_product", "head_video"),
        ("to_aggregate", "u_head_video"), ("branch.widen", "mlp2.c_fc"),
        ("branch.narrow", "mlp2.c_proj"), ("adapt_text.widen", "mlp1.c_fc"),
        ("adapt_text.narrow", "mlp1.c_proj"),
        ("relate.by_similarity.first.residual", "gc1.residual"),
        ("relate.by_distance.first.residual", "gc3.residual"),
        ("attend.channel.0", "gam_attention.channel_attention.0"),
        ("attend.channel.2", "gam_attention.channel_attention.2"),
        ("attend.moment.narrow", "gam_attention.spatial_attention.0"),
        ("attend.moment.norm_narrow", "gam_attention.spatial_attention.1"),
        ("attend.moment.widen", "gam_attention.spatial_attention.3"),
        ("attend.moment.norm_wide", "gam_attention.spatial_attention.4"),
    ):  # fmt: skip
        for part in ("weight", "bias", "running_mean", "running_var"):
            names[f"{ours}.{part}"] = f"{theirs}.{part}"
    for branch, (first, second) in {"similarity": "12", "distance": "34"}.items():
        names[f"relate.by_{branch}.first.weight"] = f"gc{first}.weight"
        names[f"relate.by_{branch}.second.weight"] = f"gc{second}.weight"
    if like.startswith("look_around.blocks."):
        _, _, at, part, *rest = like.split(".")
        theirs = {"norm_attention": "ln_1", "norm_mlp": "ln_2"}.get(part, "")
        if part == "mlp":
            theirs = {"widen": "mlp.c_fc", "narrow": "mlp.c_proj"}[rest.pop(0)]
        if rest[0] == "to_out":
            theirs = f"attn.{'out_proj'}"
            rest.pop(0)
        names[like] = f"temporal.resblocks.{at}.{theirs}.{'.'.join(rest)}"
    return names


def released_weights(arrays: dict[str, Tensor], model: ClipFusionVad) -> dict[str, Tensor]:
    """Of the golden file, by our names."""
    theirs = {name.removeprefix("w."): value for name, value in arrays.items()}
    found = {}
    for name, value in model.state_dict().items():
        if name == "class_text.vector_KD":
            found[name] = arrays["in_text"]
        elif name.endswith("num_batches_tracked"):
            found[name] = value
        elif ".attention.to_" in name and ".to_out." not in name:
            _, _, at, _, which, part = name.split(".")
            packed = theirs[f"temporal.resblocks.{at}.attn.in_proj_{part}"].chunk(3)
            found[name] = packed[["to_query", "to_key", "to_value"].index(which)]
        else:
            found[name] = theirs[released_names(name)[name]]
    return found


def released(name: str, **switches: Any) -> tuple[ClipFusionVad, dict[str, Tensor], Tokens]:
    arrays = golden(name)
    family = {"model": "vadclip" if name.startswith("vadclip") else "clipfusion", "masks": False}
    sizes = SIZES["xd" if name.endswith("xd") else "ucf"]
    model = VadConfig(**(family | sizes | switches)).build(
        InputShape(classes=len(arrays["in_text"]), widths=(32,))
    )
    model.load_state_dict(released_weights(arrays, model))
    valid = torch.arange(32) < arrays["in_lengths"][:, None]
    return model.eval(), arrays, Tokens(arrays["in_feats"], valid)


RELEASED = ["vadclip_small", "vadclip_small_xd", "cfvad_small", "cfvad_small_xd"]


@pytest.mark.parametrize("name", RELEASED)
def test_scores_are_the_released_ones(name: str) -> None:
    model, arrays, visual = released(name)
    with torch.no_grad():
        scores = model(visual)
    torch.testing.assert_close(scores.anomaly_logit_BL, arrays["out_s"][..., 0], **SCORE)
    torch.testing.assert_close(scores.class_logit_BLK, arrays["out_m"], **SCORE)
    assert torch.equal(scores.text_KD, arrays["in_text"])


@pytest.mark.parametrize("name", RELEASED)
@torch.no_grad()
def test_every_step_is_the_released_one(name: str) -> None:
    model, arrays, visual = released(name)
    local = model.look_around(visual.values_BLD + model.position_LD, None)
    torch.testing.assert_close(local, arrays["out_temporal"], **CLOSE)
    alike = similarity_graph(local, visual.valid_BL, compat=True)
    torch.testing.assert_close(alike, arrays["out_adj_sim"], **CLOSE)
    masks = {"valid_BL": visual.valid_BL, "seen_BL": None}
    torch.testing.assert_close(model.relate.branches(local, **masks), arrays["out_u1u2"], **LARGE)
    f = model.relate(local, **masks)
    torch.testing.assert_close(f, arrays["out_f"], **LARGE)
    text, branch = arrays["in_text"], f
    if model.attend is not None:
        f = model.attend(f, None)
        torch.testing.assert_close(f, arrays["out_f_gam"], **LARGE)
        product, aggregate = unit(model.to_product(f)), unit(model.to_aggregate(f))
        torch.testing.assert_close(product, arrays["out_Va"], **CLOSE)
        torch.testing.assert_close(aggregate, arrays["out_Vu"], **CLOSE)
        torch.testing.assert_close(unit(text), arrays["out_tn"], **CLOSE)
        branch = product + aggregate
    torch.testing.assert_close(f + model.branch(branch), arrays["out_classifier_in"], **LARGE)
    shown = aggregate if model.attend is not None else f
    prompted: list[Tensor] = []
    model.adapt_text.register_forward_pre_hook(lambda _, given: prompted.append(given[0]))
    moved = model._video_text(arrays["out_s"][..., 0], shown, text, None)
    torch.testing.assert_close(prompted[0], arrays["out_t_prime"], **CLOSE)
    torch.testing.assert_close(moved, arrays["out_t_dblprime"], **CLOSE)


@pytest.mark.parametrize("name", ["cfvad_small", "cfvad_small_xd"])
def test_without_its_additions_it_is_vadclip_bit_for_bit(name: str) -> None:
    off = {"gam": "none", "aggregator": False, "product": False}
    model, arrays, visual = released(name, **off)
    plain, _, _ = released(name, model="vadclip")
    with torch.no_grad():
        scores, theirs = model(visual), plain(visual)
    torch.testing.assert_close(scores.anomaly_logit_BL, arrays["out_alloff_s"][..., 0], **SCORE)
    torch.testing.assert_close(scores.class_logit_BLK, arrays["out_alloff_m"], **SCORE)
    for ours, other in zip(scores[:3], theirs[:3], strict=True):
        assert torch.equal(ours, other)


UCF, XD = 14, 7


@pytest.mark.parametrize(
    ("model", "classes", "sizes", "count"),
    [
        ("vadclip", UCF, {}, 12_642_306),
        ("vadclip", XD, {"layers": 1, "window": 64}, 9_489_922),
        ("clipfusion", UCF, {}, 14_218_754),
        ("clipfusion", XD, {"layers": 3, "window": 64}, 17_371_138),
    ],
)
def test_parameters_are_as_many_as_released(
    model: Any, classes: int, sizes: dict[str, int], count: int
) -> None:
    prompts = tuple(f"class {at}" for at in range(classes))
    settings = VadConfig(model=model, class_text="clip", prompts=prompts, **sizes)
    with torch.device("meta"):
        built = settings.build(InputShape(classes=classes, widths=(512,)))
    assert sum(each.numel() for each in built.parameters()) == count
    assert [name for name, each in built.named_parameters() if not each.requires_grad] == [
        "relate.sigma"
    ]


def test_every_part_has_as_many_parameters_as_released() -> None:
    settings = VadConfig(class_text="clip", prompts=tuple(f"class {at}" for at in range(UCF)))
    with torch.device("meta"):
        model = settings.build(InputShape(classes=UCF, widths=(512,)))
    parts = {
        "look_around": 6_304_768, "attend": 1_051_136, "relate.by_similarity.first": 786_688,
        "relate.by_similarity.second": 65_536, "relate.by_distance.first": 786_688,
        "relate.by_distance.second": 65_536, "relate.join": 262_656, "relate.sigma": 1,
        "adapt_text": 2_099_712, "branch": 2_099_712, "score": 513, "position_LD": 131_072,
        "class_text": 39_424, "to_product": 262_656, "to_aggregate": 262_656,
    }  # fmt: skip
    found = dict.fromkeys(parts, 0)
    for name, each in model.named_parameters():
        (part,) = (part for part in parts if f"{name}.".startswith(f"{part}."))
        found[part] += each.numel()
    assert found == parts
    assert sum(parts.values()) == 14_218_754


def test_graphs_are_the_released_ones() -> None:
    arrays = golden("vad_graph")
    valid = torch.arange(12) < arrays["seq_len"][:, None]
    alike = similarity_graph(arrays["x"], valid, compat=True)
    torch.testing.assert_close(alike, arrays["adj"], **CLOSE)
    torch.testing.assert_close(distance_graph(12).expand(2, -1, -1), arrays["dis"], **CLOSE)
    first, second = GraphConvolution(16, 8), GraphConvolution(8, 8)
    first.load_state_dict(
        {"weight": arrays["gc_weight"], "residual.weight": arrays["gc_res_w"],
         "residual.bias": arrays["gc_res_b"]}
    )  # fmt: skip
    second.load_state_dict({"weight": arrays["gc2_weight"]})
    out = first(arrays["x"], arrays["adj"])
    torch.testing.assert_close(out, arrays["gc_out"], **CLOSE)
    torch.testing.assert_close(second(out, arrays["dis"]), arrays["gc2_out"], **CLOSE)


def test_snippets_that_are_not_alike_take_no_part_unless_as_released() -> None:
    x = torch.eye(4)[None, [0, 0, 1, 3]] + 0.01
    x[0, 3] = 0  # nothing is like nothing
    valid = torch.tensor([[True, True, True, True]])
    compat = similarity_graph(x, valid, compat=True)
    assert (compat > 0).all()
    own = similarity_graph(x, None, compat=False)
    expected = torch.tensor([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(own[0], expected)


def test_global_attention_is_the_released_one() -> None:
    arrays = golden("gam")
    gam = GlobalAttention(16, "both").eval()
    names = {"channel": "channel_attention", "moment.narrow": "spatial_attention.0",
             "moment.norm_narrow": "spatial_attention.1", "moment.widen": "spatial_attention.3",
             "moment.norm_wide": "spatial_attention.4"}  # fmt: skip
    mine = {}
    for name in gam.state_dict():
        ours = next(each for each in names if name.startswith(f"{each}."))
        mine[name] = arrays[names[ours] + name.removeprefix(ours)]
    gam.load_state_dict(mine)
    torch.testing.assert_close(gam(arrays["x"].mT, None).mT, arrays["out"], **CLOSE)
    everything = torch.ones(2, 12, dtype=torch.bool)
    torch.testing.assert_close(gam(arrays["x"].mT, everything).mT, arrays["out"], **CLOSE)


@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4).filter(lambda all: sum(all) > 1))
@settings(max_examples=20, deadline=None)
def test_batch_norm_is_over_what_is_seen(lengths: list[int]) -> None:
    seen = torch.arange(6) < torch.tensor(lengths)[:, None]
    x = torch.randn(len(lengths), 6, 3)
    ours, theirs = SeenBatchNorm(3), torch.nn.BatchNorm1d(3)
    expected = theirs(x[seen])
    found = ours(torch.where(seen[..., None], x, 1e3), seen)
    torch.testing.assert_close(found[seen], expected)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    if seen.all():
        torch.testing.assert_close(found, torch.nn.BatchNorm1d(3)(x.mT).mT)
        torch.testing.assert_close(SeenBatchNorm(3)(x), found)


def test_one_snippet_has_no_variance_and_is_normed_by_what_is_known() -> None:
    norm = SeenBatchNorm(2)
    seen = torch.tensor([[True, False]])
    found = norm(torch.ones(1, 2, 2), seen)
    torch.testing.assert_close(found[0, 0], torch.ones(2), atol=1e-4, rtol=0)
    assert not norm.running_mean.any()


@pytest.mark.parametrize("length", [1, 5, 8, 9, 16, 17, 20])
def test_videos_are_pooled_and_split_as_released(length: int) -> None:
    arrays = golden("feature_lengths")
    video = arrays[f"f{length}"]
    trained = pool(video, 8) if length > 8 else video
    torch.testing.assert_close(trained, arrays[f"train{length}"][: len(trained)], **CLOSE)
    assert not arrays[f"train{length}"][len(trained) :].any()
    split = arrays[f"split{length}"].reshape(-1, 8, 3)
    for at, piece in enumerate(chunks(length, 8)):
        part = video[piece]
        torch.testing.assert_close(part, split[at, : len(part)], atol=0, rtol=0)
        assert not split[at, len(part) :].any()
    assert not split[at + 1 :].any()  # a last piece of padding, where 8 divides the length


def test_an_empty_bin_takes_the_snippet_at_its_edge() -> None:
    pooled = pool(torch.arange(3.0)[:, None], 5)
    assert pooled[:, 0].tolist() == [0, 0, 1, 1, 2]


@given(length=st.integers(1, 9), window=st.integers(2, 10), heads=st.sampled_from([1, 2]))
@settings(max_examples=25, deadline=None)
def test_windows_do_not_see_each_other(length: int, window: int, heads: int) -> None:
    """The same as attention among all with everything outside of the window masked."""
    transformer = WindowedTransformer(8, layers=2, window=window, heads=heads)
    x = torch.randn(3, length, 8)
    block = torch.arange(length) // window
    expected = x
    for each in transformer.blocks:
        normed = each.norm_attention(expected)
        allowed = block[:, None] == block
        expected = expected + each.attention(normed, normed, allowed_QK=allowed).values_BQD
        hidden = each.mlp.widen(each.norm_mlp(expected))
        expected = expected + each.mlp.narrow(hidden * torch.sigmoid(1.702 * hidden))
    found = transformer(x, None)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    seen = torch.arange(length) < torch.tensor([length, (length + 1) // 2, 0])[:, None]
    garbage = torch.where(seen[..., None], x, 1e3)
    alone = transformer(x[1:2, : (length + 1) // 2], None)
    masked = transformer(garbage, seen)
    torch.testing.assert_close(masked[1:2, : (length + 1) // 2], alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(masked[0], found[0], atol=1e-5, rtol=1e-5)


def test_whole_windows_are_the_released_ones() -> None:
    """The released mask lets the 4 snippets behind the last whole window see nothing; here they are
    a short window."""
    sees = ~golden("vad_graph")["mask20_w8"]
    transformer = WindowedTransformer(8, layers=2, window=8, heads=1).double()
    x = torch.randn(1, 20, 8, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda given: transformer(given, None)[0], x)
    found = jacobian[:, :, 0].abs().amax((1, 3)) > 0
    assert torch.equal(found[:16], sees[:16])
    assert not sees[16:].any()
    assert found[16:, 16:].all()
    assert not found[16:, :16].any()


def test_reading_along_a_direction_is_the_answer_along_it() -> None:
    mlp, direction = QuickMlp(8, 32), torch.randn(1, 8)
    x = torch.randn(5, 8)
    hidden = mlp.widen(x)
    expected = mlp.narrow(hidden * torch.sigmoid(1.702 * hidden))
    torch.testing.assert_close(mlp(x), expected)
    torch.testing.assert_close(mlp.read(x, direction), expected @ direction.T)


SHAPE = InputShape(classes=3, widths=(16,))
SMALL = {"length": 12, "window": 4, "snippets_per_pick": 4}


def built(**switches: Any) -> ClipFusionVad:
    torch.manual_seed(0)
    model = VadConfig(**(SMALL | switches)).build(SHAPE).eval()
    with torch.no_grad():
        for name, each in model.named_parameters():  # away from zeros and ones
            if each.ndim == 1 and name != "relate.sigma":
                each.add_(0.3 * torch.randn_like(each))
    return model


def video(*lengths: int, longest: int = 0, seed: int = 0) -> Tokens:
    longest = longest or max(lengths)
    valid = torch.arange(longest) < torch.tensor(lengths)[:, None]
    chance = torch.Generator().manual_seed(seed)
    values = torch.randn(len(lengths), longest, 16, generator=chance)
    return Tokens(values, valid)


@torch.no_grad()
def seen_by(model: ClipFusionVad, visual: Tokens) -> tuple[Tensor, Tensor]:
    scores: VadScores = model(visual)
    return scores.anomaly_logit_BL, scores.class_logit_BLK


@pytest.mark.parametrize("model", ["vadclip", "clipfusion"])
def test_full_videos_score_the_same_with_masks_and_without(model: str) -> None:
    visual = video(12, 12)
    for ours, other in zip(
        seen_by(built(model=model), visual),
        seen_by(built(model=model, masks=False), visual),
        strict=True,
    ):
        assert torch.equal(ours, other)


@pytest.mark.parametrize("model", ["vadclip", "clipfusion"])
def test_without_masks_padding_to_all_positions_changes_scores(model: str) -> None:
    short, masked = video(5), built(model=model)
    padded = Tokens(torch.nn.functional.pad(short.values_BLD, (0, 0, 0, 7), value=1e3),
                    torch.nn.functional.pad(short.valid_BL, (0, 7)))  # fmt: skip
    released = built(model=model, masks=False)
    for ours, of_padded, theirs, theirs_padded in zip(
        seen_by(masked, short), seen_by(masked, padded),
        seen_by(released, short), seen_by(released, padded), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(of_padded[:, :5], ours)
        torch.testing.assert_close(theirs_padded[:, :5], theirs)  # zeros, whatever stood there
        assert (ours - theirs).abs().max() > 1e-3


def test_batch_norm_learns_from_what_is_seen_alone() -> None:
    visual = video(12, 4)
    trained = {masks: built(masks=masks).train() for masks in (True, False)}
    for each in trained.values():
        each(visual)
    means = [each.attend.moment.norm_wide.running_mean for each in trained.values()]
    assert (means[0] - means[1]).abs().max() > 1e-3


@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=3))
@settings(max_examples=10, deadline=None)
def test_a_long_video_is_scored_in_pieces_that_do_not_know_of_each_other(
    lengths: list[int],
) -> None:
    model, visual = built(), video(*lengths, longest=30)
    anomaly, classes = seen_by(model, visual)
    assert anomaly.shape == (len(lengths), 30)
    assert torch.isfinite(anomaly).all()
    for at, length in enumerate(lengths):
        for start in range(0, length, 12):
            piece = slice(start, min(start + 12, length))
            part = Tokens(
                visual.values_BLD[at : at + 1, piece], visual.valid_BL[at : at + 1, piece]
            )
            alone, alone_classes = seen_by(model, part)
            torch.testing.assert_close(anomaly[at, piece], alone[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(classes[at, piece], alone_classes[0], atol=1e-4, rtol=1e-4)


def test_training_takes_no_more_than_all_positions() -> None:
    with pytest.raises(AssertionError, match="at most 12 snippets"):
        built().train()(video(13))


@pytest.mark.parametrize("switches", [{}, {"model": "vadclip"}, {"masks": False},
                                      {"compat_graph": False}])  # fmt: skip
def test_videos_without_a_snippet_are_undecided(switches: dict[str, Any]) -> None:
    model = built(**switches).train()
    for visual in (video(0, 4, 1), video(0, 0, longest=3), video(1), Tokens(
        torch.zeros(2, 0, 16), torch.zeros(2, 0, dtype=torch.bool)
    )):  # fmt: skip
        scores = model(visual)
        nothing = ~visual.valid_BL.any(1)
        found = torch.cat((scores.anomaly_B()[:, None], scores.probability_BK()), dim=1)
        found.square().sum().backward()
        assert torch.isfinite(found).all()
        assert (scores.anomaly_B()[nothing] == 0.5).all()
        torch.testing.assert_close(
            scores.probability_BK()[nothing],
            torch.full((1, 3), 1 / 3).expand(int(nothing.sum()), 3),
        )
        assert all(
            torch.isfinite(each.grad).all() for each in model.parameters() if each.grad is not None
        )


CHANGES: dict[str, dict[str, Any]] = {
    "gam none": {"gam": "none"},
    "gam channel": {"gam": "channel"},
    "gam spatial": {"gam": "spatial"},
    "no aggregator": {"aggregator": False},
    "no product": {"product": False},
    "no layers": {"layers": 0},
    "window": {"window": 2},
    "heads": {"heads": 4},
    "no similarity": {"similarity_graph": False},
    "no distance": {"distance_graph": False},
    "no graphs": {"similarity_graph": False, "distance_graph": False},
    "graph": {"compat_graph": False},
    "no branch": {"score_branch": False},
    "no prompt": {"aggregator": False, "visual_prompt": False},
    "vadclip": {"model": "vadclip"},
}


def adopted(model: ClipFusionVad, weights: dict[str, Tensor]) -> ClipFusionVad:
    """Those of its weights that fit."""
    own = model.state_dict()
    fitting = {name: each for name, each in weights.items()
               if name in own and own[name].shape == each.shape}  # fmt: skip
    model.load_state_dict(fitting, strict=False)
    return model


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_switch_changes_scores_and_trains(change: dict[str, Any]) -> None:
    usual, visual = built(), video(12, 7)
    changed = adopted(built(**change), usual.state_dict())
    ours, theirs = seen_by(usual, visual), seen_by(changed, visual)
    assert max((a - b).abs().max() for a, b in zip(ours, theirs, strict=True)) > 1e-4
    scores = changed.train()(visual)
    loss = scores.anomaly_logit_BL.square().sum() + scores.class_logit_BLK[:, :, 1].sum()
    loss.backward()
    unreached = [name for name, each in changed.named_parameters() if each.grad is None]
    assert unreached in ([], ["relate.sigma"])


@pytest.mark.parametrize(
    ("aggregator", "product"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_the_branch_takes_the_sum_of_the_projections_that_there_are(
    aggregator: bool, product: bool
) -> None:
    model = built(aggregator=aggregator, product=product)
    f, va, vu = torch.randn(3, 2, 5, 16)
    found = model._branch_input(f, va if product else None, vu if aggregator else None)
    assert torch.equal(found, (va * product + vu * aggregator) if aggregator or product else f)


def test_scores_of_moments_videos_and_branches() -> None:
    scores = built()(video(9, 4))
    anomaly, classes = scores.moments()
    assert anomaly.dtype == classes.dtype == torch.float32
    torch.testing.assert_close(classes.sum(-1), torch.ones(2, 9))
    highest = anomaly[0].sort(descending=True).values[:3].mean()  # 9 // 4 + 1
    torch.testing.assert_close(scores.branches()["binary"][0], torch.stack((1 - highest, highest)))
    torch.testing.assert_close(scores.probability_BK().sum(1), torch.ones(2))


def test_bf16_leaves_the_graph_and_probabilities_in_float32() -> None:
    model = built().train()
    with torch.autocast("cpu", torch.bfloat16):
        graph = model.relate.branches(torch.randn(2, 5, 16).bfloat16(), valid_BL=None, seen_BL=None)
        scores = model(video(12, 7))
    assert graph.dtype == scores.class_logit_BLK.dtype == torch.float32
    assert scores.probability_BK().dtype == scores.moments()[0].dtype == torch.float32
    scores.probability_BK().square().sum().backward()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": "vadclip", "gam": "both"}, "vadclip has gam none.*got gam both.*clipfusion"),
        ({"model": "vadclip", "product": True}, "and product true"),
        ({"visual_prompt": False}, "aggregator makes the visual prompt.*aggregator: false"),
        ({"prompts": ("a",)}, "class_text is learned, which reads none"),
        ({"class_text": "clip", "prompts": ("a", " ")}, "one is empty"),
        ({"visual": ()}, "visual names no features"),
        ({"window": 1}, "window is 1; allowed 2"),
        ({"layers": -1}, "layers is -1; allowed 0"),
        ({"snippets_per_pick": 0}, "snippets_per_pick is 0; allowed 1"),
        ({"losses": {"binary": 0.0, "align": 0.0}}, "binary and align are both 0"),
        ({"losses": {"separation": -1.0}}, "separation is -1.0; allowed 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        config.build(VadConfig, given, where="train.model")


@pytest.mark.parametrize(
    ("given", "shape", "words"),
    [
        ({}, {"classes": 1, "widths": (16,)}, "classes: 1, but at least 2"),
        ({}, {"widths": (3,)}, "features motion are 3 wide; at least 4"),
        ({"heads": 3}, {"widths": (16,)}, "heads is 3, and features motion are 16 wide"),
        ({"class_text": "clip", "prompts": ("a",)}, {"widths": (16,)},
         "a text for each of 2 classes.*prompts has 1"),
    ],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(
    given: dict[str, Any], shape: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        VadConfig(**given).build(InputShape(**shape))


def test_additions_are_those_of_the_model_unless_told() -> None:
    assert VadConfig().additions == ("both", True, True)
    assert VadConfig(model="vadclip", gam="none").additions == ("none", False, False)
    assert VadConfig(gam="channel", product=False).additions == ("channel", True, False)
    (stream,) = dataclasses.replace(VadConfig(), visual=("clip",)).streams
    assert (stream.modalities, stream.most, stream.shorten) == (("clip",), 256, "pool")


def test_likeness_is_the_cosine_over_the_temperature() -> None:
    frames, texts = torch.randn(2, 4, 8), torch.randn(2, 3, 8)
    expected = torch.cosine_similarity(frames[:, :, None], texts[:, None], dim=-1) / 0.07
    torch.testing.assert_close(likeness(frames, texts), expected, atol=1e-5, rtol=1e-5)
    assert not likeness(torch.zeros(1, 1, 8), texts).any()


def test_garbage_in_padding_reaches_no_gradient() -> None:
    model = built().train()
    tokens = random_tokens(16, count=4, length=9, seed=1)
    gradients = []
    for fill in (0.0, 1e3):
        model.zero_grad()
        values = tokens.values_BLD.masked_fill(~tokens.valid_BL[..., None], fill)
        scores = model(Tokens(values, tokens.valid_BL))
        (scores.probability_BK().square().sum() + scores.anomaly_B().sum()).backward()
        gradients.append([each.grad for each in model.parameters() if each.grad is not None])
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.equal(ours, theirs)
