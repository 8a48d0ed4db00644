"""Models of transformers from a folder: whole, of the right architecture, and without its code."""

import contextlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crosswatch.errors import UserError
from crosswatch.features.weights.finding import Weights, holds_safetensors
from crosswatch.features.weights.torchvision_shim import ensure_torchvision

CONFIG = "config.json"
NAMED = 3  # of missing tensors, in a message
UNUSED = ("position_ids", "masked_spec_embed")
"""Parts of names of tensors that older checkpoints lack: counted up, or used in training only."""
TORCH_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def load_pretrained(
    cls_name: str,
    weights: Weights,
    *,
    kind: tuple[str, ...],
    option: str,
    unused: tuple[str, ...] = (),
) -> Any:
    """A model in float32 on the CPU, in eval mode and without gradients.

    Args:
        cls_name: a class of transformers, as BlipForConditionalGeneration.
        kind: which `model_type` in config.json will do.
        option: where the weights are named, as features.distilbert.weights.
        unused: parts of names of tensors that may be missing, since the caller never asks them.

    Raises:
        UserError: it is another architecture, lacks tensors, or cannot be read.
    """
    import torch

    folder = weights.path
    _check_kind(folder, kind=kind, option=option)
    ensure_torchvision()
    import transformers

    cls = getattr(transformers, cls_name)
    try:
        with _quiet():
            model, report = cls.from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=holds_safetensors(folder),
                weights_only=True,
                ignore_mismatched_sizes=True,  # reported below, by name
                output_loading_info=True,
            )
    except Exception as error:  # whatever damage there is, of whatever library
        raise UserError(_unreadable(folder, error, option=option)) from error
    _check_whole(report, folder, harmless=UNUSED + unused, option=option)
    return model.eval().requires_grad_(False)


def load_pretrained_processor(cls_name: str, weights: Weights, *, option: str) -> Any:
    """A tokenizer, feature extractor or processor: AutoTokenizer and the like.

    Raises:
        UserError: its files are missing or cannot be read.
    """
    ensure_torchvision()
    import transformers

    try:
        with _quiet():
            return getattr(transformers, cls_name).from_pretrained(
                weights.path, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # whatever damage there is, of whatever library
        raise UserError(_unreadable(weights.path, error, option=option)) from error


def torch_dtype(precision: str) -> Any:
    """The torch.dtype of fp32, bf16 or fp16."""
    import torch

    return getattr(torch, TORCH_DTYPES[precision])


def _check_kind(folder: Path, *, kind: tuple[str, ...], option: str) -> None:
    wanted = " or ".join(kind)
    if not folder.is_dir():
        raise UserError(
            f"{option}.source: {folder} is a file; a folder of a {wanted} model with {CONFIG} and "
            "*.safetensors is needed."
        )
    try:
        described = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{option}.source: {folder} holds no {CONFIG}. Put the {CONFIG} of the {wanted} model "
            "beside its weights."
        ) from error
    except ValueError as error:
        raise UserError(f"{option}.source: {folder / CONFIG} is damaged: {error}.") from error
    found = described.get("model_type") if isinstance(described, dict) else None
    if found not in kind:
        raise UserError(
            f"{option}.source: {folder} is a {found or 'model without model_type'}; a {wanted} is "
            "needed. Name other weights."
        )


def _check_whole(
    report: dict[str, Any], folder: Path, *, harmless: tuple[str, ...], option: str
) -> None:
    """Tensors that are not in the file would be drawn at random."""
    missing = sorted(
        key for key in report["missing_keys"] if not any(part in key for part in harmless)
    )
    misfit = sorted(
        f"{key} {list(found)} instead of {list(needed)}"
        for key, found, needed in report["mismatched_keys"]
    )
    faults = [(missing, "lacks"), (misfit, "has"), (sorted(report["error_msgs"]), "says")]
    for names, verb in faults:
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            raise UserError(
                f"{option}.source: {folder} {verb} {', '.join(names[:NAMED])}{more}, so parts of "
                "the model would be random. Name the weights of the whole model."
            )


def _unreadable(folder: Path, error: Exception, *, option: str) -> str:
    if isinstance(error, pickle.UnpicklingError):  # whose advice is to run the code
        return (
            f"{option}.source: {folder} holds a pickle of more than tensors, which could run code; "
            "it was not run. Name weights as *.safetensors."
        )
    reason = " ".join(str(error).split()) or type(error).__name__
    return (
        f"{option}.source: {folder} cannot be loaded: {reason[:300]}. Name a folder that "
        "save_pretrained wrote, or fetch it again."
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and tables: what matters of them is checked and said in one line."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
