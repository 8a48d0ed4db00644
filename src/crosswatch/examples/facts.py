"""What a detector has to know of the data that it is trained on, found in the data."""

import dataclasses

from crosswatch import progress
from crosswatch.data.clips import ClipsConfig
from crosswatch.data.gather import windows_of
from crosswatch.data.windows import WindowConfig
from crosswatch.errors import UserError
from crosswatch.examples.clips import ClipExamples, refuse_empty
from crosswatch.examples.opening import Sources, encoders_of
from crosswatch.models import FeatureModelConfig, ModelConfig
from crosswatch.models.detector import DetectorFacts, statistics_of
from crosswatch.models.settings.fmformer import FmFormerConfig
from crosswatch.models.settings.fmformer_fused import FusedConfig
from crosswatch.records import InputShape


def facts_of(
    sources: Sources, windows: WindowConfig, clips: ClipsConfig, model: ModelConfig
) -> DetectorFacts:
    """Sizes follow from the data, so that nobody has to say them twice.

    Raises:
        UserError: the training blocks hold nothing to learn from, or streams are missing.
    """
    if isinstance(model, FusedConfig):
        raise UserError(
            f"model.name is {model.name}, which is not trained: crosswatch fuse makes it of a "
            "visual and a current model."
        )
    if isinstance(model, FmFormerConfig):
        return _of_windows(sources, windows, clips, model)
    return _of_clips(sources, windows, clips, model)


def _of_windows(
    sources: Sources, windows: WindowConfig, clips: ClipsConfig, model: FmFormerConfig
) -> DetectorFacts:
    batch_set = sources.batch_set
    training = windows_of(batch_set, windows, "train")
    if not len(training):
        raise UserError(
            "the training blocks hold no window with a whole history; deliver longer batches or "
            f"shorten windows.signal_s ({windows.signal_s:g} s)"
        )
    batch = batch_set.batches[0]
    sees_video, sees_signal = "video" in model.streams, "signal" in model.streams
    samples = windows.signal_samples(batch.signal_rate_hz)
    shape = InputShape(
        frames=windows.frames if sees_video else 0,
        frame_px=0 if batch.frames is None else batch.frames.shape[1],
        signal_samples=samples if sees_signal else 0,
        signal_channels=0 if batch.signal is None else batch.signal.shape[1],
        classes=len(batch_set.classes),
    )
    return DetectorFacts(
        model=model,
        shape=shape,
        windows=windows,
        clips=clips,
        statistics=statistics_of(training) if shape.signal_samples and model.normalises else None,
        classes=batch_set.classes,
    )


def _of_clips(
    sources: Sources, windows: WindowConfig, clips: ClipsConfig, model: FeatureModelConfig
) -> DetectorFacts:
    features = sources.needed_features()
    encoders, parts = encoders_of(features, model)
    classes = sources.batch_set.classes
    shape = InputShape(
        frames=0, frame_px=0, signal_samples=0, signal_channels=0, classes=len(classes),
        widths=tuple(map(sum, parts)),
    )  # fmt: skip
    model.refuse_shape(shape)
    facts = DetectorFacts(
        model=model,
        shape=shape,
        windows=windows,
        clips=clips,
        encoders=encoders,
        parts=parts,
        classes=classes,
    )
    training = ClipExamples.open(sources.batch_set, features, facts, "train")
    refuse_empty(training, "training")
    for at, stream in enumerate(model.streams):
        holding = training.holding(at)
        if not holding:
            raise UserError(
                f"no training clip has a valid row of {' or '.join(stream.modalities)}, which the "
                f"model's stream {stream.name!r} needs. Choose other features for it, or see why "
                "extract found none."
            )
        if holding < len(training):  # allowed, and worth knowing
            progress.warn(
                f"{len(training) - holding} of {len(training)} training clips have no "
                f"{'+'.join(stream.modalities)}"
            )
    if not model.standardise:
        return facts
    scales = tuple(training.spread(at).scale() for at in range(len(parts)))
    return dataclasses.replace(facts, scales=scales)
