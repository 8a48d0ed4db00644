"""Turn an expert's sparse notes into a box, a class and a mask."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def refine(
    settings: str,
    workspace: str,
    run_id: str,
    store: str,
    batches: dsl.Input[dsl.Dataset],
    out: dsl.Output[dsl.Dataset],
) -> None:
    from crosswatch.stages import control

    control.run_stage(
        "refine",
        settings,
        workspace=workspace,
        run_id=run_id,
        store=store,
        batches=batches.path,
        out=out.path,
    )
