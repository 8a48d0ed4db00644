"""The sound in windows: its log-mel columns, or the states of a speech or sound model."""

import collections
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.errors import UserError
from crosswatch.features.encoder import Encoded, Identity, Input, Model, Rows, Spans, Values, Vector
from crosswatch.features.settings import AudioConfig
from crosswatch.features.sound import log_mel
from crosswatch.features.sound import stretches as sound
from crosswatch.features.sound.audio_models import LISTENERS, Listener, States
from crosswatch.features.source import Source
from crosswatch.features.versions import version_of
from crosswatch.features.weights.finding import Weights, find_weights
from crosswatch.features.weights.pretrained import (
    load_pretrained,
    load_pretrained_processor,
    torch_dtype,
)

NAME = "audio"
OPTION = "features.audio.weights"


@dataclasses.dataclass(frozen=True)
class AudioEncoder:
    """A row is a window of `window_s`, to 10 ms; the last ends with the sound, from 25 ms on.

    Its modality `audio` is
        log_mel: (C, 40), the columns that begin in the window and end in the sound;
        wav2vec2: the last layer's states (L, D), 50 a second; pooled, their mean (D,);
        ast: the last layer's states (L, D), 10 a second, each the mean over its places in
            frequency; pooled, what the classifier takes (D,): the mean of [CLS] and of the
            distillation token.
    A window that stays below `silence_dbfs` is not valid, and no model is asked about it.
    """

    config: AudioConfig
    precision: str = "fp32"

    @property
    def identity(self) -> Identity:
        packages = ["numpy", "scipy"]
        names = ("source", "window_s", "silence_dbfs")
        told: dict[str, Any] = {name: getattr(self.config, name) for name in names}
        sha256 = ""
        if self.config.source == "log_mel":
            told |= log_mel.described()
        else:
            sha256 = self._weights().sha256
            told |= {"pool": self.config.pool, "precision": self.precision}
            packages += ["torch"]
        version = version_of(__name__, packages=(*packages, "transformers"))
        return Identity(name=NAME, weights=sha256, preprocessing=told, version=version)

    def spans_s(self, source: Source) -> Spans:
        heard = sound.sound_of(source)
        return heard.spans_s(self._windows(heard))

    def inputs(self, source: Source, rows: Rows) -> Iterator[Input]:
        """Of a silent window nothing."""
        heard = sound.sound_of(source)
        windows, prepare = self._windows(heard), None
        for row in rows:
            first, until = (int(edge) for edge in windows[row])
            near = heard.read(first - 1, min(until + log_mel.COLUMN - log_mel.HOP, len(heard)))
            window = near[1 : 1 + until - first]
            values: Values = {}
            if not sound.is_silent(window, self.config.silence_dbfs):
                prepare = prepare or self._preparation()
                values = prepare(window, near)
            yield Input(row=int(row), values=values)

    def load(self, device: str) -> Model:
        if self.config.source == "log_mel":
            return LogMelModel()
        kind, weights = LISTENERS[self.config.source], self._weights()
        network = load_pretrained(
            kind.network_class, weights, kind=(kind.model_type,), option=OPTION
        )
        listener = self._listener(weights)
        fault = listener.fault(network.config, self._window)
        if fault:
            raise UserError(f"{OPTION}.source: {weights.path} {fault}.")
        network = network.to(device, torch_dtype(self.precision))
        return ListeningModel(network=network, listener=listener, pool=self.config.pool)

    def _preparation(self) -> Callable[[sound.Samples, sound.Samples], dict[str, Any]]:
        """What becomes of a window, and of the same with the samples beside it."""
        if self.config.source == "log_mel":
            return lambda window, near: {"columns": log_mel.log_mel(near)}
        listener = self._listener(self._weights())
        return lambda window, near: {"taken": listener.taken(window), "samples": len(window)}

    def _listener(self, weights: Weights) -> Listener:
        kind = LISTENERS[self.config.source]
        with warnings.catch_warnings():
            # AST was trained with such bands: 128 of them are too narrow for 25 ms
            warnings.filterwarnings("ignore", message="At least one mel filter has all zero")
            return kind(load_pretrained_processor(kind.extractor_class, weights, option=OPTION))

    def _weights(self) -> Weights:
        return find_weights(
            self.config.weights,
            option=OPTION,
            expected=LISTENERS[self.config.source].expected,
            instead="features.audio.source=log_mel",
        )

    @property
    def _window(self) -> int:
        """Samples: whole columns."""
        return round(self.config.window_s * sound.RATE_HZ / log_mel.HOP) * log_mel.HOP

    def _windows(self, heard: sound.Sound) -> sound.Windows:
        window = self._window
        return sound.windows_of(len(heard), window=window, hop=window, least=log_mel.COLUMN)


class LogMelModel:
    """Nothing is left to compute where models are: columns are smaller than the sound."""

    def __call__(self, inputs: Sequence[Values]) -> list[Encoded]:
        return [
            {NAME: _heard(given["columns"]) if given else _silence(1, log_mel.BANDS)}
            for given in inputs
        ]


class ListeningModel:
    """Windows of one length go through the network together, so that none is padded for
    another's sake."""

    def __init__(self, *, network: Any, listener: Listener, pool: bool) -> None:
        self._network = network
        self._listener = listener
        self._pool = pool

    def __call__(self, inputs: Sequence[Values]) -> list[Encoded | ValueError]:
        width = self._listener.width(self._network.config)
        silence = _silence(width) if self._pool else _silence(1, width)
        found: list[Encoded | ValueError] = [{NAME: silence} for _ in inputs]
        alike = collections.defaultdict(list)
        for place, given in enumerate(inputs):
            if given:
                alike[given["taken"].shape].append(place)
        for places in alike.values():
            states = self._states([inputs[place] for place in places])
            for place, state in zip(places, states, strict=True):
                found[place] = {NAME: _heard(state)} if np.isfinite(state).all() else _overflow()
        return found

    def _states(self, alike: Sequence[Values]) -> States:
        import torch

        taken = torch.from_numpy(np.stack([given["taken"] for given in alike]))
        samples = [given["samples"] for given in alike]
        network = self._network
        with torch.inference_mode():
            taken = taken.to(network.device, network.dtype)
            return self._listener.states(network, taken, samples, pool=self._pool)


def _heard(values: npt.NDArray[np.float32]) -> Vector:
    return Vector(values=values, valid=np.ones(values.shape[:-1], np.bool_))


def _silence(*shape: int) -> Vector:
    return Vector(values=np.zeros(shape, np.float32), valid=np.zeros(shape[:-1], np.bool_))


def _overflow() -> ValueError:
    return ValueError(
        "audio: states are not finite. Set features.compute.precision to fp32 or bf16."
    )
