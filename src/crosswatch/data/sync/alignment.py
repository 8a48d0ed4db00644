"""The three streams of a batch on its reference clock."""

import dataclasses

from crosswatch.data.sync.align import (
    Aligned,
    Known,
    Timeline,
    align,
    align_to_camera,
    along_with,
    unaligned,
)
from crosswatch.data.sync.clocks import Check
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.data.sync.stretches import align_stretches, refuse_resets
from crosswatch.errors import BadBatchError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment:
    """Where each stream lies; the reference clock is the control system's, else the camera's."""

    reference_clock: str
    video: Aligned | None = None
    signal: Aligned | None = None
    audio: Aligned | None = None
    audio_required: bool = False

    @property
    def audio_left_out(self) -> str:
        """Why the batch goes on without its sound; empty where it does not."""
        if self.audio is None or self.audio_required:
            return ""
        return self.audio.refusal

    def noted_by(self, clock: str) -> Aligned | None:
        """The stream on whose clock notes are; None where that is the reference.

        Raises:
            BadBatchError: it is the clock of a sound that could not be aligned.
        """
        if clock == self.reference_clock:
            return None
        found = next((s for s in (self.video, self.audio) if s and s.clock == clock), None)
        if found is self.audio and self.audio_left_out:
            raise BadBatchError(
                f"annotations: are on the clock {clock[:60]!r}, which could not be aligned: "
                f"{self.audio_left_out.removeprefix('sync outside limits: ')}"
            )
        return found

    @property
    def checks(self) -> tuple[Check, ...]:
        """What the batch is held to."""
        streams = [self.video, self.signal, None if self.audio_left_out else self.audio]
        return tuple(check for each in streams if each is not None for check in each.checks)

    @property
    def warnings(self) -> tuple[str, ...]:
        streams = (self.video, self.signal, self.audio)
        told = tuple(text for each in streams if each is not None for text in each.warnings)
        if self.audio_left_out:
            why = self.audio_left_out.removeprefix("sync outside limits: ")
            told += (f"the sound could not be aligned and was left out: {why}",)
        return told


def align_batch(
    video: Timeline | None, signal: Timeline | None, audio: Timeline | None, config: SyncConfig
) -> Alignment:
    reference = signal or video
    assert reference is not None, "a batch has at least one stream"
    course = reference.course
    alone = video is None or signal is None
    lone = alone and audio is None
    method = "one stream, nothing to align" if lone else "the reference"
    anchor = unaligned(course.stream, reference.clock, course.times_s, method)
    if signal is None and reference.resets:
        anchor = dataclasses.replace(anchor, checks=(refuse_resets(reference),))
    camera = anchor if signal is None else _camera(video, signal, config)
    return Alignment(
        reference_clock=reference.clock,
        video=camera,
        signal=None if signal is None else anchor,
        audio=None if audio is None else _audio(audio, video, signal, camera, config),
        audio_required=config.audio_required,
    )


def _camera(video: Timeline | None, signal: Timeline, config: SyncConfig) -> Aligned | None:
    if video is None:
        return None
    if video.resets:
        return align_stretches(video, signal, config)
    known = None
    if config.estimate == "given":
        known = Known(offset_s=config.camera_lag_s, drift_ppm=config.drift_ppm)
    return align(video, signal, config, known=known, how=config.estimate)


def _audio(
    audio: Timeline,
    video: Timeline | None,
    signal: Timeline | None,
    camera: Aligned | None,
    config: SyncConfig,
) -> Aligned:
    """Sound lies where the user says, or where the stream lies whose clock it shares; else seek."""
    reference = signal or video
    assert reference is not None, "a batch has at least one stream beside its sound"
    if config.audio_lag_s is not None:
        known = Known(offset_s=config.audio_lag_s, drift_ppm=config.audio_drift_ppm)
        return align(audio, reference, config, known=known)
    if camera is not None and audio.clock == camera.clock != reference.clock:
        return along_with(audio, camera)
    if signal is not None or audio.clock == reference.clock:
        return align(audio, reference, config)
    return align_to_camera(audio, reference, config)
