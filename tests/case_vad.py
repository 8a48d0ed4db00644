"""VadCLIP and ClipFusionVAD, small: see test_model_laws."""

from model_case import Inputs, ModelCase, random_tokens, target_of

from crosswatch.models.settings.vad import VadConfig
from crosswatch.records import InputShape

WIDTH, CLASSES = 16, 3
NOT_READ = ("relate.sigma",)


def inputs(seed: int, count: int) -> Inputs:
    return (random_tokens(WIDTH, count=count, length=7, seed=seed),)


def case(config: VadConfig, dead: tuple[str, ...] = ()) -> ModelCase:
    return ModelCase(
        config=config,
        shape=InputShape(classes=CLASSES, widths=(WIDTH,)),
        inputs=inputs,
        target=lambda count: target_of(count, CLASSES),
        removable=(0,),
        dead=dead,
        tolerance=2e-5,  # the distance graph makes values of a hundred
    )


SMALL = {"length": 16, "window": 3, "snippets_per_pick": 4}
CASES = {
    "vadclip": case(VadConfig(model="vadclip", layers=1, **SMALL), NOT_READ),
    "clipfusion_vad": case(VadConfig(layers=2, **SMALL), NOT_READ),
    "clipfusion_vad-own": case(
        VadConfig(layers=1, gam="channel", aggregator=False, compat_graph=False, **SMALL)
    ),
}
