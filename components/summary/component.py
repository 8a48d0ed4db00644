"""Exit handler: close the run's claims, whatever happened."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def summary(workspace: str, run_id: str, store: str, status: dsl.PipelineTaskFinalStatus) -> None:
    from crosswatch.stages import control

    control.summary(workspace=workspace, run_id=run_id, store=store, state=status.state)
