"""FmFormer's encoder: steps that change each of its streams.

A step takes the streams' tokens (B, N, D) and, by the same names, which of them there are (B, N;
absent: all), and gives what is to be added to each.

Shape letters: B batch, N tokens of a stream, D model width, H heads, E width per head.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from crosswatch.models.layers.attention import (
    AttentionOutput,
    FeedForward,
    QueryKeyValue,
    SelfAttention,
    attend,
)
from crosswatch.models.settings.fmformer import SIGNAL, VIDEO, FmFormerConfig, Step

Streams = dict[str, Tensor]


class AskItself(nn.ModuleDict):
    """Each stream its own attention."""

    def __init__(self, config: FmFormerConfig) -> None:
        super().__init__({stream: SelfAttention(*_sizes(config)) for stream in config.streams})

    def forward(self, tokens: Streams, valid: Streams) -> Streams:
        return {stream: self[stream](z_BND, valid.get(stream)) for stream, z_BND in tokens.items()}


class AskEachOther(nn.Module):
    """MHCA both ways: a stream's one projection asks the other and answers it, both as it was."""

    def __init__(self, config: FmFormerConfig) -> None:
        super().__init__()
        width, heads, head_width, dropout = _sizes(config)
        self.video_qkv = QueryKeyValue(width, heads, head_width)
        self.signal_qkv = QueryKeyValue(width, heads, head_width)
        self.video_out = AttentionOutput(width, heads, head_width, dropout)
        self.signal_out = AttentionOutput(width, heads, head_width, dropout)

    def forward(self, tokens: Streams, valid: Streams) -> Streams:
        video_query, video_key, video_value = self.video_qkv(tokens[VIDEO])
        signal_query, signal_key, signal_value = self.signal_qkv(tokens[SIGNAL])
        video_BHNE = attend(video_query, signal_key, signal_value, valid.get(SIGNAL))
        signal_BHNE = attend(signal_query, video_key, video_value, valid.get(VIDEO))
        return {VIDEO: self.video_out(video_BHNE), SIGNAL: self.signal_out(signal_BHNE)}


class FeedForwards(nn.ModuleDict):
    def __init__(self, config: FmFormerConfig) -> None:
        sizes = (config.width, config.feed_forward_width, config.dropout)
        super().__init__({stream: FeedForward(*sizes) for stream in config.streams})

    def forward(self, tokens: Streams, valid: Streams) -> Streams:
        return {stream: self[stream](z_BND) for stream, z_BND in tokens.items()}


STEPS: dict[Step, Callable[[FmFormerConfig], nn.Module]] = {
    "ask_itself": AskItself,
    "ask_itself_again": AskItself,
    "ask_each_other": AskEachOther,
    "ask_each_other_again": AskEachOther,
    "feed_forward_between": FeedForwards,
    "feed_forward": FeedForwards,
}


class EncoderLayer(nn.ModuleDict):
    """z <- z + step(z), one step after the other."""

    def __init__(self, config: FmFormerConfig) -> None:
        super().__init__({name: STEPS[name](config) for name in config.layer_steps})

    def forward(self, tokens: Streams, valid: Streams) -> Streams:
        for step in self.values():
            changes: Streams = step(tokens, valid)
            tokens = {stream: z_BND + changes[stream] for stream, z_BND in tokens.items()}
        return tokens

    def freeze_end_of_signal(self) -> None:
        """Behind the last layer's answers to the video, nothing asks what became of the signal."""
        name = [name for name in self if name.startswith("ask_each_other")][-1]
        mutual, feed_forward = self[name], self["feed_forward"]
        assert isinstance(mutual, AskEachOther)
        assert isinstance(feed_forward, FeedForwards)
        mutual.signal_out.requires_grad_(False)
        feed_forward[SIGNAL].requires_grad_(False)


def _sizes(config: FmFormerConfig) -> tuple[int, int, int, float]:
    return config.width, config.heads, config.head_width, config.dropout
