"""A tower of an open_clip model from the weights that are named: whole, never random.

The text tower is neither read nor built where pictures are asked for; that of some models would
have to be asked from the hub. `crosswatch.features.text.clip_text` builds CLIP's own alone.
"""

import dataclasses
import difflib
import functools
import json
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crosswatch.errors import UserError
from crosswatch.features.pictures.pixels import Preprocessing
from crosswatch.features.settings import ClipConfig
from crosswatch.features.weights.finding import ENDINGS, HUB_NAME, Weights, find_weights
from crosswatch.features.weights.torchvision_shim import ensure_torchvision
from crosswatch.records import WeightsConfig

SECTION = "features.clip"
CONFIG = "open_clip_config.json"
EXPECTED = (
    f"{CONFIG} and open_clip_model.safetensors, or a state dict (.safetensors, .pt) or published "
    "weights (as laion2b_s34b_b79k) of {section}.model"
)
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
ENDING_ORDER = (".safetensors", ".bin", ".pt", ".pth")  # and nothing but the first found of these
NAMED = 3  # of the tensors that do not fit, in a message
TOWER = "visual."  # names of the image tower's tensors begin so
NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipWeights:
    """
    Attributes:
        sha256: of the file, or of the folder that it lies in.
        model: what its architecture is called in messages.
        architecture: embed_dim, vision_cfg and quick_gelu of open_clip.
        text: its text_cfg.
        section: of the configuration that names them, for messages.
    """

    file: Path
    sha256: str
    model: str
    architecture: Mapping[str, Any]
    preprocessing: Preprocessing
    text: Mapping[str, Any]
    section: str = SECTION

    @property
    def source(self) -> str:
        return f"{self.section}.weights.source"


def find_clip(config: ClipConfig, *, instead: str, section: str = SECTION) -> ClipWeights:
    """
    Args:
        config: its source is a folder or file, a name on the hub, or one of the names that
            open_clip has for published weights of config.model (laion2b_s34b_b79k). A folder or
            repository with open_clip_config.json says its architecture itself.
        instead: as of `find_weights`.
        section: where `config` stands.

    Raises:
        UserError: there are no such weights, or no such model.
    """
    ensure_torchvision()
    import open_clip

    find = functools.partial(_find, section=section, instead=instead)
    on_hub = functools.partial(_on_hub, section=section, instead=instead)

    source = config.weights.source.removeprefix("local-dir:").removeprefix("hf-hub:")
    weights = dataclasses.replace(config.weights, source=source)
    model = config.model.replace("/", "-")  # ViT-B/32, as papers write it
    published = {} if Path(source).exists() else open_clip.get_pretrained_cfg(model, source)
    if published:
        repository, _, file = published["hf_hub"].rpartition("/")
        found = on_hub(weights, repository, file)
        # open_clip only warns where weights were trained with another activation than its model's.
        quick = {"quick_gelu": published.get("quick_gelu", False)}
        told = _registered(model, section) | quick
        return _clip_weights(found, found.path, model, told, published, section)
    if _is_repository(source):
        beside = dataclasses.replace(weights, source=f"{source}:{CONFIG}", sha256="")
        described = find(beside).path
        found = on_hub(weights, source, "")
        return _described(found, found.path, described, section)
    found = find(weights)
    file = _weights_file(found.path, section) if found.path.is_dir() else found.path
    if found.path.is_dir() and (found.path / CONFIG).is_file():
        return _described(found, file, found.path / CONFIG, section)
    return _clip_weights(found, file, model, _registered(model, section), _usual(model), section)


def load_tower(weights: ClipWeights) -> Any:
    """A torch module in float32 on the CPU, in eval mode and without gradients: pictures
    (N, 3, Y, X) to vectors (N, D), for some models with more beside.

    Raises:
        UserError: the weights are of another architecture, or cannot be read.
    """
    ensure_torchvision()
    import open_clip

    return load_into(
        lambda: open_clip.CustomTextCLIP(text_cfg=NO_TEXT, **weights.architecture).visual,
        weights,
        lambda name: name.removeprefix(TOWER) if name.startswith(TOWER) else None,
    )


def load_into(
    build: Callable[[], Any], weights: ClipWeights, own: Callable[[str], str | None]
) -> Any:
    """What `build` makes, with the tensors that belong to it: frozen, in eval mode.

    Args:
        own: what it calls a tensor of the file; None where that is none of its.

    Raises:
        UserError: the weights are of another architecture, or cannot be read.
    """
    if not weights.file.is_file():
        raise UserError(f"{weights.source}: {weights.file} is missing here. Put it there again.")
    try:
        tower = build()
    except Exception as error:  # whatever its parts say of values that they do not know
        raise UserError(
            f"{weights.source}: {weights.model} describes no model of open_clip: {_reason(error)}"
        ) from error
    tensors = _read_tensors(weights, own)
    misfits = _misfits(tensors, tower.state_dict())
    if misfits:
        raise UserError(
            f"{weights.source}: {weights.file} is not of {weights.model}: it {misfits}. Set "
            f"{weights.section}.model to the model that these weights are of, or name other "
            "weights."
        )
    tower.load_state_dict(tensors, strict=True)
    return tower.eval().requires_grad_(False)


def _registered(model: str, section: str) -> dict[str, Any]:
    import open_clip

    known = open_clip.list_models()
    if model not in known:
        close = difflib.get_close_matches(model, known, n=3, cutoff=0.4)
        hint = f" Did you mean {' or '.join(close)}?" if close else ""
        raise UserError(
            f"{section}.model {model!r} is none of the {len(known)} models of open_clip.{hint}"
        )
    return dict(open_clip.get_model_config(model))


