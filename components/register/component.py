"""Register a checkpoint in MLflow and promote it if it beats the champion."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(
    settings: str,
    workspace: str,
    run_id: str,
    store: str,
    data_revision: str,
    checkpoint: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    batches: dsl.Input[dsl.Dataset],
    labels: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Dataset],
    out: dsl.Output[dsl.Artifact],
) -> None:
    from crosswatch.stages import control

    control.run_stage(
        "register",
        settings,
        workspace=workspace,
        run_id=run_id,
        store=store,
        lineage={"kfp_run_id": run_id, "data_revision": data_revision},
        checkpoint=checkpoint.path,
        evaluation=evaluation.path,
        batches=batches.path,
        labels=labels.path,
        features=features.path,
        registry=workspace,
        out=out.path,
    )
