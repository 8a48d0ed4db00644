"""A vector for each class: free, or of its text between learned words (VadCLIP's prompts).

Shape letters: K classes, D width, N places of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from crosswatch.errors import UserError

PLACES = 77  # CLIP's, of which a prompt takes what it needs


class TextTower(Protocol):
    """CLIP's text transformer, frozen: no place sees those behind it."""

    width: int  # of the embedding of a token
    answer_width: int
    start: int  # token
    end: int  # token; the answer is read there

    def tokens(self, text: str) -> tuple[int, ...]:
        """Of the text alone, without start and end."""
        ...

    def embed(self, tokens: Sequence[int]) -> Tensor:
        """(N, width)"""
        ...

    def answer(self, embedded_KND: Tensor, end_K: Tensor) -> Tensor:
        """Projected state (K, answer_width) at place end_K; gradients reach what was embedded."""
        ...


class LearnedClasses(nn.Module):
    """One free vector a class, of about length 1; needs no weights of CLIP."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.vector_KD = nn.Parameter(torch.randn(classes, width) * width**-0.5)

    def forward(self) -> Tensor:
        return self.vector_KD


class PromptedClasses(nn.Module):
    """[start, learned, text of the class, learned, end] through CLIP's text transformer.

    One table of learned places serves all classes. The tower is no part of the state, and what it
    answered is: a reloaded model knows its classes without the tower. With the tower at hand that
    memory is renewed whenever it is asked for and the table is not the one that it was made from.
    """

    text_KD: Tensor
    made_of_ND: Tensor
    fixed_KND: Tensor
    is_fixed_KN: Tensor
    end_K: Tensor

    def __init__(
        self,
        prompts: Sequence[str],
        width: int,
        *,
        learned: int,
        tower: TextTower | None,
    ) -> None:
        super().__init__()
        self.context_ND = nn.Parameter(0.01 * torch.randn(PLACES, width))
        # Not numbers until they are known: a model that was given none must not seem to score.
        unknown = torch.full((len(prompts), width), torch.nan)
        self.register_buffer("text_KD", unknown)
        self.register_buffer("made_of_ND", torch.full((PLACES, width), torch.nan), persistent=False)
        assert not isinstance(tower, nn.Module), "it would become part of the state"
        self.tower = tower
        if tower is not None:
            self._lay_out(prompts, width, learned, tower)
        self.register_state_dict_pre_hook(  # type: ignore[no-untyped-call]
            PromptedClasses._renew_before_saving
        )

    def forward(self) -> Tensor:
        """(K, D)"""
        if self.training:
            assert self.tower is not None, "class_text: clip is trained with a text tower"
            return self._ask()
        self._renew()
        return self.text_KD

    def _lay_out(self, prompts: Sequence[str], width: int, learned: int, tower: TextTower) -> None:
        """Where in each prompt which embedding is fixed."""
        refuse_tower(tower, width)
        tokens = [tower.tokens(text) for text in prompts]
        end = [2 * learned + len(each) + 1 for each in tokens]
        if max(end) >= PLACES:
            longest = prompts[end.index(max(end))]
            raise UserError(
                f"prompts: {longest!r} has {max(map(len, tokens))} tokens; allowed "
                f"{PLACES - 2 - 2 * learned} with prompt_len {learned}"
            )
        # No place sees those behind it, and what is behind the last end is not computed.
        fixed_KND = torch.zeros(len(prompts), max(end) + 1, width)
        is_fixed_KN = torch.zeros(fixed_KND.shape[:2], dtype=torch.bool)
        for at, (words, last) in enumerate(zip(tokens, end, strict=True)):
            places = [0, *range(learned + 1, learned + 1 + len(words)), last]
            fixed_KND[at, places] = tower.embed((tower.start, *words, tower.end)).cpu()
            is_fixed_KN[at, places] = True
        self.register_buffer("fixed_KND", fixed_KND, persistent=False)
        self.register_buffer("is_fixed_KN", is_fixed_KN, persistent=False)
        self.register_buffer("end_K", torch.tensor(end), persistent=False)

    def _ask(self) -> Tensor:
        assert self.tower is not None
        context_ND = self.context_ND[: self.fixed_KND.shape[1]]
        prompt_KND = torch.where(self.is_fixed_KN[..., None], self.fixed_KND, context_ND)
        return self.tower.answer(prompt_KND, self.end_K)

    @torch.no_grad()
    def _renew(self) -> None:
        if self.tower is None or torch.equal(self.made_of_ND, self.context_ND):
            return
        with torch.autocast(self.context_ND.device.type, enabled=False):
            self.text_KD.copy_(self._ask())
        self.made_of_ND.copy_(self.context_ND)

    def _renew_before_saving(self, prefix: str, keep_vars: bool) -> None:
        self._renew()


def refuse_tower(tower: TextTower, width: int) -> None:
    """Raise UserError for a tower whose vectors cannot be added to those of snippets."""
    if (tower.width, tower.answer_width) != (width, width):
        raise UserError(
            f"class_text: clip: the text transformer takes {tower.width} and answers "
            f"{tower.answer_width} wide, and features are {width} wide; all have to be the same. "
            "Take the CLIP that the features are of, or class_text: learned."
        )
