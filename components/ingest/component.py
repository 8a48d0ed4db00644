"""Verify, decode and synchronise deliveries into a batch set with splits."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(
    settings: str,
    workspace: str,
    run_id: str,
    store: str,
    batches: str,
    data_revision: str,
    out: dsl.Output[dsl.Dataset],
) -> None:
    from crosswatch.stages import control

    control.run_stage(
        "ingest",
        settings,
        workspace=workspace,
        run_id=run_id,
        store=store,
        arrivals=batches,
        known=f"{workspace}/batches",
        revision=data_revision,
        out=out.path,
    )
