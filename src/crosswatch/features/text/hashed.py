"""Sentences as hashed n-grams, without weights: of words for a sentence, of letters for a word."""

import dataclasses
import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.features.encoder import Encoded, Identity, Input, Model, Rows, Spans, Values, Vector
from crosswatch.features.settings import HashedConfig
from crosswatch.features.source import Source
from crosswatch.features.text.sentences import caption_spans_s, no_tokens, sentences
from crosswatch.features.versions import version_of

NAME = "hashed"
TOKENS = "hashed_tokens"
WORD = re.compile(r"\w+(?:'\w+)*")
CURLY = "\N{RIGHT SINGLE QUOTATION MARK}"
LETTERS = (3, 5)  # lengths of the n-grams of a word


@dataclasses.dataclass(frozen=True)
class HashedEncoder:
    """Signed hashing of n-grams (Weinberger et al. 2009, arXiv:0902.2206), of length 1.

    A sentence is its n-grams of up to `words` words; a word is itself and its n-grams of letters
    (Bojanowski et al. 2017, arXiv:1607.04606), so that words that share letters are near.
    A row without a word is not valid.
    """

    config: HashedConfig

    @property
    def identity(self) -> Identity:
        return Identity(
            name=NAME,
            weights="",
            preprocessing=dataclasses.asdict(self.config),
            version=version_of(__name__, packages=("scikit-learn",)),
        )

    def spans_s(self, source: Source) -> Spans:
        return caption_spans_s(source)

    def inputs(self, source: Source, rows: Rows) -> Iterator[Input]:
        return sentences(source, rows, text=self.config.text)

    def load(self, device: str) -> Model:
        return Hashed(self.config)


class Hashed:
    def __init__(self, config: HashedConfig) -> None:
        self._config = config
        self._sentences = _hasher(config.width, functools.partial(word_ngrams, config.words))
        self._words = _hasher(config.width, letter_ngrams)

    def __call__(self, inputs: Sequence[Values]) -> list[Encoded]:
        texts = [str(values["text"]) for values in inputs]
        rows: list[dict[str, Vector]] = [
            {NAME: _vector(hashed)} for hashed in _hashed(self._sentences, texts)
        ]
        if self._config.tokens:
            for row, tokens in zip(rows, self._tokens(texts), strict=True):
                row[TOKENS] = tokens
        return list(rows)

    def _tokens(self, texts: list[str]) -> Iterator[Vector]:
        said = [words_of(text)[: self._config.max_length] for text in texts]
        known = list(dict.fromkeys(word for words in said for word in words))
        hashed = dict(zip(known, _hashed(self._words, known), strict=True))
        for words in said:
            if words:
                yield _vector(np.stack([hashed[word] for word in words]))
            else:
                yield no_tokens(self._config.width)


def words_of(text: str) -> list[str]:
    """Lower-cased runs of letters and digits of any script, with the apostrophes inside."""
    composed = unicodedata.normalize("NFC", text.lower()).replace(CURLY, "'")
    return WORD.findall(composed)


def word_ngrams(longest: int, text: str) -> list[str]:
    said = words_of(text)
    return [
        " ".join(said[start : start + length])
        for length in range(1, longest + 1)
        for start in range(len(said) - length + 1)
    ]


def letter_ngrams(word: str) -> set[str]:
    """The word with its borders marked, and the n-grams of that."""
    marked = f"<{word}>"
    shortest, longest = LETTERS
    return {marked} | {
        marked[start : start + length]
        for length in range(shortest, longest + 1)
        for start in range(len(marked) - length + 1)
    }


def _hasher(width: int, ngrams: Callable[[str], Iterable[str]]) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        n_features=width, analyzer=ngrams, alternate_sign=True, norm="l2", dtype=np.float32
    )


def _hashed(hasher: Any, texts: list[str]) -> npt.NDArray[np.float32]:
    """(N, width); murmurhash gives the same in every process."""
    return np.asarray(hasher.transform(texts).toarray()) if texts else np.empty((0, 0), np.float32)


def _vector(values: npt.NDArray[np.float32]) -> Vector:
    """Zero is nothing said, or all that was said cancelled out (in a narrow vector it may)."""
    return Vector(values=values.copy(), valid=np.asarray(values.any(axis=-1)))
