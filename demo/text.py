"""The demo text encoder: ComfyUI's CLIP text model with a small vocabulary and 32 positions."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from comfy.clip_model import CLIPTextModel
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel, SDTokenizer
from comfy.supported_models_base import ClipTarget

TOKENIZER_FOLDER = Path(__file__).resolve().parent / "tokenizer"


def tokenizer_facts(folder: Path = TOKENIZER_FOLDER) -> dict:
    """`vocab_size`, `bos_token_id` and `eos_token_id` of the tokenizer's files."""
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    return {
        "vocab_size": len(vocab),
        "bos_token_id": vocab["<|startoftext|>"],
        "eos_token_id": vocab["<|endoftext|>"],
    }


class DemoTextModel(CLIPTextModel):
    """The host's CLIP text model; the host fixes the vocabulary at 49408, we need about 1000."""

    def __init__(self, config_dict, dtype, device, operations) -> None:
        super().__init__(config_dict, dtype, device, operations)
        size = (config_dict["vocab_size"], config_dict["hidden_size"])
        self.set_input_embeddings(operations.Embedding(*size, dtype=dtype, device=device))


class DemoSDClip(SDClipModel):
    """Token weighting, chunking and pooling as the host does it for CLIP-L."""

    def __init__(self, config: dict, device="cpu", dtype=None, model_options=None) -> None:
        super().__init__(
            device=device,
            dtype=dtype,
            model_options=model_options or {},
            max_length=config["max_position_embeddings"],
            layer="last",
            textmodel_json_config=dict(config),
            model_class=DemoTextModel,
            special_tokens={
                "start": config["bos_token_id"],
                "end": config["eos_token_id"],
                "pad": config["eos_token_id"],
            },
        )


class DemoSDTokenizer(SDTokenizer):
    """The host's tokenizer class over our own word list."""

    def __init__(self, config: dict, folder: Path, embedding_directory=None,
                 tokenizer_data=None) -> None:  # fmt: skip
        super().__init__(
            tokenizer_path=str(folder),
            max_length=config["max_position_embeddings"],
            embedding_directory=embedding_directory,
            embedding_size=config["hidden_size"],
            tokenizer_data=tokenizer_data or {},
        )


def clip_target(config: dict, folder: Path = TOKENIZER_FOLDER) -> ClipTarget:
    """What `comfy.sd.CLIP` needs to build the tokenizer and the model, under the name `clip_l`."""
    return ClipTarget(
        partial(SD1Tokenizer, tokenizer=partial(DemoSDTokenizer, config, folder)),
        partial(SD1ClipModel, clip_model=partial(DemoSDClip, config)),
    )
