"""Front-ends over log-mel columns: sizes, and padding that nothing can see."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from crosswatch.models.layers.audio_frontends import (
    DAVENET_BLOCKS,
    ConvolutionalFrontend,
    GruFrontend,
    ValidBatchNorm,
    halved,
)
from crosswatch.models.layers.word_encoder import sines
from crosswatch.models.tokens import Tokens

BANDS = 5
FRONTENDS = {
    "davenet": lambda: ConvolutionalFrontend(BANDS, (3, 4, 4, 5, 5, 6), DAVENET_BLOCKS),
    "small": lambda: ConvolutionalFrontend(BANDS, (3, 4), (1, 1)),
    "gru": lambda: GruFrontend(BANDS, 4),
}
PER_TOKEN = {"davenet": 64, "small": 4, "gru": 1}


def columns(lengths: list[int], longest: int, seed: int = 0) -> Tokens:
    valid = torch.arange(longest) < torch.tensor(lengths)[:, None]
    values = torch.randn(len(lengths), 400, BANDS, generator=torch.Generator().manual_seed(seed))
    garbage = torch.where(valid[..., None], values[:, :longest], 1e3)
    return Tokens(garbage, valid)


def test_davenet_makes_80_tokens_of_5120_columns():
    frontend = FRONTENDS["davenet"]().eval()
    with torch.no_grad():
        tokens = frontend(Tokens(torch.zeros(1, 5120, BANDS), torch.ones(1, 5120).bool()))
    assert tokens.values_BLD.shape == (1, 80, 6)
    assert tokens.valid_BL.all()


@settings(max_examples=10, deadline=None)
@given(
    name=st.sampled_from(sorted(FRONTENDS)),
    lengths=st.lists(st.integers(1, 150), min_size=1, max_size=2),
    more=st.integers(0, 100),
)
def test_a_clip_gives_the_tokens_that_it_gives_alone(name, lengths, more):
    torch.manual_seed(0)
    frontend = FRONTENDS[name]()
    for _ in range(2):  # running statistics other than 0 and 1
        frontend(columns([200, 150], 200, seed=3))
    frontend.eval()
    batch = columns(lengths, max(lengths) + more)
    with torch.no_grad():
        together = frontend(batch)
        for clip, length in enumerate(lengths):
            alone = frontend(Tokens(batch.values_BLD[[clip], :length], torch.ones(1, length) > 0))
            count = math.ceil(length / PER_TOKEN[name])
            assert together.valid_BL[clip].sum() == alone.valid_BL.sum() == count
            torch.testing.assert_close(
                together.values_BLD[clip, :count], alone.values_BLD[0], atol=1e-5, rtol=1e-4
            )


@pytest.mark.parametrize("name", FRONTENDS)
def test_training_does_not_see_padding_either(name):
    torch.manual_seed(0)
    one, other = FRONTENDS[name](), FRONTENDS[name]()
    other.load_state_dict(one.state_dict())
    count = math.ceil(130 / PER_TOKEN[name])
    exact = one(columns([130, 70], 130)).values_BLD
    padded = other(columns([130, 70], 300)).values_BLD[:, :count]
    torch.testing.assert_close(exact, padded, atol=1e-5, rtol=1e-4)
    for kept, seen in zip(one.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(kept, seen)


@given(st.integers(0, 70), st.integers(0, 9))
def test_half_of_the_valid_columns_are_left_rounded_up(length, more):
    found = halved(torch.arange(length + more)[None] < length)
    assert found.shape[1] == math.ceil((length + more) / 2)
    assert found.sum() == found[:, : math.ceil(length / 2)].sum() == math.ceil(length / 2)


@pytest.mark.parametrize("training", [True, False])
def test_norm_of_what_is_all_valid_is_batch_norm(training):
    ours, plain = ValidBatchNorm(4).train(training), nn.BatchNorm1d(4).train(training)
    inputs = 3 * torch.randn(2, 4, 6) + 1
    torch.testing.assert_close(ours(inputs, torch.ones(2, 6).bool()), plain(inputs))
    torch.testing.assert_close(ours.running_var, plain.running_var)


@pytest.mark.parametrize("count", [0, 1])
def test_norm_of_no_more_than_one_place_leaves_the_statistics(count):
    norm = ValidBatchNorm(4).train()
    inputs = torch.full((1, 4, 6), 1e3, requires_grad=True)
    out = norm(inputs, torch.arange(6)[None] < count)
    assert not out[..., count:].any()
    assert not norm.running_mean.any()
    out.sum().backward()
    assert norm.weight.grad.isfinite().all()
    assert inputs.grad.isfinite().all()


def test_sound_without_a_valid_column_gives_no_valid_token_and_no_nan():
    silent = Tokens(torch.full((2, 50, BANDS), 1e3), torch.zeros(2, 50).bool())
    for make in FRONTENDS.values():
        tokens = make().train()(silent)
        assert not tokens.valid_BL.any()
        assert tokens.values_BLD.isfinite().all()


def test_every_place_of_a_word_has_its_own_sines():
    places = sines(30, 16, torch.device("cpu"))
    assert places.shape == (30, 16)
    assert (torch.cdist(places, places) + torch.eye(30) > 0.1).all()
    torch.testing.assert_close(places[:, 0], torch.arange(30.0).sin())
