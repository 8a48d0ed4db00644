"""Two FmFormers that were trained apart, one on video and one on current, as one detector.

Their class logits are summed without training (Wu et al., Table IV, "Cross-modality + LF").
"""

import dataclasses
from pathlib import Path

from crosswatch import artifacts, config
from crosswatch.errors import UserError
from crosswatch.models.detector import Detector, DetectorFacts, load_detector, save_detector
from crosswatch.models.settings.fmformer import FmFormerConfig
from crosswatch.models.settings.fmformer_fused import FusedConfig
from crosswatch.stages.train import CHECKPOINT


def fuse(visual: Path, current: Path, out: Path) -> None:
    """Write a checkpoint that `evaluate` and `register` take as any other.

    Raises:
        UserError: they are no such pair, or were trained on different batches or labels.
    """
    for path in (visual, current):
        if path.resolve() == out.resolve():
            raise UserError(f"--out {out}: is one of the two models. Write somewhere else.")
    manifests = [artifacts.open_artifact(path, kind=CHECKPOINT) for path in (visual, current)]
    for role in ("batches", "labels"):
        if manifests[0].parents[role] != manifests[1].parents[role]:
            raise UserError(
                f"{visual} and {current} were trained on different {role}; train both on the same."
            )
    seen, measured = load_detector(visual), load_detector(current)
    facts = _facts(seen, measured, visual, current)
    facts.build()  # refuses what is no pair before anything is written
    weights = {f"visual.{name}": value for name, value in seen.module.state_dict().items()}
    weights |= {f"current.{name}": value for name, value in measured.module.state_dict().items()}
    parents = {**manifests[0].parents, "visual": manifests[0].digest,
               "current": manifests[1].digest}  # fmt: skip
    settings = {"windows": config.plain(facts.windows), "model": config.plain(facts.model)}
    with artifacts.create(out, kind=CHECKPOINT, config=settings, parents=parents) as draft:
        save_detector(
            draft.path,
            facts,
            weights,
            seen=[dataclasses.asdict(item) for item in dict.fromkeys((*seen.seen, *measured.seen))],
            selected_by=f"fused: {seen.selected_by}; {measured.selected_by}",
        )
        artifacts.write_json(draft / "curves.json", [])


def _facts(seen: Detector, measured: Detector, visual: Path, current: Path) -> DetectorFacts:
    first, second = seen.facts, measured.facts
    for path, model, modality in (
        (visual, first.model, "visual"),
        (current, second.model, "current"),
    ):
        found = model.modality if isinstance(model, FmFormerConfig) else model.name
        if found != modality:
            raise UserError(
                f"{path}: is of modality {found}, and an FmFormer of modality {modality} is needed"
            )
    if first.classes != second.classes:
        raise UserError(
            f"{visual} knows classes {', '.join(first.classes)}; {current} knows "
            f"{', '.join(second.classes)}. Train both on the same labels."
        )
    for name in ("early", "per_second"):
        if getattr(first.windows, name) != getattr(second.windows, name):
            raise UserError(
                f"windows.{name} is {getattr(first.windows, name)} in {visual} and "
                f"{getattr(second.windows, name)} in {current}; train both with the same."
            )
    assert isinstance(first.model, FmFormerConfig)
    assert isinstance(second.model, FmFormerConfig)
    return dataclasses.replace(
        first,
        model=FusedConfig(visual=first.model, current=second.model),
        shape=dataclasses.replace(
            first.shape,
            signal_samples=second.shape.signal_samples,
            signal_channels=second.shape.signal_channels,
        ),
        windows=dataclasses.replace(
            second.windows, frames=first.windows.frames, stride=first.windows.stride
        ),
        statistics=second.statistics,
    )