def _usual(model: str) -> Mapping[str, Any]:
    """How weights in a bare file want pictures: as all that were published of the model do.

    open_clip takes the first CLIP's, which for SigLIP and others is wrong. Where published weights
    disagree, those are taken here too; a folder with open_clip_config.json can say it.
    """
    import open_clip

    names = ("mean", "std", "interpolation", "resize_mode")
    told = [
        {name: known[name] for name in names}
        for tag in open_clip.list_pretrained_tags_by_model(model)
        for known in [open_clip.get_pretrained_cfg(model, tag)]
    ]
    return told[0] if told and all(each == told[0] for each in told) else {}


def _described(found: Weights, file: Path, config: Path, section: str) -> ClipWeights:
    try:
        told = json.loads(config.read_text(encoding="utf-8"))
        architecture, preprocessing = dict(told["model_cfg"]), dict(told.get("preprocess_cfg", {}))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{section}.weights.source: {config} is no configuration of open_clip with model_cfg: "
            f"{_reason(error)}"
        ) from error
    return _clip_weights(found, file, config.name, architecture, preprocessing, section)


def _clip_weights(
    found: Weights,
    file: Path,
    model: str,
    told: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    section: str,
) -> ClipWeights:
    from open_clip.transform import PreprocessCfg

    where = f"{section}.weights.source"
    if not {"embed_dim", "vision_cfg"} <= set(told):
        raise UserError(f"{where}: {model} beside {file} lacks embed_dim or vision_cfg.")
    vision = dict(told["vision_cfg"]) | {"timm_model_pretrained": False}
    usual = dataclasses.asdict(PreprocessCfg())
    given = {key: preprocessing[key] for key in usual if preprocessing.get(key) is not None}
    size = {"size": vision.get("image_size", usual["size"])}  # the model decides, as in open_clip
    return ClipWeights(
        file=file,
        sha256=found.sha256,
        model=model,
        architecture={
            "embed_dim": told["embed_dim"],
            "vision_cfg": vision,
            "quick_gelu": bool(told.get("quick_gelu", False)),
        },
        preprocessing=Preprocessing.of(usual | given | size, where=f"{where}: {model}"),
        text=dict(told.get("text_cfg", {})),
        section=section,
    )


def _find(weights: WeightsConfig, *, section: str, instead: str) -> Weights:
    expected = EXPECTED.format(section=section)
    return find_weights(weights, option=f"{section}.weights", expected=expected, instead=instead)


def _on_hub(
    weights: WeightsConfig, repository: str, file: str, *, section: str, instead: str
) -> Weights:
    """One file: a repository may hold the same weights four times over."""
    names = (f"{Path(file).stem}.safetensors", file) if file else HUB_FILES
    refused: list[UserError] = []
    for name in dict.fromkeys(names):
        named = dataclasses.replace(weights, source=f"{repository}:{name}")
        try:
            return _find(named, section=section, instead=instead)
        except UserError as error:
            refused.append(error)
    raise refused[0]


def _is_repository(source: str) -> bool:
    """Whether it names a whole repository; what may be a missing file is none."""
    matched = HUB_NAME.fullmatch(source)
    might_be_file = Path(source).expanduser().exists() or Path(source).suffix in ENDINGS
    return matched is not None and matched["file"] is None and not might_be_file


def _weights_file(folder: Path, section: str) -> Path:
    for ending in ENDING_ORDER:
        files = sorted(folder.glob(f"*{ending}"))
        chosen = [file for file in files if file.name.startswith("open_clip")] or files
        if len(chosen) > 1:
            raise UserError(
                f"{section}.weights.source: {folder} holds "
                f"{', '.join(file.name for file in chosen[:5])}; name the file that is meant."
            )
        if chosen:
            return chosen[0]
    raise AssertionError(f"{folder} was found to hold weights")


def _read_tensors(weights: ClipWeights, own: Callable[[str], str | None]) -> dict[str, Any]:
    """Tensors that belong to a tower, by its names; no code of the file is run."""
    import safetensors
    import torch

    file = weights.file
    try:
        if file.suffix == ".safetensors":
            with safetensors.safe_open(file, framework="pt") as opened:
                names = [name for name in opened.keys() if own(name)]  # noqa: SIM118
                tensors = {name: opened.get_tensor(name) for name in names}
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a protocol: what is refused is told below
                tensors = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{weights.source}: {file} is no pickle of tensors alone, and what else is in it is "
            "not run. Take the .safetensors of these weights."
        ) from error
    except Exception as error:  # whatever damage there is
        raise UserError(f"{weights.source}: {file} cannot be read: {_reason(error)}") from error
    if isinstance(tensors, dict) and isinstance(tensors.get("state_dict"), dict):
        tensors = tensors["state_dict"]  # a checkpoint of open_clip's training
    if not isinstance(tensors, dict):
        raise UserError(f"{weights.source}: {file} holds no tensors by name, as a state dict does.")
    named = {str(name).removeprefix("module."): tensor for name, tensor in tensors.items()}
    owned = {own(name): tensor for name, tensor in named.items()}
    return {
        name: tensor for name, tensor in owned.items() if name and isinstance(tensor, torch.Tensor)
    }


def _misfits(tensors: Mapping[str, Any], needed: Mapping[str, Any]) -> str:
    """What is wrong with them; empty where nothing is.

    open_clip itself would stretch positions to another size of pictures.
    """
    lacks = [name for name in needed if name not in tensors]
    more = [name for name in tensors if name not in needed]
    shapes = [
        f"{name} {list(tensor.shape)} instead of {list(needed[name].shape)}"
        for name, tensor in tensors.items()
        if name in needed and tensor.shape != needed[name].shape
    ]
    told = [("lacks", lacks), ("has also", more), ("has", shapes)]
    return "; ".join(f"{verb} {_first(names)}" for verb, names in told if names)


def _first(names: list[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + rest


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
