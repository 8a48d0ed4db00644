"""A small DistilBERT with a small vocabulary, saved as the real one is."""

import json
from pathlib import Path

from crosswatch.features.weights.torchvision_shim import ensure_torchvision

WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] video shows also visible the robot arm a red box moves lifts"
)
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:'"
WIDTH = 32
POSITIONS = 64


def make_tiny_bert(folder: Path, *, seed: int = 0, safetensors: bool = True) -> Path:
    """The tokenizer and the weights, drawn from `seed`, as save_pretrained writes them."""
    ensure_torchvision()
    import torch
    from transformers import BertTokenizer, DistilBertConfig, DistilBertModel

    words = [*WORDS.split(), *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    vocabulary = {word: at for at, word in enumerate(dict.fromkeys(words))}
    BertTokenizer(vocab=vocabulary).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = DistilBertModel(
            DistilBertConfig(
                vocab_size=len(vocabulary),
                max_position_embeddings=POSITIONS,
                dim=WIDTH,
                hidden_dim=2 * WIDTH,
                n_layers=2,
                n_heads=4,
                initializer_range=0.5,  # so that neighbouring words matter
            )
        )
    model.save_pretrained(folder)
    if not safetensors:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    return folder


def claim_to_be(folder: Path, model_type: str) -> None:
    """Say another architecture in config.json."""
    path = folder / "config.json"
    described = json.loads(path.read_text())
    path.write_text(json.dumps(described | {"model_type": model_type}))
