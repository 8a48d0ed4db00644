"""Verify, decode and synchronise deliveries into a batch set with splits."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(
    settings: str, batches: str, workspace: str, run_id: str, out: dsl.Output[dsl.Dataset]
) -> None:
    from crosswatch.stages import control

    control.run_stage(
        "ingest",
        settings,
        run_folder=f"{workspace}/runs/{run_id}",
        arrivals=batches,
        known=f"{workspace}/batches",
        out=out.path,
    )
