"""Score a checkpoint on the evaluation set, with intervals and plots."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    settings: str,
    workspace: str,
    run_id: str,
    store: str,
    checkpoint: dsl.Input[dsl.Model],
    batches: dsl.Input[dsl.Dataset],
    labels: dsl.Input[dsl.Dataset],
    features: dsl.Input[dsl.Dataset],
    captions: dsl.Input[dsl.Dataset],
    out: dsl.Output[dsl.Artifact],
) -> None:
    from crosswatch.stages import control

    control.run_stage(
        "evaluate",
        settings,
        workspace=workspace,
        run_id=run_id,
        store=store,
        checkpoint=checkpoint.path,
        batches=batches.path,
        labels=labels.path,
        features=features.path,
        captions=captions.path,
        out=out.path,
    )
