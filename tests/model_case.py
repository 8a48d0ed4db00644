"""What the laws of all models need to know of one: see test_model_laws."""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from crosswatch.models.tokens import Target, Tokens
from crosswatch.records import InputShape

Inputs = tuple[Any, ...]


def random_tokens(width: int, *, count: int, length: int, seed: int) -> Tokens:
    """Clip b has length - b % 3 valid tokens (at least one); what is not valid is garbage."""
    chance = torch.Generator().manual_seed(seed)
    valid = torch.arange(length) < (length - torch.arange(count) % 3).clamp(min=1)[:, None]
    values = torch.randn(count, length, width, generator=chance)
    return Tokens(torch.where(valid[..., None], values, 1e3 * values), valid)


def pad_tokens(tokens: Tokens) -> Tokens:
    """The same clips with three more places that are not valid and hold garbage."""
    count, _, width = tokens.values_BLD.shape
    garbage = 1e3 * torch.randn(count, 3, width, generator=torch.Generator().manual_seed(99))
    values = torch.cat((tokens.values_BLD, garbage), dim=1)
    valid = torch.cat((tokens.valid_BL, torch.zeros(count, 3, dtype=torch.bool)), dim=1)
    return Tokens(values, valid)


def pad_all(inputs: Inputs) -> Inputs:
    return tuple(pad_tokens(tokens) for tokens in inputs)


def remove(inputs: Inputs, number: int, fill: float) -> Inputs:
    """No valid token in stream `number`, and `fill` where its content stood."""
    tokens = inputs[number]
    gone = Tokens(torch.full_like(tokens.values_BLD, fill), torch.zeros_like(tokens.valid_BL))
    return (*inputs[:number], gone, *inputs[number + 1 :])


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelCase:
    """
    Attributes:
        config: a small model of the family, build()-able for `shape`.
        inputs: (seed, count) -> what forward takes for so many examples.
        padded: the same examples with more padding, which holds garbage.
        without: (inputs, number of a stream, fill) -> that stream missing, its content `fill`;
            `removable` are the numbers that can be asked for.
        dead: parameters (names, or their beginnings) that receive no gradient, as the paper or
            the released code leaves them.
        target: count -> the answers, some of every class.
        tolerance: by which a score may differ for reasons of rounding alone.
    """

    config: Any
    shape: InputShape
    inputs: Callable[[int, int], Inputs]
    target: Callable[[int], Target]
    padded: Callable[[Inputs], Inputs] = pad_all
    without: Callable[[Inputs, int, float], Inputs] = remove
    removable: tuple[int, ...]
    dead: tuple[str, ...] = ()
    tolerance: float = 1e-5


def whole(values: torch.Tensor) -> Tokens:
    return Tokens(values, torch.ones(values.shape[:2], dtype=torch.bool))


def under_our_names(
    golden: Mapping[str, torch.Tensor], renames: Sequence[tuple[str, str]]
) -> dict[str, torch.Tensor]:
    """The released weights of a golden (`w.NAME`): renamed in the order of `renames`, and what
    makes queries, keys and values at once in three."""
    weights = {}
    for name, tensor in golden.items():
        if not name.startswith("w."):
            continue
        name = name.removeprefix("w.")
        for theirs, ours in renames:
            name = name.replace(theirs, ours)
        if packed := re.fullmatch(r"(.*)\.in_proj_(weight|bias)", name):
            parts = ("to_query", "to_key", "to_value")
            thirds = zip(parts, tensor.chunk(3), strict=True)
            weights |= {f"{packed[1]}.{part}.{packed[2]}": third for part, third in thirds}
        else:
            weights[name] = tensor
    return weights


def target_of(count: int, classes: int) -> Target:
    label = torch.arange(count) % classes
    return Target(label, torch.nn.functional.one_hot(label, classes).float())
