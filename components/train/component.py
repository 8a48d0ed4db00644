"""Train a detector under Ray Train, with checkpoints."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    settings: str,
    workspace: str,
    run_id: str,
    store: str,
    batches: dsl.Input[dsl.Dataset],
    labels: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Dataset],
    out: dsl.Output[dsl.Model],
) -> None:
    from crosswatch.stages import control

    control.run_stage(
        "train",
        settings,
        workspace=workspace,
        run_id=run_id,
        store=store,
        batches=batches.path,
        labels=labels.path,
        features=features.path,
        checkpoints=f"{workspace}/checkpoints",
        out=out.path,
    )
