"""A small open_clip model, saved by open_clip's and torch's own functions."""

import json
import types
from pathlib import Path
from typing import Any

from crosswatch.features.weights.torchvision_shim import ensure_torchvision

MODEL = "tiny-clip"
"""Its name, once `register` was called."""
SIZE_PX = 32
WIDTH = 24  # of a vector
CONFIG: dict[str, Any] = {
    "embed_dim": WIDTH,
    "vision_cfg": {
        "image_size": SIZE_PX,
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
    },
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 2, "layers": 1},
}
PREPROCESSING = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3]}


def build(*, seed: int = 0, size_px: int = SIZE_PX, vision: dict[str, Any] | None = None) -> Any:
    """Random, and lively enough that pictures of different things get different vectors."""
    ensure_torchvision()
    import open_clip
    import torch

    torch.manual_seed(seed)
    model = open_clip.CLIP(**_config(size_px, vision or {})).eval()
    with torch.no_grad():
        for values in model.visual.parameters():
            if values.ndim > 1:
                values.normal_(std=2 * values[0].numel() ** -0.5)
    open_clip.set_model_preprocess_cfg(model, _preprocessing(size_px))
    return model


def save_folder(
    folder: Path,
    *,
    preprocessing: dict[str, Any] | None = None,
    size_px: int = SIZE_PX,
    **changes: Any,
) -> Path:
    """open_clip_config.json and open_clip_model.safetensors, as `local-dir:` takes them."""
    model = build(size_px=size_px, **changes)
    import open_clip
    from open_clip.push_to_hf_hub import save_for_hf

    open_clip.set_model_preprocess_cfg(model, _preprocessing(size_px) | (preprocessing or {}))
    no_tokenizer = types.SimpleNamespace(save_pretrained=lambda _: None)
    config = _config(size_px, changes.get("vision") or {})
    save_for_hf(model, no_tokenizer, config, str(folder), safe_serialization=True)
    return folder


def save_file(path: Path, **changes: Any) -> Path:
    """A state dict, as .safetensors or .pt."""
    model = build(**changes)
    import safetensors.torch
    import torch

    if path.suffix == ".safetensors":
        safetensors.torch.save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    return path


def register(folder: Path) -> str:
    """Let open_clip know the model by name, in this process; `folder` has to stay."""
    ensure_torchvision()
    import open_clip

    (folder / f"{MODEL}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / f"{MODEL}.json")
    return MODEL


def _config(size_px: int, vision: dict[str, Any]) -> dict[str, Any]:
    return CONFIG | {"vision_cfg": CONFIG["vision_cfg"] | {"image_size": size_px} | vision}


def _preprocessing(size_px: int) -> dict[str, Any]:
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    return merge_preprocess_dict(PreprocessCfg(), {"size": size_px, **PREPROCESSING})
