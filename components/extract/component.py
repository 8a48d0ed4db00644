"""Encode pictures, sound and captions into features, each row with its time."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def extract(
    settings: str,
    workspace: str,
    run_id: str,
    store: str,
    batches: dsl.Input[dsl.Dataset],
    captions: dsl.Input[dsl.Dataset],
    out: dsl.Output[dsl.Dataset],
) -> None:
    from crosswatch.stages import control

    control.run_stage(
        "extract",
        settings,
        workspace=workspace,
        run_id=run_id,
        store=store,
        batches=batches.path,
        captions=captions.path,
        known=f"{workspace}/features",
        originals=f"{workspace}/batches/deliveries",
        out=out.path,
    )
