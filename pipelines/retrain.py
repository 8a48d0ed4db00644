"""From delivered batches to a promoted detector."""

from kfp import dsl

from components.caption.component import caption
from components.claim.component import claim
from components.evaluate.component import evaluate
from components.extract.component import extract
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
    workspace: str,
    batches: str = "",
    recipe: str = "fmformer-furnace",
    overrides: str = "{}",
    store: str = "",
    data_revision: str = "",
    again: bool = False,
) -> None:
    """Retrain on new production batches.

    Args:
        workspace: Folder for known batches, claims, checkpoints and the registry.
        batches: Deliveries of the plant, one folder a batch: a folder or s3://bucket/prefix.
            Empty: those that data_revision names.
        recipe: Name of the packaged recipe.
        overrides: YAML over the recipe, such as {train: {epochs: 8}}.
        store: Where artifacts, known batches and claims are kept (s3://bucket/prefix or a
            folder), so that only manifests pass between tasks. Empty: in the workspace.
        data_revision: Manifest that `crosswatch data resolve` wrote, or its digest in the store.
        again: Work on batches that were already done.
    """
    run_id = dsl.PIPELINE_JOB_ID_PLACEHOLDER
    # A cache key sees paths, not what lies there: tasks that read the workspace run every time.
    closing = summary(workspace=workspace, run_id=run_id, store=store)
    closing.set_caching_options(False)
    with dsl.ExitHandler(closing):
        settings = validate(recipe=recipe, overrides=overrides).output
        claimed = claim(
            settings=settings,
            recipe=recipe,
            batches=batches,
            workspace=workspace,
            run_id=run_id,
            store=store,
            data_revision=data_revision,
            again=again,
        )
        claimed.set_caching_options(False)
        with dsl.If(claimed.output == "proceed", name="batches-won"):
            data = ingest(
                settings=settings,
                workspace=workspace,
                run_id=run_id,
                store=store,
                batches=batches,
                data_revision=data_revision,
            )
            data.set_caching_options(False)
            labels = refine(
                settings=settings,
                workspace=workspace,
                run_id=run_id,
                store=store,
                batches=data.output,
            )
            labels.set_caching_options(False)
            captions = caption(
                settings=settings,
                workspace=workspace,
                run_id=run_id,
                store=store,
                batches=data.output,
            )
            captions.set_caching_options(False)
            features = extract(
                settings=settings,
                workspace=workspace,
                run_id=run_id,
                store=store,
                batches=data.output,
                captions=captions.output,
            )
            features.set_caching_options(False)
            checkpoint = train(
                settings=settings,
                workspace=workspace,
                run_id=run_id,
                store=store,
                batches=data.output,
                labels=labels.output,
                features=features.output,
            )
            checkpoint.set_caching_options(False)
            evaluation = evaluate(
                settings=settings,
                workspace=workspace,
                run_id=run_id,
                store=store,
                checkpoint=checkpoint.output,
                batches=data.output,
                labels=labels.output,
                features=features.output,
                captions=captions.output,
            )
            evaluation.set_caching_options(False)
            registered = register(
                settings=settings,
                workspace=workspace,
                run_id=run_id,
                store=store,
                data_revision=data_revision,
                checkpoint=checkpoint.output,
                evaluation=evaluation.output,
                batches=data.output,
                labels=labels.output,
                features=features.output,
            )
            registered.set_caching_options(False)
