"""A BLIP of a few thousand random weights, written as transformers itself writes it."""

from pathlib import Path

WORDS = (
    "a", "an", "the", "of", "on", "in", "and", "with", "without", "red", "green", "blue",
    "grey", "bright", "dark", "small", "large", "picture", "video", "flame", "furnace", "slag",
    "metal", "smoke", "mist", "light", "spot", "wall", "cup", "plate", "man", "dog", "left",
    "right", "top", "bottom", "middle", "moves", "burns", "shines", "stands", "falls", "grows",
)  # fmt: skip
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]")
SIZE_PX = 24
ENDING = 5.0  # how much more likely a sentence ends than by chance


def write_tiny_blip(
    folder: Path,
    *,
    seed: int = 6,
    ending: float = ENDING,
    decoder_is_special: bool = True,
    processor_px: int = SIZE_PX,
) -> Path:
    """Weights, configuration and processor of a captioner whose words depend on the picture."""
    from crosswatch.features.weights.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    import torch
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    vocabulary = {word: at for at, word in enumerate((*SPECIAL, *WORDS))}
    narrow = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "initializer_range": 1.0,  # so that pictures differ
    }
    config = BlipConfig(
        text_config={
            **narrow,
            "vocab_size": len(vocabulary),
            "encoder_hidden_size": 16,
            "max_position_embeddings": 64,
            "bos_token_id": vocabulary["[DEC]"],
            "eos_token_id": vocabulary["[SEP]"],
            "sep_token_id": vocabulary["[SEP]"],
            "pad_token_id": vocabulary["[PAD]"],
        },
        vision_config={**narrow, "image_size": SIZE_PX, "patch_size": 8},
        projection_dim=16,
        image_text_hidden_size=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BlipForConditionalGeneration(config)
        with torch.no_grad():  # so that sentences differ in length
            model.text_decoder.cls.predictions.bias[vocabulary["[SEP]"]] += ending
    special = ["[DEC]"] if decoder_is_special else []
    tokenizer = BertTokenizer(vocab=vocabulary, additional_special_tokens=special)
    pictures = BlipImageProcessor(size={"height": processor_px, "width": processor_px})
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    BlipProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder
