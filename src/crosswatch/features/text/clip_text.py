"""CLIP's text transformer, frozen, for prompts that are partly learned.

Shape letters: K texts, N places, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crosswatch.errors import UserError
from crosswatch.features.pictures.clip_weights import (
    SECTION,
    TOWER,
    ClipWeights,
    find_clip,
    load_into,
)
from crosswatch.features.settings import ClipConfig
from crosswatch.features.weights.torchvision_shim import ensure_torchvision

if TYPE_CHECKING:
    from torch import Tensor

BESIDE_THE_TOWERS = {"logit_scale", "logit_bias"}
PLAIN = {
    "hf_model_name": None,
    "hf_tokenizer_name": None,
    "tokenizer_mode": None,
    "embed_cls": False,
    "no_causal_mask": False,
    "pool_type": "argmax",
    "proj_type": "linear",
    "proj_bias": False,
}
"""What makes a text tower that of the first CLIP, in open_clip's words: it reads from left to
right, and answers at the end token."""


def load_clip_text(
    config: ClipConfig,
    *,
    instead: str = "train.model.class_text=learned",
    section: str = SECTION,
) -> ClipText:
    """
    Args:
        config: names weights as for pictures.
        instead: settings that need no weights, for errors.
        section: where `config` stands.

    Raises:
        UserError: the weights are missing, damaged or of another architecture, or their text tower
            is of another kind.
    """
    weights = find_clip(config, instead=instead, section=section)
    _refuse_other_kinds(weights)
    ensure_torchvision()
    import open_clip

    told = weights.architecture
    small = {"image_size": 16, "layers": 1, "width": 64, "patch_size": 16}  # of pictures: none

    def build() -> Any:
        # `text` of a CustomTextCLIP is the tower alone.
        return open_clip.CustomTextCLIP(
            embed_dim=told["embed_dim"],
            vision_cfg=small,
            text_cfg=dict(weights.text),
            quick_gelu=told["quick_gelu"],
        ).text

    return ClipText(load_into(build, weights, _own_name), weights.sha256)


class ClipText:
    """A `TextTower`. No module of torch, so that it is no part of what holds it.

    Attributes:
        sha256: of its weights.
    """

    def __init__(self, tower: Any, sha256: str) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self._tower = tower
        self._tokenizer = SimpleTokenizer()
        self.sha256 = sha256
        self.width: int = tower.width
        self.answer_width: int = tower.output_dim
        self.start: int = self._tokenizer.sot_token_id
        self.end: int = self._tokenizer.eot_token_id

    def tokens(self, text: str) -> tuple[int, ...]:
        """Of the text alone, without start and end."""
        return tuple(self._tokenizer.encode(text))

    def embed(self, tokens: Sequence[int]) -> Tensor:
        """(N, D), without positions."""
        table: Tensor = self._tower.token_embedding.weight
        return table[list(tokens)]

    def answer(self, embedded_KND: Tensor, end_K: Tensor) -> Tensor:
        """Projected state (K, D) at place end_K, in float32; gradients reach what was embedded."""
        import torch

        tower = self._tower.to(embedded_KND.device)
        count = embedded_KND.shape[1]
        seen = tower.attn_mask[:count, :count]
        x_KND = embedded_KND + tower.positional_embedding[:count]
        x_KND = tower.transformer(x_KND, attn_mask=seen)
        end_KD = x_KND[torch.arange(len(end_K), device=end_K.device), end_K]
        answered: Tensor = tower.ln_final(end_KD) @ tower.text_projection
        return answered.float()


def _own_name(name: str) -> str | None:
    """Of a tensor of the file, in the tower; the names of the first CLIP have no `text.`"""
    if name.startswith(TOWER) or name in BESIDE_THE_TOWERS:
        return None
    return name.removeprefix("text.")


def _refuse_other_kinds(weights: ClipWeights) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    told: Mapping[str, Any] = weights.text
    other = [f"{key}: {told[key]}" for key, usual in PLAIN.items() if told.get(key, usual) != usual]
    vocabulary, known = told.get("vocab_size", 0), SimpleTokenizer().vocab_size
    if vocabulary != known:
        other.append(f"vocab_size: {vocabulary or 'none'}")
    if other:
        raise UserError(
            f"{weights.source}: the text tower of {weights.model} has {', '.join(other)}; prompts "
            f"need one like the first CLIP's, with {known} tokens, read at the last from left to "
            "right. Name other weights."
        )
