"""Describe pictures in sentences: BLIP, a table, or templates without weights."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def caption(
    settings: str,
    workspace: str,
    run_id: str,
    store: str,
    batches: dsl.Input[dsl.Dataset],
    out: dsl.Output[dsl.Dataset],
) -> None:
    from crosswatch.stages import control

    control.run_stage(
        "caption",
        settings,
        workspace=workspace,
        run_id=run_id,
        store=store,
        batches=batches.path,
        known=f"{workspace}/captions",
        originals=f"{workspace}/batches/deliveries",
        out=out.path,
    )
