"""Where captions come from: caption.source picks one."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from crosswatch.errors import UserError
from crosswatch.features.captioning.captions import FILE, Caption, Captioned, Said, write_captions
from crosswatch.features.captioning.explanation import explained
from crosswatch.features.encoder import Failed, Rows, Spans
from crosswatch.features.settings import CaptionConfig
from crosswatch.features.source import Source

Answers = Callable[[], Iterator[tuple[int, Said | Failed]]]


def captioned(config: CaptionConfig, source: Source) -> Captioned:
    """Captions that need no neural network, and how many sentences were left out.

    Raises:
        BadBatchError: what was delivered with this batch cannot be used.
        UserError: a table that is meant for all batches cannot be used.
    """
    match config.source:
        case "template":
            from crosswatch.features.captioning.template import describe

            return describe(source, config.frames, explain_s=config.explain_s)
        case "supplied":
            from crosswatch.features.captioning.supplied import read_supplied

            return read_supplied(source, config.supplied, explain_s=config.explain_s)
        case "imported":
            from crosswatch.features.captioning.imported import read_imported

            return read_imported(source, config.imported)
        case "none":
            return Captioned(captions=())
    raise UserError(f"source is {config.source}, whose captions a model computes")


def write_said(
    config: CaptionConfig,
) -> Callable[[Path, Source, Spans, Answers], tuple[str, ...]]:
    """Writes what BLIP said of a batch; captions are no modality."""
    from crosswatch.features.captioning.blip import NAME, BlipCaptioner
    from crosswatch.features.pictures.selection import choose_frames

    digest = BlipCaptioner(config.blip, config.frames, config.compute.precision).identity.digest

    def write(folder: Path, source: Source, spans_s: Spans, answers: Answers) -> tuple[str, ...]:
        said = {row: answer for row, answer in answers() if isinstance(answer, Said)}
        captions = captions_of(
            source,
            spans_s,
            choose_frames(source, config.frames),
            said,
            name=NAME,
            digest=digest,
            explain_s=config.explain_s,
        )
        write_captions(folder / FILE, captions)
        return ()

    return write


def captions_of(
    source: Source,
    spans_s: Spans,
    frames: Rows,
    said: Mapping[int, Said],
    *,
    name: str,
    digest: str,
    explain_s: float,
) -> tuple[Caption, ...]:
    """Rows of captions.parquet from what was said of each row; one that failed leaves a hole.

    Args:
        spans_s: (N, 2) of the rows.
        frames: (N,) the stored frame that each row looked at.
        said: by row; rows without an answer are left out, and nothing is put in their place.
        name: of the captioner.
        digest: of its identity.
    """
    made = [
        Caption(
            time_s=float(spans_s[row, 0]),
            until_s=float(spans_s[row, 1]),
            frame=int(frames[row]),
            caption=said[row].text,
            explanation="",
            score=said[row].score,
            source=name,
            digest=digest,
        )
        for row in range(len(spans_s))
        if row in said
    ]
    return explained(made, recordings=source.batch.segments, within_s=explain_s)
