"""What a run needs that does not come with Crosswatch: pretrained weights, and what they are of."""

import dataclasses
from collections.abc import Callable
from typing import Literal

from crosswatch.errors import UserError
from crosswatch.experiment import Experiment
from crosswatch.features.settings import EncoderName, FeatureConfig
from crosswatch.features.weights.finding import NotFetchedError
from crosswatch.models.settings.vad import VadConfig
from crosswatch.records import WeightsConfig

State = Literal["here", "to be fetched", "missing"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Need:
    """Weights that a configuration would load.

    Attributes:
        option: where they are named, as features.clip.weights.
        model: what they are of.
        find: raises UserError where these are missing, damaged or others than those meant.
    """

    option: str
    model: str
    weights: WeightsConfig
    find: Callable[[WeightsConfig], object]

    def look(self) -> tuple[State, str]:
        """Whether they are here, and in one line why not; looks them up, and fetches nothing."""
        try:
            self.find(dataclasses.replace(self.weights, download=False))
        except NotFetchedError as error:
            return ("to be fetched", "") if self.weights.download else ("missing", str(error))
        except UserError as error:
            return "missing", str(error)
        return "here", ""


def needs_of(experiment: Experiment) -> tuple[Need, ...]:
    """Every weight that some stage would load, in the order of the stages."""
    encoders = experiment.features.encoders
    needs = _of_captions(experiment)
    needs += [need for name in encoders for need in _of_encoder(name, experiment.features)]
    needs += _of_model(experiment)
    # Two encoders over the same weights need them once.
    return tuple({need.option: need for need in needs}.values())


def refuse_missing(experiment: Experiment) -> None:
    """Tell everything that is missing at once, before there is work to lose.

    Raises:
        UserError: weights are not named, not here, or not those that were meant.
    """
    looked = [need.look() for need in needs_of(experiment)]
    faults = [why for state, why in looked if state == "missing"]
    if len(faults) == 1:
        raise UserError(faults[0])
    if faults:
        told = " ".join(f"({number}) {fault}" for number, fault in enumerate(faults, start=1))
        raise UserError(f"{len(faults)} models lack their weights. {told}")


def _of_captions(experiment: Experiment) -> list[Need]:
    caption = experiment.caption
    if caption.source != "blip":
        return []

    def find(weights: WeightsConfig) -> object:
        from crosswatch.features.captioning.blip import BlipCaptioner

        blip = dataclasses.replace(caption.blip, weights=weights)
        return BlipCaptioner(blip, caption.frames, caption.compute.precision).identity

    return [
        Need(option="caption.blip.weights", model="BLIP", weights=caption.blip.weights, find=find)
    ]


def _of_encoder(name: EncoderName, features: FeatureConfig) -> list[Need]:
    section = _section_of(name, features)
    if section is None:
        return []
    settings = getattr(features, section)

    def find(weights: WeightsConfig) -> object:
        from crosswatch.features.encoders import ENCODERS

        named = {section: dataclasses.replace(settings, weights=weights)}
        return ENCODERS[name].build(dataclasses.replace(features, **named), ()).identity

    models = {
        "clip": f"CLIP {features.clip.model}",
        "audio": features.audio.source,
        "distilbert": "DistilBERT",
        "word2vec": "word2vec",
    }
    option = f"features.{section}.weights"
    return [Need(option=option, model=models[section], weights=settings.weights, find=find)]


def _of_model(experiment: Experiment) -> list[Need]:
    model = experiment.model
    if not isinstance(model, VadConfig) or model.class_text != "clip":
        return []
    text = model.text

    def find(weights: WeightsConfig) -> object:
        from crosswatch.features.pictures.clip_weights import find_clip
        from crosswatch.training.resources import INSTEAD, clip_of

        named = clip_of(dataclasses.replace(text, weights=weights))
        return find_clip(named, instead=INSTEAD, section="model.text")

    return [
        Need(
            option="model.text.weights", model=f"CLIP {text.model}", weights=text.weights, find=find
        )
    ]


def _section_of(name: EncoderName, features: FeatureConfig) -> str | None:
    """The part of `features` that names the weights of an encoder; None where it needs none."""
    if name == "image":
        return "clip" if features.image.source == "clip" else None
    if name == "audio":
        return None if features.audio.source == "log_mel" else "audio"
    return name if name in ("clip", "distilbert", "word2vec") else None
