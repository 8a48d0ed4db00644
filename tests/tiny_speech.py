"""A small wav2vec 2.0 and a small AST, saved as the real ones are."""

from pathlib import Path
from typing import Any, Literal

from crosswatch.features.weights.torchvision_shim import ensure_torchvision

WIDTH = 32
COLUMNS = 256
"""Of 10 ms, that the small AST listens to."""


def make_tiny_wav2vec2(
    folder: Path, *, norm: Literal["group", "layer"] = "group", **others: Any
) -> Path:
    """`group` normalises over time as wav2vec2-base does, `layer` as wav2vec2-large-lv60."""
    ensure_torchvision()
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    settings = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 2 * WIDTH,
        "conv_dim": (16,) * 7,
        "num_conv_pos_embeddings": 8,
        "num_conv_pos_embedding_groups": 2,
        "feat_extract_norm": norm,
        "do_stable_layer_norm": norm == "layer",
        "initializer_range": 0.3,
    }
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=norm == "layer")
    extractor.save_pretrained(folder)
    _save(Wav2Vec2Model, Wav2Vec2Config(**settings | others), folder)
    return folder


def make_tiny_ast(folder: Path, **others: Any) -> Path:
    ensure_torchvision()
    from transformers import ASTConfig, ASTFeatureExtractor, ASTModel

    settings = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 2 * WIDTH,
        "num_mel_bins": 40,
        "max_length": COLUMNS,
        "initializer_range": 0.3,
    }
    ASTFeatureExtractor(num_mel_bins=40, max_length=COLUMNS).save_pretrained(folder)
    _save(ASTModel, ASTConfig(**settings | others), folder)
    return folder


def _save(model_class: Any, config: Any, folder: Path) -> None:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model_class(config).save_pretrained(folder)
