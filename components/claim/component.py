"""Second task: claim the batches that have arrived, so that each is worked on once."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def claim(
    settings: str,
    recipe: str,
    batches: str,
    workspace: str,
    run_id: str,
    store: str,
    data_revision: str,
    again: bool,
) -> str:
    from crosswatch.stages import control

    return control.claim(
        settings=settings,
        recipe=recipe,
        batches=batches,
        workspace=workspace,
        run_id=run_id,
        store=store,
        data_revision=data_revision,
        again=again,
    )
