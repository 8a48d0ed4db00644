"""What of a video's snippets speaks for it, and the losses that it is trained by."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswatch.models.clipfusion_vad import VadScores
from crosswatch.models.layers.mil import top_mean
from crosswatch.models.settings.vad import VadConfig, VadLossWeights
from crosswatch.models.tokens import Target
from crosswatch.training.losses.mil import (
    align_loss,
    binary_loss,
    mil_loss,
    separation_loss,
)

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = json.loads((GOLDEN / "mil_losses.json").read_text())
CLOSE: dict[str, Any] = {"atol": 1e-6, "rtol": 1e-6}
SEPARATION = {"ucf": 0.1, "xd": 1e-4}


def golden(name: str) -> tuple[VadScores, Target]:
    with np.load(GOLDEN / f"mil_losses_{name}.npz") as arrays:
        part = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    valid = torch.arange(part["logits1"].shape[1]) < part["lengths"][:, None]
    scores = VadScores(part["logits1"][..., 0], part["logits2"], part["text_features"], valid)
    return scores, Target(part["labels"].argmax(1), part["labels"])


@pytest.mark.parametrize("name", SEPARATION)
def test_losses_are_the_released_ones(name: str) -> None:
    scores, target = golden(name)
    expected, classes = EXPECTED[name], scores.text_KD.shape[0]
    config = VadConfig(losses=VadLossWeights(separation=SEPARATION[name]))
    for found, key, times in (
        (binary_loss(scores.anomaly_B(), target.classes_BK), "bce_topk (loss1)", 1),
        (align_loss(scores.class_logit_BK(), target.classes_BK), "mil_align_ce (loss2)", 1),
        (separation_loss(scores.text_KD), "text_contrast_sum_abs_cos", classes - 1),
        (mil_loss(scores, target, config), "total", 1),
    ):
        torch.testing.assert_close(times * found, torch.tensor(expected[key]), **CLOSE)
    weighted = SEPARATION[name] * separation_loss(scores.text_KD)
    expected_third = torch.tensor(expected["loss3_weighted"])
    torch.testing.assert_close(weighted, expected_third, atol=1e-9, rtol=1e-5)


@pytest.mark.parametrize("part", ["binary", "align", "separation"])
def test_every_weight_counts(part: str) -> None:
    scores, target = golden("ucf")
    alone = {"binary": 0.0, "align": 0.0, "separation": 0.0} | {part: 2.0}
    rest = 0.0
    if part == "separation":  # something has to be learned from labels
        alone["binary"] = 1.0
        rest = binary_loss(scores.anomaly_B(), target.classes_BK)
    found = mil_loss(scores, target, VadConfig(losses=VadLossWeights(**alone))) - rest
    whole = {
        "binary": binary_loss(scores.anomaly_B(), target.classes_BK),
        "align": align_loss(scores.class_logit_BK(), target.classes_BK),
        "separation": separation_loss(scores.text_KD),
    }
    torch.testing.assert_close(found, 2 * whole[part])


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    snippets_per_pick=st.integers(1, 20),
)
@settings(max_examples=50, deadline=None)
def test_the_highest_of_every_class_are_picked(lengths: list[int], snippets_per_pick: int) -> None:
    values = torch.randn(len(lengths), 40, 3)
    valid = torch.arange(40) < torch.tensor(lengths)[:, None]
    garbage = torch.where(valid[..., None], values, 1e3)
    found = top_mean(garbage, valid, snippets_per_pick=snippets_per_pick)
    for row, length in enumerate(lengths):
        picks = min(length // snippets_per_pick + 1, length)
        highest = values[row, :length].sort(0, descending=True).values[:picks]
        expected = highest.mean(0) if length else torch.zeros(3)
        torch.testing.assert_close(found[row], expected)


@pytest.mark.parametrize("name", SEPARATION)
def test_picks_are_as_many_as_released(name: str) -> None:
    scores, _ = golden(name)
    length = scores.valid_BL.sum(1)
    ones = torch.zeros(*scores.valid_BL.shape, 1)
    for row, picks in enumerate(EXPECTED[name]["k"]):
        ones[row, : int(length[row])] = 0.5
        ones[row, : picks - 1] = 1.0
    found = top_mean(ones, scores.valid_BL, snippets_per_pick=16)[:, 0]
    k = torch.tensor(EXPECTED[name]["k"])
    torch.testing.assert_close(found, (k - 0.5) / k)


def test_a_label_of_several_classes_shares_one() -> None:
    logit = torch.tensor([[0.0, 3.0, 3.0]])
    both = align_loss(logit, torch.tensor([[0.0, 1.0, 1.0]]))
    one = align_loss(logit, torch.tensor([[0.0, 1.0, 0.0]]))
    torch.testing.assert_close(both, one)


def test_a_video_without_a_snippet_teaches_nothing_and_breaks_nothing() -> None:
    logit = torch.randn(2, 5, requires_grad=True)
    classes = torch.randn(2, 5, 3, requires_grad=True)
    valid = torch.tensor([[True] * 5, [False] * 5])
    scores = VadScores(logit, classes, torch.randn(3, 4), valid)
    target = Target(torch.tensor([1, 1]), torch.tensor([[0.0, 1, 0], [0, 1, 0]]))
    mil_loss(scores, target, VadConfig()).backward()
    for gradient in (logit.grad, classes.grad):
        assert gradient is not None
        assert torch.isfinite(gradient).all()
        assert gradient[0].any()
        assert not gradient[1].any()
