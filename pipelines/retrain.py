"""From delivered batches to a promoted detector."""

from kfp import dsl

from components.claim.component import claim
from components.evaluate.component import evaluate
from components.ingest.component import ingest
from components.refine.component import refine
from components.register.component import register
from components.summary.component import summary
from components.train.component import train
from components.validate.component import validate


@dsl.pipeline(
    name="retrain",
    description="Retrain, evaluate and promote a detector on the batches that have arrived.",
)
def retrain(
    batches: str,
    workspace: str,
    recipe: str = "fmformer-furnace",
    overrides: str = "{}",
    data_revision: str = "",
    again: bool = False,
) -> None:
    """Retrain on new production batches.

    Args:
        batches: Folder with the deliveries of the plant, one folder a batch.
        workspace: Folder for known batches, claims, checkpoints and the registry.
        recipe: Name of the packaged recipe.
        overrides: YAML over the recipe, such as {train: {epochs: 8}}.
        data_revision: Revision of the deliveries, recorded as lineage.
        again: Work on batches that were already done.
    """
    run_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    # A cache key sees paths, not what lies there: tasks that read the workspace run every time.
    closing = summary(workspace=workspace, run_id=run_id)
    closing.set_caching_options(False)
    with dsl.ExitHandler(closing):
        settings = validate(recipe=recipe, overrides=overrides).output
        claimed = claim(
            settings=settings,
            recipe=recipe,
            batches=batches,
            workspace=workspace,
            run_id=run_id,
            again=again,
        )
        claimed.set_caching_options(False)
        with dsl.If(claimed.output == "proceed", name="batches-won"):
            data = ingest(settings=settings, batches=batches, workspace=workspace, run_id=run_id)
            data.set_caching_options(False)
            labels = refine(settings=settings, batches=data.output)
            checkpoint = train(
                settings=settings, workspace=workspace, batches=data.output, labels=labels.output
            )
            checkpoint.set_caching_options(False)
            evaluation = evaluate(
                settings=settings,
                checkpoint=checkpoint.output,
                batches=data.output,
                labels=labels.output,
            )
            registered = register(
                settings=settings,
                workspace=workspace,
                run_id=run_id,
                data_revision=data_revision,
                checkpoint=checkpoint.output,
                evaluation=evaluation.output,
                batches=data.output,
                labels=labels.output,
            )
            registered.set_caching_options(False)
