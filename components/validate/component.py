"""First task: resolve the configuration, so that a typing error costs seconds."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate(recipe: str, overrides: str) -> str:
    from crosswatch.stages import control

    return control.validate(recipe=recipe, overrides=overrides)
