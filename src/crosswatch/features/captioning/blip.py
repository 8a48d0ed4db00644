"""Captions by BLIP (Li et al. 2022, arXiv:2201.12086).

Shape letters: B pictures, L tokens of the longest, S side of the pictures in pixels.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.data.originals import rgb
from crosswatch.errors import UserError
from crosswatch.features.captioning.captions import Said
from crosswatch.features.encoder import Failed, Identity, Input, Model, Rows, Spans, Values
from crosswatch.features.pictures.frames import PIXELS, picture_inputs
from crosswatch.features.pictures.selection import choose_frames, spans_of
from crosswatch.features.settings import BlipConfig, SelectionConfig
from crosswatch.features.source import Source
from crosswatch.features.versions import version_of
from crosswatch.features.weights.finding import Weights, find_weights
from crosswatch.features.weights.pretrained import (
    load_pretrained,
    load_pretrained_processor,
    torch_dtype,
)

NAME = "blip"
OPTION = "caption.blip.weights"
WRITER = "crosswatch.features.captioning.captioners"  # makes explanations of what was said
PACKAGES = ("torch", "torchvision", "transformers", "tokenizers", "av")


@dataclasses.dataclass(frozen=True)
class BlipCaptioner:
    """A sentence for each chosen frame, seen in the delivery's own picture.

    Its model answers `Said`. A prompt is part of what is said, and not of the score.
    """

    config: BlipConfig
    frames: SelectionConfig
    precision: str = "fp32"

    @property
    def identity(self) -> Identity:
        return Identity(
            name=NAME,
            weights=self._weights().sha256,
            preprocessing={
                "frames": dataclasses.asdict(self.frames),
                "prompt": self.config.prompt,
                "max_length": self.config.max_length,
                "beams": self.config.beams,
                "precision": self.precision,
            },
            version=version_of(__name__, WRITER, packages=PACKAGES),
        )

    def spans_s(self, source: Source) -> Spans:
        return spans_of(source, choose_frames(source, self.frames))

    def inputs(self, source: Source, rows: Rows) -> Iterator[Input | Failed]:
        """uint8 (3, S, S): a picture is made small before it travels."""
        prepare = functools.partial(_small, _processor(self._weights()).image_processor)
        frames = choose_frames(source, self.frames)[rows]
        return picture_inputs(source, rows, frames, prepare)

    def load(self, device: str) -> Model:
        weights = self._weights()
        model = load_pretrained(
            "BlipForConditionalGeneration", weights, kind=("blip",), option=OPTION
        )
        processor = _processor(weights)
        _check_size(model, processor, weights)
        self._check_prompt(processor)
        return Blip(
            model=model.to(device, torch_dtype(self.precision)),
            processor=processor,
            config=self.config,
        )

    def _check_prompt(self, processor: Any) -> None:
        tokens = len(processor.tokenizer(self.config.prompt)["input_ids"])
        if self.config.prompt and tokens >= self.config.max_length:
            raise UserError(
                f"caption.blip.prompt has {tokens} tokens and caption.blip.max_length is "
                f"{self.config.max_length}, which counts them. Shorten the prompt or allow more."
            )

    def _weights(self) -> Weights:
        return find_weights(
            self.config.weights,
            option=OPTION,
            expected="config.json, model.safetensors, preprocessor_config.json (or "
            "processor_config.json) and tokenizer.json (or vocab.txt) of BLIP",
            instead="caption.source=template",
        )


class Blip:
    def __init__(self, *, model: Any, processor: Any, config: BlipConfig) -> None:
        self._model = model
        self._processor = processor
        self._config = config
        self._text = model.config.text_config

    def __call__(self, inputs: Sequence[Values]) -> list[Said | ValueError]:
        tokens_BL, scores = self.generate(inputs)
        return [self._said(*row) for row in zip(tokens_BL, scores, strict=True)]

    def generate(self, inputs: Sequence[Values]) -> tuple[list[list[int]], list[float]]:
        """Tokens as BLIP's `generate` gives them, and the mean log-probability of the new ones."""
        import torch

        decoder = self._model.text_decoder
        with torch.inference_mode():
            written = self._model.generate(
                pixel_values=self._normalised(inputs),
                **self._prompt(len(inputs)),
                max_length=self._config.max_length,
                num_beams=self._config.beams,
                do_sample=False,
                return_dict_in_generate=True,
                output_scores=True,
            )
            chosen_BL = decoder.compute_transition_scores(
                written.sequences,
                written.scores,
                getattr(written, "beam_indices", None),
                normalize_logits=self._config.beams == 1,
            )
        new_BL = written.sequences[:, -chosen_BL.shape[1] :]
        return written.sequences.tolist(), self._means(new_BL, chosen_BL.float())

    def _normalised(self, inputs: Sequence[Values]) -> Any:
        """float (B, 3, S, S) as the checkpoint's processor makes it."""
        import torch

        pixels_B3SS = torch.from_numpy(np.stack([values[PIXELS] for values in inputs]))
        normalised = self._processor.image_processor(
            images=list(pixels_B3SS.to(self._model.device)),
            input_data_format="channels_first",
            do_resize=False,
            return_tensors="pt",
        )["pixel_values"]
        return normalised.to(self._model.dtype)

    def _prompt(self, count: int) -> dict[str, Any]:
        """Every picture has the same, so that nothing is padded."""
        if not self._config.prompt:
            return {}
        tokens = self._processor.tokenizer(self._config.prompt, return_tensors="pt")
        told = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        return {name: told[name].repeat(count, 1).to(self._model.device) for name in told}

    def _means(self, new_BL: Any, chosen_BL: Any) -> list[float]:
        """Over the tokens up to the one that ends a sentence."""
        ends_BL = new_BL == self._text.sep_token_id
        counted_BL = (ends_BL.cumsum(dim=1) - ends_BL.long()) == 0
        total_B = chosen_BL.where(counted_BL, chosen_BL.new_zeros(())).sum(dim=1)
        means: list[float] = (total_B / counted_BL.sum(dim=1)).tolist()
        return means

    def _said(self, tokens: list[int], score: float) -> Said | ValueError:
        begins = self._text.bos_token_id  # [DEC]: some tokenizers take it for a word
        words = [token for token in tokens if token != begins]
        text = self._processor.tokenizer.decode(words, skip_special_tokens=True).strip()
        if not text:
            return ValueError("nothing was said")
        if not math.isfinite(score):
            return ValueError(f"its score is {score}, so the model computed no probabilities")
        return Said(text=text, score=score)


def _small(prepare: Any, picture: Any) -> npt.NDArray[np.uint8]:
    """(3, S, S) as the checkpoint's processor makes it."""
    import torch

    pixels = prepare(
        images=torch.from_numpy(rgb(picture)).permute(2, 0, 1),
        input_data_format="channels_first",
        do_rescale=False,
        do_normalize=False,
        return_tensors="np",
    )["pixel_values"][0]
    return np.asarray(pixels, np.uint8)


@functools.lru_cache(maxsize=2)
def _processor(weights: Weights) -> Any:
    return load_pretrained_processor("BlipProcessor", weights, option=OPTION)


def _check_size(model: Any, processor: Any, weights: Weights) -> None:
    needed = model.config.vision_config.image_size
    pictures = processor.image_processor
    size = (pictures.size["height"], pictures.size["width"])
    if not pictures.do_resize or size != (needed, needed):
        raise UserError(
            f"{OPTION}.source: {weights.path} makes pictures of {size[0]} x {size[1]} pixels; its "
            f"model takes {needed} x {needed}. Take the processor that belongs to the weights."
        )
