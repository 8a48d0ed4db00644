"""Sentences through DistilBERT (Sanh et al. 2019, arXiv:1910.01108), as ExVAD reads captions."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.errors import UserError
from crosswatch.features.encoder import Encoded, Identity, Input, Model, Rows, Spans, Values, Vector
from crosswatch.features.settings import DistilbertConfig
from crosswatch.features.source import Source
from crosswatch.features.text.sentences import caption_spans_s, no_tokens, nothing_said, sentences
from crosswatch.features.versions import version_of
from crosswatch.features.weights.finding import Weights, find_weights
from crosswatch.features.weights.pretrained import (
    load_pretrained,
    load_pretrained_processor,
    torch_dtype,
)

OPTION = "features.distilbert.weights"
NAME = "distilbert"
TOKENS = "distilbert_tokens"
VOCABULARIES = ("tokenizer.json", "vocab.txt")


@dataclasses.dataclass(frozen=True)
class DistilbertEncoder:
    """The last layer's state of [CLS], or the mean of all tokens' states ([CLS] and [SEP] are among
    them), and with `tokens` that of every token: D = 768 of -base.

    A row without a word is not valid.
    """

    config: DistilbertConfig
    precision: str = "fp32"

    @property
    def identity(self) -> Identity:
        return Identity(
            name=NAME,
            weights=self._weights().sha256,
            preprocessing={
                "text": self.config.text,
                "max_length": self.config.max_length,
                "pool": self.config.pool,
                "tokens": self.config.tokens,
                "precision": self.precision,
            },
            version=version_of(__name__, packages=("torch", "transformers", "tokenizers")),
        )

    def spans_s(self, source: Source) -> Spans:
        return caption_spans_s(source)

    def inputs(self, source: Source, rows: Rows) -> Iterator[Input]:
        return sentences(source, rows, text=self.config.text)

    def load(self, device: str) -> Model:
        weights = self._weights()
        model = load_pretrained("DistilBertModel", weights, kind=("distilbert",), option=OPTION)
        return Distilbert(
            model=model.to(device, torch_dtype(self.precision)),
            tokenizer=_tokenizer(weights, words=model.config.vocab_size),
            config=self.config,
        )

    def _weights(self) -> Weights:
        return find_weights(
            self.config.weights,
            option=OPTION,
            expected="DistilBERT's config.json, model.safetensors and tokenizer.json or vocab.txt",
            instead="'features.encoders=[image, hashed]' --set 'model.text=[hashed]'",
        )


class Distilbert:
    """Padding is masked, so that a sentence's states do not depend on its neighbours."""

    def __init__(self, *, model: Any, tokenizer: Any, config: DistilbertConfig) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._config = config
        self._longest = min(config.max_length, model.config.max_position_embeddings)

    def __call__(self, inputs: Sequence[Values]) -> list[Encoded]:
        texts = [str(values["text"]) for values in inputs]
        different = list(dict.fromkeys(text for text in texts if text.strip()))
        encoded = dict(zip(different, self._encode(different), strict=True)) if different else {}
        return [encoded[text] if text in encoded else self._nothing() for text in texts]

    def _encode(self, texts: list[str]) -> list[Encoded]:
        import torch

        tokens = self._tokenizer(
            texts,
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=self._longest,
            return_tensors="pt",
        ).to(self._model.device)
        with torch.inference_mode():
            states = self._model(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).last_hidden_state
        counts = tokens["attention_mask"].sum(dim=1).tolist()
        pairs = zip(states.float().cpu().numpy(), counts, strict=True)
        return [self._row(state[:count]) for state, count in pairs]

    def _row(self, state: npt.NDArray[np.float32]) -> Encoded:
        """(L, D) without padding, [CLS] first."""
        sentence = state.mean(axis=0) if self._config.pool == "mean" else state[0].copy()
        row = {NAME: Vector(values=sentence, valid=np.array(True))}
        if self._config.tokens:
            row[TOKENS] = Vector(values=state.copy(), valid=np.ones(len(state), np.bool_))
        return row

    def _nothing(self) -> Encoded:
        width = self._model.config.dim
        row = {NAME: nothing_said(width)}
        return row | {TOKENS: no_tokens(width)} if self._config.tokens else row


def _tokenizer(weights: Weights, *, words: int) -> Any:
    """
    Raises:
        UserError: there is none, or it is not this model's.
    """
    folder = weights.path
    if not any((folder / name).is_file() for name in VOCABULARIES):
        # transformers would make up a tokenizer to which every word is unknown.
        raise UserError(
            f"{OPTION}.source: {folder} holds none of {', '.join(VOCABULARIES)}. Put the model's "
            "tokenizer beside its weights."
        )
    tokenizer = load_pretrained_processor("AutoTokenizer", weights, option=OPTION)
    if len(tokenizer) > words:
        raise UserError(
            f"{OPTION}.source: {folder} has a tokenizer of {len(tokenizer)} tokens; the model "
            f"knows {words}. Put the model's own tokenizer beside its weights."
        )
    return tokenizer
