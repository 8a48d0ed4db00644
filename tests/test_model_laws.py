"""What every model has to obey, whatever it is made of."""

import copy
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from model_case import Inputs, ModelCase
from safetensors.torch import load_file, save_file

from crosswatch.models import MODELS
from crosswatch.models.tokens import Tokens
from crosswatch.training.losses import LOSSES, loss_of

FAMILIES = ("fmformer", "cmaf", "cross_modal_detector", "caam", "vad")
CASES: dict[str, ModelCase] = {}
for family in FAMILIES:
    CASES |= importlib.import_module(f"case_{family}").CASES
EXAMPLES = 6


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """These models are too small for more to help."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> ModelCase:
    return CASES[request.param]


def built(case: ModelCase, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return case.config.build(case.shape)


def scored(case: ModelCase, module: torch.nn.Module, inputs: Inputs) -> torch.Tensor:
    """Class probabilities of each example, and of every branch."""
    with torch.inference_mode():
        scores = module.eval()(*inputs)
    return torch.cat([scores.probability_BK(), *scores.branches().values()], dim=1)


def picked(inputs: Inputs, rows: torch.Tensor) -> Inputs:
    def pick(each):
        if isinstance(each, Tokens):
            return Tokens(*(part[rows] for part in each))
        return None if each is None else each[rows]

    return tuple(pick(each) for each in inputs)


def assert_same(case: ModelCase, one: torch.Tensor, other: torch.Tensor) -> None:
    assert torch.isfinite(one).all()
    torch.testing.assert_close(one, other, rtol=0, atol=case.tolerance)


def test_every_model_has_a_case_and_a_loss() -> None:
    trained = {*MODELS} - {"fmformer_fused"}  # made of two that were trained
    assert {case.config.name for case in CASES.values()} == trained == set(LOSSES)


def test_probabilities_sum_to_one(case: ModelCase) -> None:
    with torch.inference_mode():
        scores = built(case).eval()(*case.inputs(1, EXAMPLES))
    for each in (scores.probability_BK(), *scores.branches().values()):
        assert each.dtype == torch.float32
        torch.testing.assert_close(each.sum(1), torch.ones(EXAMPLES))


def test_padding_never_changes_a_score(case: ModelCase) -> None:
    module, inputs = built(case), case.inputs(1, EXAMPLES)
    assert_same(case, scored(case, module, inputs), scored(case, module, case.padded(inputs)))


def test_a_score_does_not_depend_on_the_others_in_its_batch(case: ModelCase) -> None:
    module, inputs = built(case), case.inputs(1, EXAMPLES)
    whole = scored(case, module, inputs)
    order = torch.randperm(EXAMPLES, generator=torch.Generator().manual_seed(0))
    assert_same(case, whole[order], scored(case, module, picked(inputs, order)))
    alone = [scored(case, module, picked(inputs, torch.tensor([row]))) for row in range(EXAMPLES)]
    assert_same(case, whole, torch.cat(alone))


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_memorises_one_batch(case: ModelCase, bf16: bool) -> None:
    module, inputs, target = built(case), case.inputs(1, EXAMPLES), case.target(EXAMPLES)
    loss_from = loss_of(case.config)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    for step in range(150):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            scores = module.train()(*inputs)
        loss = loss_from(scores, target)
        loss.backward()
        optimizer.step()
        assert torch.isfinite(loss)
        if step == 0:
            first = loss.item()
        named = scores.probability_BK().argmax(1).tolist() == target.class_B.tolist()
        if named and loss.item() < first / 3:
            return
    pytest.fail(f"after 150 steps the loss is {loss.item():.3f}, it began at {first:.3f}")


def test_reloads_to_the_same_scores(case: ModelCase, tmp_path: Path) -> None:
    module, inputs = built(case, seed=3), case.inputs(1, EXAMPLES)
    before = scored(case, module, inputs)
    weights = {name: value.contiguous() for name, value in module.state_dict().items()}
    save_file(weights, tmp_path / "model.safetensors")
    again = built(case, seed=4)
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(before, scored(case, again, inputs))


def test_gradients_reach_every_live_parameter_and_no_dead_one(case: ModelCase) -> None:
    module, target = built(case), case.target(EXAMPLES)
    loss_of(case.config)(module.train()(*case.inputs(1, EXAMPLES)), target).backward()
    named = dict(module.named_parameters())
    dead = {name for name in named if name.startswith(case.dead)} if case.dead else set()
    for beginning in case.dead:
        assert any(name.startswith(beginning) for name in named), f"no parameter {beginning}"
    for name, parameter in named.items():
        if name.endswith("to_key.bias"):
            continue  # adds the same to all scores of a query, which softmax takes away
        moved = parameter.grad is not None and bool((parameter.grad != 0).any())
        assert moved != (name in dead), name


def test_what_is_missing_cannot_leak_in(case: ModelCase) -> None:
    module, inputs = built(case), case.inputs(1, EXAMPLES)
    for stream in case.removable:
        quiet = scored(case, module, case.without(inputs, stream, 0.0))
        loud = scored(case, module, case.without(inputs, stream, 1e3))
        assert torch.equal(quiet, loud)


def test_what_is_missing_is_no_poison_in_training(case: ModelCase) -> None:
    target = case.target(EXAMPLES)
    for stream in case.removable:
        module = built(case)
        inputs = case.without(case.inputs(1, EXAMPLES), stream, 1e3)
        loss_of(case.config)(module.train()(*inputs), target).backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


def test_scoring_leaves_the_inputs_and_the_weights_alone(case: ModelCase) -> None:
    module, inputs = built(case), case.inputs(1, EXAMPLES)
    kept_inputs, kept = copy.deepcopy(inputs), copy.deepcopy(module.state_dict())
    scored(case, module, inputs)
    for now, before in zip(inputs, kept_inputs, strict=True):
        parts = zip(now, before, strict=True) if isinstance(now, Tokens) else [(now, before)]
        assert all(torch.equal(*pair) for pair in parts if pair[0] is not None)
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())
