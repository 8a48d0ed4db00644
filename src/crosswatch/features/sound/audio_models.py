"""Models of transformers that listen: wav2vec 2.0 and AST.

wav2vec 2.0 is Baevski et al. 2020 (arXiv:2006.11477), AST is Gong et al. 2021 (arXiv:2104.01778).

Shape letters: N windows, C columns of 10 ms, B bands, F places in frequency, L places in time,
D width.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from crosswatch.features.sound.log_mel import COLUMN, HOP, columns_in
from crosswatch.features.sound.stretches import RATE_HZ, Samples

Taken = npt.NDArray[np.float32]
"""What a network takes of one window."""
States = list[npt.NDArray[np.float32]]
"""(L, D) of each window, or pooled (D,)."""


class Listener(Protocol):
    """How a window is given to a network, and what is taken from it."""

    network_class: str
    extractor_class: str
    model_type: str
    expected: str

    def __init__(self, extractor: Any) -> None: ...

    def fault(self, config: Any, window: int) -> str:
        """Why a network cannot listen to windows of so many samples; empty where it can."""
        ...

    def width(self, config: Any) -> int:
        """D of a network."""
        ...

    def taken(self, window: Samples) -> Taken: ...

    def states(self, network: Any, taken: Any, samples: Sequence[int], *, pool: bool) -> States:
        """Of what was taken of windows of so many samples each, stacked as a tensor (N, ...)."""
        ...


class Wav2Vec2:
    """Windows are normalised as preprocessor_config.json says, and never padded: where the first
    layer normalises over time, as in wav2vec2-base, padding would change every state."""

    network_class = "Wav2Vec2Model"
    extractor_class = "Wav2Vec2FeatureExtractor"
    model_type = "wav2vec2"
    expected = "config.json, model.safetensors and preprocessor_config.json of a wav2vec 2.0"

    def __init__(self, extractor: Any) -> None:
        self._extractor = extractor

    def fault(self, config: Any, window: int) -> str:
        reach, step = 1, 1
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            reach, step = reach + (kernel - 1) * step, step * stride
        if reach > COLUMN:
            return f"makes each state of {reach} samples; at most {COLUMN} are allowed"
        return _wrong_rate(self._extractor)

    def width(self, config: Any) -> int:
        return int(config.output_hidden_size if config.add_adapter else config.hidden_size)

    def taken(self, window: Samples) -> Taken:
        found = self._extractor(window, sampling_rate=RATE_HZ, return_tensors="np")
        return np.asarray(found["input_values"][0], np.float32)

    def states(self, network: Any, taken: Any, samples: Sequence[int], *, pool: bool) -> States:
        state_NLD = network(taken).last_hidden_state.float()
        return list((state_NLD.mean(dim=1) if pool else state_NLD).cpu().numpy())


class Ast:
    """A short window is padded to the length that the network was trained with, as its extractor
    does it; of its states, those that begin in the padding are left out."""

    network_class = "ASTModel"
    extractor_class = "ASTFeatureExtractor"
    model_type = "audio-spectrogram-transformer"
    expected = "config.json, model.safetensors and preprocessor_config.json of an AST"

    def __init__(self, extractor: Any) -> None:
        self._extractor = extractor

    def fault(self, config: Any, window: int) -> str:
        sizes = {
            "columns": (self._extractor.max_length, config.max_length),
            "bands": (self._extractor.num_mel_bins, config.num_mel_bins),
        }
        for name, (made, taken) in sizes.items():
            if made != taken:
                return f"takes {taken} {name}; its preprocessor_config.json makes {made}"
        if columns_in(window) > config.max_length:
            longest_s = (config.max_length + 1) * HOP / RATE_HZ
            return (
                f"listens to {config.max_length} columns; window_s={window / RATE_HZ:g} gives "
                f"{columns_in(window)}. Set features.audio.window_s to {longest_s:g} or less"
            )
        return _wrong_rate(self._extractor)

    def width(self, config: Any) -> int:
        return int(config.hidden_size)

    def taken(self, window: Samples) -> Taken:
        found = self._extractor(window, sampling_rate=RATE_HZ, return_tensors="np")
        return np.asarray(found["input_values"][0], np.float32)

    def states(self, network: Any, taken: Any, samples: Sequence[int], *, pool: bool) -> States:
        output = network(taken)
        if pool:
            return list(output.pooler_output.float().cpu().numpy())
        config = network.config
        places = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        patch_NPD = output.last_hidden_state[:, 2:].float()  # after [CLS] and distillation token
        state_NLD = patch_NPD.unflatten(1, (places, -1)).mean(dim=1).cpu().numpy()
        counts = [-(-columns_in(count) // config.time_stride) for count in samples]
        return [state[:count] for state, count in zip(state_NLD, counts, strict=True)]


def _wrong_rate(extractor: Any) -> str:
    if extractor.sampling_rate == RATE_HZ:
        return ""
    return f"listens at {extractor.sampling_rate} Hz; {RATE_HZ} Hz are made"


LISTENERS: dict[str, type[Listener]] = {"wav2vec2": Wav2Vec2, "ast": Ast}
