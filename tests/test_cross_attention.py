"""The laws of the cross-attention that the models of features share."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from crosswatch import progress
from crosswatch.models.layers.cross_attention import Attention, AttentionBlock

SIZES = {
    "heads": st.sampled_from([1, 2, 4]),
    "batch": st.integers(1, 3),
    "queries": st.integers(1, 5),
    "keys": st.integers(1, 5),
}


def twins(width: int, heads: int) -> tuple[Attention, nn.MultiheadAttention]:
    ours, torchs = Attention(width, heads), nn.MultiheadAttention(width, heads, batch_first=True)
    with torch.no_grad():
        for parameter in torchs.parameters():
            parameter.normal_()
        thirds = zip(torchs.in_proj_weight.chunk(3), torchs.in_proj_bias.chunk(3), strict=True)
        projections = (ours.to_query, ours.to_key, ours.to_value)
        for projection, (weight, bias) in zip(projections, thirds, strict=True):
            projection.weight.copy_(weight)
            projection.bias.copy_(bias)
        ours.to_out.load_state_dict(torchs.out_proj.state_dict())
    return ours, torchs


@settings(max_examples=40, deadline=None)
@given(**SIZES, seed=st.integers(0, 99), padded=st.booleans(), windowed=st.booleans())
def test_is_torchs_attention(heads, batch, queries, keys, seed, padded, windowed):
    torch.manual_seed(seed)
    ours, torchs = twins(8, heads)
    asks, answers = torch.randn(batch, queries, 8), torch.randn(batch, keys, 8)
    valid, allowed = torch.rand(batch, keys) > 0.4, torch.rand(queries, keys) > 0.4
    valid[:, 0] = allowed[:, 0] = True  # torch's gives NaN for a query that sees nothing
    masks = {"valid_BK": valid if padded else None, "allowed_QK": allowed if windowed else None}
    found = ours(asks, answers, **masks)
    values, weight = torchs(
        asks, answers, answers, average_attn_weights=False,
        key_padding_mask=~valid if padded else None, attn_mask=~allowed if windowed else None,
    )  # fmt: skip
    torch.testing.assert_close(found.values_BQD, values, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(found.weight_BHQK, weight, atol=1e-5, rtol=1e-4)


def test_begins_as_torchs_attention_does():
    torch.manual_seed(1)
    ours, torchs = Attention(64, 4), nn.MultiheadAttention(64, 4)
    for projection in (ours.to_query, ours.to_key, ours.to_value):
        bound = torchs.in_proj_weight.abs().max().item()
        assert projection.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
        assert not projection.bias.any()
    bound = torchs.out_proj.weight.abs().max().item()
    assert ours.to_out.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert not ours.to_out.bias.any()


@settings(max_examples=40, deadline=None)
@given(**SIZES, more=st.integers(1, 4), garbage=st.sampled_from([-1e4, 0.0, 1e4]))
def test_padding_changes_nothing(heads, batch, queries, keys, more, garbage):
    attention = Attention(8, heads).eval()
    asks, answers = torch.randn(batch, queries, 8), torch.randn(batch, keys, 8)
    valid = torch.ones(batch, keys, dtype=torch.bool)
    longer = torch.cat((answers, torch.full((batch, more, 8), garbage)), dim=1)
    padded = torch.cat((valid, torch.zeros(batch, more, dtype=torch.bool)), dim=1)
    expected, found = attention(asks, answers), attention(asks, longer, valid_BK=padded)
    torch.testing.assert_close(found.values_BQD, expected.values_BQD)
    torch.testing.assert_close(found.weight_BHQK[..., :keys], expected.weight_BHQK)
    assert not found.weight_BHQK[..., keys:].any()


def test_of_one_key_nothing_depends_on_what_asks():
    attention = Attention(8, 2)
    answers = torch.randn(3, 1, 8)
    first, second = (attention(torch.randn(3, 4, 8), answers) for _ in range(2))
    torch.testing.assert_close(first.values_BQD, second.values_BQD)
    assert (first.weight_BHQK == 1).all()
    first.values_BQD.square().sum().backward()
    for projection in (attention.to_query, attention.to_key):
        assert not projection.weight.grad.any()
        assert not projection.bias.grad.any()
    assert attention.to_value.weight.grad.any()


def test_one_key_is_warned_of_once(tmp_path, monkeypatch):
    events = tmp_path / "events"
    monkeypatch.setenv(progress.EVENTS, str(events))
    attention = Attention(8, 2, name="the test's attention")
    attention(torch.randn(1, 2, 8), torch.randn(1, 3, 8))
    assert not events.exists()
    for _ in range(3):
        attention(torch.randn(1, 2, 8), torch.randn(1, 1, 8))
    (warning,) = [json.loads(line)["text"] for line in events.read_text().splitlines()]
    assert warning.startswith("the test's attention sees one key: its map is constant")
    assert "Feed it sequences" in warning


@pytest.mark.parametrize("softmax", [True, False])
@pytest.mark.parametrize("by", ["padding", "window"])
def test_a_query_that_sees_nothing_gets_nothing(softmax, by):
    attention = Attention(8, 2, softmax=softmax)
    asks = torch.randn(2, 3, 8, requires_grad=True)
    answers = torch.randn(2, 4, 8, requires_grad=True)
    if by == "padding":
        masks = {"valid_BK": torch.tensor([[False] * 4, [True] * 4])}
        blind, seeing = (0, slice(None)), (1, slice(None))
    else:
        masks = {"allowed_QK": torch.tensor([[False] * 4, [True] * 4, [True] * 4])}
        blind, seeing = (slice(None), 0), (slice(None), 1)
    found = attention(asks, answers, **masks)
    torch.testing.assert_close(
        found.values_BQD[blind], attention.to_out.bias.expand_as(found.values_BQD[blind])
    )
    assert not found.weight_BHQK.transpose(1, 2)[blind].any()
    found.values_BQD.square().sum().backward()
    inputs = (asks, answers, *attention.parameters())
    assert all(tensor.grad.isfinite().all() for tensor in inputs)
    assert not asks.grad[blind].any()
    assert asks.grad[seeing].any()


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_block_where_nothing_is_seen_stays_finite(norm):
    block = AttentionBlock(8, 2, norm=norm, hidden_width=16)
    asks = torch.randn(2, 3, 8, requires_grad=True)
    nothing = torch.zeros(2, 4, dtype=torch.bool)
    first, second = (block(asks, torch.randn(2, 4, 8), valid_BK=nothing) for _ in range(2))
    torch.testing.assert_close(first.values_BQD, second.values_BQD)
    first.values_BQD.square().sum().backward()
    assert asks.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in block.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_masks_hold_in_half_precision(dtype):
    attention = Attention(8, 2).to(dtype)
    asks, answers = (torch.randn(1, count, 8, dtype=dtype) for count in (2, 3))
    valid = torch.tensor([[True, False, True]])
    found = attention(asks, answers, valid_BK=valid)
    changed = answers.clone()
    changed[:, 1] = 60.0
    torch.testing.assert_close(attention(asks, changed, valid_BK=valid), found)
    assert found.values_BQD.isfinite().all()


def test_blocks_are_what_they_say():
    torch.manual_seed(5)
    asks, answers = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    for norm in ("pre", "post"):
        block = AttentionBlock(8, 2, norm=norm, hidden_width=16).eval()
        first, second, feed = block.norm_attention, block.norm_feed_forward, block.feed_forward
        if norm == "pre":
            middle = asks + block.attention(first(asks), first(answers)).values_BQD
            expected = middle + feed(second(middle))
        else:
            middle = first(asks + block.attention(asks, answers).values_BQD)
            expected = second(middle + feed(middle))
        torch.testing.assert_close(block(asks, answers).values_BQD, expected)
        torch.testing.assert_close(block(asks), block(asks, asks.clone()))
