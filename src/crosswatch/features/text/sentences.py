"""Captions as what text encoders read: one row each, with the time that it holds for."""

from collections.abc import Iterator

import numpy as np

from crosswatch.features.captioning.captions import Caption
from crosswatch.features.encoder import Input, Rows, Spans, Vector
from crosswatch.features.source import Source


def caption_spans_s(source: Source) -> Spans:
    times = [(caption.time_s, caption.until_s) for caption in source.captions]
    return np.array(times, np.float64).reshape(-1, 2)


def sentences(source: Source, rows: Rows, *, text: str) -> Iterator[Input]:
    for row in rows.tolist():
        yield Input(row=row, values={"text": text_of(source.captions[row], text)})


def text_of(caption: Caption, text: str) -> str:
    """`both` is what ExVAD fuses: the explanation, and the caption once more."""
    if text == "both":
        return f"{caption.explanation}. {caption.caption}"
    return caption.explanation if text == "explanation" else caption.caption


def nothing_said(width: int) -> Vector:
    """Of a row without a word."""
    return Vector(values=np.zeros(width, np.float32), valid=np.array(False))


def no_tokens(width: int) -> Vector:
    return Vector(values=np.zeros((1, width), np.float32), valid=np.zeros(1, np.bool_))
