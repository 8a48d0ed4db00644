"""Words as vectors that word2vec learned (Mikolov et al. 2013, arXiv:1310.4546), as CAAM reads
captions: words as they are written, those that the file does not know left out."""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from crosswatch.errors import UserError
from crosswatch.features.encoder import Encoded, Identity, Input, Model, Rows, Spans, Values, Vector
from crosswatch.features.settings import Word2vecConfig
from crosswatch.features.source import Source
from crosswatch.features.text.sentences import caption_spans_s, no_tokens, sentences, text_of
from crosswatch.features.text.word_vectors import READERS, read_vectors
from crosswatch.features.versions import version_of
from crosswatch.features.weights.finding import Weights, find_weights

OPTION = "features.word2vec.weights"
NAME = "word2vec"
TOKENS = "word2vec_tokens"
WORD = re.compile(r"[\w']+")


@dataclasses.dataclass(frozen=True)
class Word2vecEncoder:
    """A vector (L, D) for each of the first `max_length` words that the file knows, D as wide as
    the file; a row without one is not valid.

    Attributes:
        words: that captions hold; of all others no vector is kept. They change no result.
    """

    config: Word2vecConfig
    words: frozenset[str]

    @classmethod
    def of(cls, config: Word2vecConfig, sources: Iterable[Source]) -> "Word2vecEncoder":
        """The encoder for the captions of these batches."""
        said = (text_of(each, config.text) for source in sources for each in source.captions)
        return cls(config, frozenset(word for text in said for word in words_of(text)))

    @property
    def identity(self) -> Identity:
        return Identity(
            name=NAME,
            weights=self._weights().sha256,
            preprocessing={"text": self.config.text, "max_length": self.config.max_length},
            version=version_of(__name__),
        )

    def spans_s(self, source: Source) -> Spans:
        return caption_spans_s(source)

    def inputs(self, source: Source, rows: Rows) -> Iterator[Input]:
        return sentences(source, rows, text=self.config.text)

    def load(self, device: str) -> Model:
        vectors, width = read_vectors(self._weights().path, self.words)
        return Word2vec(vectors, width=width, max_length=self.config.max_length)

    def _weights(self) -> Weights:
        found = find_weights(
            self.config.weights,
            option=OPTION,
            expected="GoogleNews-vectors-negative300.bin (or .bin.gz, of "
            "https://code.google.com/archive/p/word2vec), or another file of "
            f"{', '.join(READERS)} (each also .gz),",
            instead="'features.encoders=[imported, hashed]' --set 'model.text=[hashed_tokens]'",
        )
        if found.path.is_dir():
            raise UserError(f"{OPTION}.source: {found.path} is a folder. Name the file in it.")
        return found


class Word2vec:
    def __init__(
        self, vectors: Mapping[str, npt.NDArray[np.float32]], *, width: int, max_length: int
    ) -> None:
        self._vectors = vectors
        self._width = width
        self._max_length = max_length

    def __call__(self, inputs: Sequence[Values]) -> list[Encoded]:
        return [{TOKENS: self._tokens(str(values["text"]))} for values in inputs]

    def _tokens(self, text: str) -> Vector:
        known = [self._vectors[word] for word in words_of(text) if word in self._vectors]
        if not known:
            return no_tokens(self._width)
        values = np.stack(known[: self._max_length])
        return Vector(values=values, valid=np.ones(len(values), np.bool_))


def words_of(text: str) -> list[str]:
    """Runs of word characters and apostrophes, in the letters that they are written in."""
    return WORD.findall(text)
