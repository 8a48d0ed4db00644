"""The tracks of many clips as one sound, each where its clip stands.

What of a track cannot be heard is silence: the pictures of its clip are whole without it.
"""

from collections.abc import Iterator

from crosswatch.data.audio.source import AudioClip, AudioSource, RawAudio, Samples
from crosswatch.errors import BadBatchError

LEAST_S = 0.2  # what aligns streams needs as much of a sound


class ClipSource:
    """A sound of clips; neither how many of them are silent nor what is lost refuses it."""

    def __init__(self, raw: RawAudio) -> None:
        self.name = raw.path.name
        self._clips = raw.clips
        self.rate_hz = 0  # the lowest of any clip
        self.announced_s = self.longest_holes_s = raw.clips[-1].span_s[1]
        self.lost_packets = 0

    def pieces(self, rate_hz: int) -> Iterator[tuple[int, Samples]]:
        for clip in self._clips:
            with AudioSource(clip.path) as source:
                self.rate_hz = min(self.rate_hz or source.rate_hz, source.rate_hz)
                try:
                    yield from _within(clip, source, rate_hz)
                except BadBatchError:  # NaN, or time that runs backwards
                    source.give_up()
                self.lost_packets += source.lost_packets

    def check_whole(self, heard_s: float, *, max_bad_share: float) -> None:
        """Silence is whole."""


def fault_of(clip: AudioClip) -> str:
    """Why a clip's track cannot be heard; empty where it can. Decodes its beginning alone."""
    try:
        with AudioSource(clip.path) as source:
            heard_s = 0.0
            for _, samples in _within(clip, source, source.rate_hz):
                heard_s += samples.size / source.rate_hz
                if heard_s >= LEAST_S:
                    return ""
    except BadBatchError as error:
        return str(error).removeprefix(f"{clip.path.name}: ")
    return f"{heard_s:.2f} s can be decoded; {LEAST_S} s are needed. Encode it again."


def _within(clip: AudioClip, source: AudioSource, rate_hz: int) -> Iterator[tuple[int, Samples]]:
    """The pieces of a track, counted from the clock's zero and cut to the clip's span."""
    zero = round(clip.start_s * rate_hz)
    first, until = (round(edge_s * rate_hz) for edge_s in clip.span_s)
    for at, samples in source.pieces(rate_hz):
        at += zero
        if at >= until:
            return
        inside = samples[max(0, first - at) : until - at]
        if inside.size:
            yield max(at, first), inside
