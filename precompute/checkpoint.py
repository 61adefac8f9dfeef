"""An encoder's checkpoint: its weights and its processor, loaded and described.

Weights come from safetensors only and no remote code is run.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..cache.errors import InputError


def load_model(name: str, modality: str) -> tuple[nn.Module, list[str]]:
    """The encoder in float32, frozen, and the names of weights that its checkpoint lacks."""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    _require_folder(name)
    try:
        model, info = AutoModel.from_pretrained(
            name,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"encoder {name}: cannot be loaded ({reason})") from error
    missing = sorted(info["missing_keys"])
    lost = [key for key in missing if "pooler" not in key]
    if lost:
        raise InputError(
            f"encoder {name}: the checkpoint lacks {len(lost)} weights, {lost[0]} among them; "
            "they would be random, and so would the embeddings"
        )
    model = _tower(model, modality)
    return model.eval().requires_grad_(False), missing


def _tower(model: Any, modality: str) -> nn.Module:
    """The encoder itself, where a checkpoint holds more: one tower of CLIP, T5 without decoder."""
    tower = getattr(model, "vision_model" if modality == "image" else "text_model", None)
    if isinstance(tower, nn.Module):
        return tower
    if getattr(model.config, "is_encoder_decoder", False):
        return model.get_encoder()
    return model


def _require_folder(name: str) -> None:
    looks_local = name.startswith((".", "/", "~")) or Path(name).is_dir()
    if looks_local and not (Path(name) / "config.json").is_file():
        raise InputError(
            f"encoder {name}: no config.json there; give a folder that save_pretrained wrote, "
            "or a name of the hub"
        )


def load_processor(name: str, modality: str) -> Any:
    """The tokenizer or image processor; always the Pillow one, so that machines agree."""
    from transformers import AutoImageProcessor, AutoTokenizer

    try:
        processor: Any = (
            AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            if modality == "text"
            else AutoImageProcessor.from_pretrained(name, trust_remote_code=False, backend="pil")
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        kind = "tokenizer" if modality == "text" else "image processor"
        raise InputError(f"encoder {name}: it has no {kind} ({reason})") from error
    if modality == "text" and processor.pad_token is None:
        processor.pad_token = processor.eos_token
    return processor


def weights_digest(model: nn.Module, missing: list[str]) -> str:
    """SHA-256 over names and float32 values of all weights that the checkpoint gave."""
    whole = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if name not in missing:
            whole.update(name.encode())
            whole.update(tensor.contiguous().numpy().tobytes())
    return whole.hexdigest()


def describe_processor(processor: Any, modality: str) -> dict[str, Any]:
    """Everything about a processor that changes what the model is given, as JSON values."""
    if modality == "text":
        backend = getattr(processor, "backend_tokenizer", None)
        table = backend.to_str() if backend is not None else json.dumps(processor.get_vocab())
        return {
            "class": type(processor).__name__,
            "tokenizer": hashlib.sha256(table.encode()).hexdigest(),
        }
    kept = {
        key: value
        for key, value in json.loads(processor.to_json_string()).items()
        if not key.startswith("_") and key not in ("processor_class",)
    }
    return {"class": type(processor).__name__, **kept}
