"""Writing a trained model as a checkpoint directory, matrices as 8-bit integers with a scale for each row."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from worker.errors import KbertError
from worker.training.heads import CRYPTO_HEADS
from worker.training.model import MultiHeadModel
from worker.training.predictions import predict_logits
from worker.training.provenance import writing

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MIN_ROWS: Final = 64
"""Smaller matrices (heads, token types) stay float: eight bits would save nothing there."""
MAX_CHANGED: Final = 0.03
"""Share of texts that may get another answer from the stored weights; one text always may."""


class ExportError(KbertError, RuntimeError):
    """The stored model does not answer as the trained one did."""


def quantise(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [rows, columns] and float16 scales [rows], so that matrix is nearly int8 × scale.

    The error of an element is at most half of its row's scale.
    """
    # A thousandth above the largest element, so that rounding the scale to float16 never makes it too small;
    # 6.2e-5 is the smallest number that float16 holds in full precision.
    scale = (matrix.float().abs().amax(1) / 127 * 1.001).clamp(min=6.2e-5).to(torch.float16)
    steps = (matrix.float() / scale.float()[:, None]).round().clamp(-127, 127)
    return steps.to(torch.int8), scale


def dequantise(steps: Tensor, scale: Tensor) -> Tensor:
    """The float32 matrix that is stored as 8-bit steps."""
    return steps.float() * scale.float()[:, None]


CRYPTO: Final = tuple(head.name for head in CRYPTO_HEADS)


def stored_tensors(model: MultiHeadModel, kept: Sequence[str] = CRYPTO) -> dict[str, Tensor]:
    """The tensors of a checkpoint file: encoder and the heads that are kept, without helper heads."""
    heads = {f"heads.{name}." for name in kept}
    tensors: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        if not key.startswith("bert.") and not any(key.startswith(head) for head in heads):
            continue
        if "position_ids" in key or "token_type_ids" in key:
            continue
        name, whole = key.removeprefix("heads."), value.detach().cpu()
        if whole.ndim == 2 and len(whole) >= MIN_ROWS:
            tensors[name], tensors[f"{name}.scale"] = quantise(whole)
        else:
            tensors[name] = whole.float().contiguous()
    return tensors


def loaded_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 state dict of a MultiHeadModel from the tensors of a checkpoint file."""
    state = {}
    for name, value in tensors.items():
        if name.endswith(".scale"):
            continue
        scale = tensors.get(f"{name}.scale")
        key = name if name.startswith("bert.") else f"heads.{name}"
        state[key] = dequantise(value, scale) if scale is not None else value.float()
    return state


def export(
    model: MultiHeadModel,
    tokenizer: "Tokenizer",
    folder: Path,
    kbert: Mapping[str, Any],
    *,
    check_texts: Sequence[str],
    pad_id: int,
    heads: Sequence[str] = CRYPTO,
    architecture: str = "BertModel",
) -> None:
    """Write config.json, model.safetensors and tokenizer.json; the model then holds the stored weights.

    Raises ExportError where these give another class to more than 3 % of the texts, ConfigurationError where
    the folder cannot be written.
    """
    from safetensors.torch import load_file, save_file

    how: dict[str, Any] = {
        "prefix": kbert["text_prefix"],
        "max_length": kbert["max_length"],
        "pad_id": pad_id,
    }
    before = predict_logits(model, tokenizer, check_texts, **how)
    weights = folder / "model.safetensors"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file(stored_tensors(model, heads), weights, metadata={"format": "pt"})
    state = loaded_tensors(load_file(weights))
    missing = [key for key in model.load_state_dict(state, strict=False).missing_keys if ".aux_" not in key]
    if missing:
        raise ExportError(f"the checkpoint lacks {', '.join(missing)}")
    after = predict_logits(model, tokenizer, check_texts, **how)
    for head in (head for head in heads if head not in ("head_emo", "head_reg")):
        changed = int(np.sum(before[head].argmax(1) != after[head].argmax(1)))
        if changed > max(1, MAX_CHANGED * len(check_texts)):
            raise ExportError(f"8-bit weights change {changed} of {len(check_texts)} answers of {head}")
    config = model.bert.config.to_dict()
    kept = {key: value for key, value in config.items() if not key.startswith("_")}
    kept |= {"architectures": [architecture], "kbert": dict(kbert)}
    text = json.dumps(kept, ensure_ascii=False, indent=2, sort_keys=True)
    with writing(folder):
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
        # Compact: the indented form is twice the size.
        (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=False), encoding="utf-8")
        # safetensors lets the owner alone read it; a worker in a container is another user.
        weights.chmod((folder / "config.json").stat().st_mode)
