"""Sentences that came with imported features."""

import math
from collections.abc import Sequence

from crosswatch.data.adapters.imported_sets import open_imported
from crosswatch.features.captioning.captions import FILE, Caption, Captioned, read_captions
from crosswatch.features.captioning.explanation import explain
from crosswatch.features.settings import ImportedCaptionConfig
from crosswatch.features.source import Source, refuse_other_adapters

NAME = "imported"


def read_imported(source: Source, config: ImportedCaptionConfig) -> Captioned:
    """Each sentence for the whole clip; none where the import brought none.

    A clip without a sentence to be evaluated by has its first one in place of it, and the other
    way round.

    Raises:
        BadBatchError: the import is gone or was changed.
        UserError: the batches are no imported ones.
    """
    refuse_other_adapters(source, NAME, "caption.source")
    folder = source.original.path
    opened = open_imported(folder.parent)
    given: Sequence[Caption] = ()
    if FILE in opened.files.get(folder.name, {}):
        given = read_captions(folder / FILE)
    evaluation = opened.records[folder.name].get("eval_caption") or ""
    texts = [text for text in (evaluation, *(caption.caption for caption in given)) if text.strip()]
    if config.take == "first":
        texts = [caption.caption for caption in given if caption.caption.strip()] or texts
    if config.take != "all":
        texts = texts[:1]
    return Captioned(captions=tuple(_said(source, text, opened.digest) for text in texts))


def _said(source: Source, text: str, digest: str) -> Caption:
    start_s, stop_s = source.batch.span_s
    return Caption(
        time_s=start_s, until_s=stop_s, frame=-1, caption=text, explanation=explain(text),
        score=math.nan, source=NAME, digest=digest,
    )  # fmt: skip
