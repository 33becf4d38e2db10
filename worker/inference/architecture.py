"""What a state dict must hold: names and sizes, inferred from the tensors and checked against them."""

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from schemas.labels import ACTIONS, EMOTIONS, SCORES, SENTIMENTS, TRAFFIC_LABELS
from worker.inference.config import EncoderShape, HeadSet, parse_activation, refuse_lookalike
from worker.inference.errors import CheckpointError

if TYPE_CHECKING:
    import torch

HEADS: Final[dict[HeadSet, dict[str, int]]] = {
    "crypto": {
        "head_senti": len(SENTIMENTS),
        "head_act": len(ACTIONS),
        "head_emo": len(EMOTIONS),
        "head_reg": len(SCORES),
    },
    "traffic": {"classifier": len(TRAFFIC_LABELS)},
}
"""Parameter prefix of each linear head and its number of outputs."""

_LAYER = re.compile(r"bert\.encoder\.layer\.([0-9]{1,9})\.")
_WORDS = "bert.embeddings.word_embeddings.weight"
_BUFFERS = frozenset({"bert.embeddings.position_ids", "bert.embeddings.token_type_ids"})
_HEAD_WIDTH = 64
_OTHER_WIDTHS = (384,)
"""Hidden sizes of published encoders whose heads have another width: MiniLM and multilingual-e5-small, 32."""
_MOST_NAMED = 5


def detect_head_set(names: Iterable[str], origin: Path) -> HeadSet:
    """Tell from the parameter names which heads a checkpoint carries.

    Raises:
        CheckpointError: Neither set, or parts of both.
    """
    first_parts = {name.split(".", 1)[0] for name in names}
    found = [head_set for head_set, heads in HEADS.items() if first_parts & heads.keys()]
    if len(found) == 1:
        return found[0]
    if found:
        raise CheckpointError(f"{origin}: holds heads of both sets (head_* and classifier); keep one set.")
    raise CheckpointError(
        f"{origin}: holds no heads: neither head_senti, head_act, head_emo, head_reg (crypto) "
        "nor classifier (traffic); fine-tune the encoder with `kbert train` first."
    )


def heads_are_known(state: Mapping[str, "torch.Tensor"]) -> bool:
    """Whether the hidden size alone tells the number of attention heads."""
    return _WORDS not in state or _heads(state[_WORDS].shape[-1]) is not None


def infer_shape(state: Mapping[str, "torch.Tensor"], raw: dict[str, Any], origin: Path) -> EncoderShape:
    """Read the encoder's sizes off its tensors; heads, activation and epsilon come from ``config.json``.

    Without ``num_attention_heads`` a head is 64 wide, as in the published BERTs, where the size allows.

    Raises:
        CheckpointError: The tensors are not those of a BERT encoder, or the config contradicts them.
    """
    refuse_lookalike(raw, origin)
    layers = {int(match.group(1)) for match in map(_LAYER.match, state) if match}
    needed = (
        _WORDS,
        "bert.embeddings.position_embeddings.weight",
        "bert.embeddings.token_type_embeddings.weight",
        "bert.encoder.layer.0.intermediate.dense.weight",
    )
    absent = [name for name in needed if name not in state]
    if absent:
        raise CheckpointError(
            f"{origin}: lacks {_list(absent)}; the names of a BERT encoder (bert.*) are expected."
        )
    flat = [name for name in needed if state[name].ndim != 2]
    if flat:
        raise CheckpointError(f"{origin}: {_list(flat)} should have two dimensions.")
    vocab_size, hidden = state[needed[0]].shape
    positions, token_types = state[needed[1]].shape[0], state[needed[2]].shape[0]
    if "model_type" not in raw and token_types == 1:
        # RoBERTa's positions start at 2: taken for a BERT, a bge-m3 answered, and wrongly.
        raise CheckpointError(
            f"{origin}: has one token type, as RoBERTa has, and only BERT encoders run here; choose a BERT "
            "checkpoint, or put the config.json of the encoder beside the weights."
        )
    if max(layers) + 1 != len(layers):
        raise CheckpointError(
            f"{origin}: numbers its layers up to {max(layers)} and holds {len(layers)} of them; the "
            "checkpoint is incomplete, or no BERT."
        )
    heads = raw.get("num_attention_heads", _heads(hidden))
    if heads is None:
        # A guess would answer, and wrongly.
        raise CheckpointError(
            f"{origin}: nothing says how many attention heads an encoder {hidden} wide has; put the "
            "config.json of the encoder beside the weights."
        )
    if type(heads) is not int or heads < 1 or hidden % heads:
        raise CheckpointError(
            f"{origin}: `num_attention_heads` is {heads!r}, which does not divide the hidden size {hidden}."
        )
    eps = raw.get("layer_norm_eps", 1e-12)
    if not isinstance(eps, (int, float)) or eps < 0 or not math.isfinite(eps):
        raise CheckpointError(f"{origin}: `layer_norm_eps` is {eps!r}; a small number is expected.")
    shape = EncoderShape(
        vocab_size=vocab_size,
        hidden_size=hidden,
        layers=max(layers) + 1,
        heads=heads,
        intermediate_size=state[needed[3]].shape[0],
        positions=positions,
        token_types=token_types,
        activation=parse_activation(raw, origin),
        layer_norm_eps=float(eps),
    )
    _compare_with_config(shape, raw, origin)
    return shape


def check_state(
    state: Mapping[str, "torch.Tensor"], shape: EncoderShape, head_set: HeadSet, origin: Path
) -> None:
    """Compare every name and size with what the encoder and its heads need.

    Raises:
        CheckpointError: Something is missing, unexpected or of another size; the message names it.
    """
    expected = expected_sizes(shape, head_set)
    missing = [name for name in expected if name not in state]
    if missing:
        raise CheckpointError(f"{origin}: lacks {_list(missing)}; the checkpoint is incomplete.")
    wrong = [
        f"{name} is {list(state[name].shape)} instead of {list(size)}"
        for name, size in expected.items()
        if tuple(state[name].shape) != size
    ]
    if wrong:
        raise CheckpointError(f"{origin}: {_list(wrong)}.")
    unexpected = [name for name in state if name not in expected and not _tolerated(name, head_set)]
    if unexpected:
        raise CheckpointError(
            f"{origin}: holds unexpected {_list(unexpected)}; its outputs would not be those of this "
            f"architecture, so remove them or choose a checkpoint of the {head_set} layout."
        )


def expected_sizes(shape: EncoderShape, head_set: HeadSet) -> dict[str, tuple[int, ...]]:
    """Every parameter that the forward pass reads, with its size."""
    hidden, inner = shape.hidden_size, shape.intermediate_size
    sizes: dict[str, tuple[int, ...]] = {
        _WORDS: (shape.vocab_size, hidden),
        "bert.embeddings.position_embeddings.weight": (shape.positions, hidden),
        "bert.embeddings.token_type_embeddings.weight": (shape.token_types, hidden),
        "bert.embeddings.LayerNorm.weight": (hidden,),
        "bert.embeddings.LayerNorm.bias": (hidden,),
    }
    for index in range(shape.layers):
        layer = f"bert.encoder.layer.{index}"
        linears = {
            "attention.self.query": (hidden, hidden),
            "attention.self.key": (hidden, hidden),
            "attention.self.value": (hidden, hidden),
            "attention.output.dense": (hidden, hidden),
            "intermediate.dense": (inner, hidden),
            "output.dense": (hidden, inner),
        }
        for name, (rows, columns) in linears.items():
            sizes[f"{layer}.{name}.weight"] = (rows, columns)
            sizes[f"{layer}.{name}.bias"] = (rows,)
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            sizes[f"{layer}.{norm}.weight"] = (hidden,)
            sizes[f"{layer}.{norm}.bias"] = (hidden,)
    if head_set == "traffic":
        sizes["bert.pooler.dense.weight"] = (hidden, hidden)
        sizes["bert.pooler.dense.bias"] = (hidden,)
    for head, outputs in HEADS[head_set].items():
        sizes[f"{head}.weight"] = (outputs, hidden)
        sizes[f"{head}.bias"] = (outputs,)
    return sizes


def _heads(hidden: int) -> int | None:
    if hidden < _HEAD_WIDTH:
        return 1  # a toy; no published encoder is that narrow
    return None if hidden % _HEAD_WIDTH or hidden in _OTHER_WIDTHS else hidden // _HEAD_WIDTH


def _compare_with_config(shape: EncoderShape, raw: dict[str, Any], origin: Path) -> None:
    """A config that tells other sizes than the tensors belongs to another model."""
    told = {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.token_types,
    }
    wrong = [
        f"`{key}` is {raw[key]!r} and the weights say {size}"
        for key, size in told.items()
        if key in raw and raw[key] != size
    ]
    if wrong:
        raise CheckpointError(f"{origin}: in config.json {_list(wrong)}.")


def _tolerated(name: str, head_set: HeadSet) -> bool:
    return name in _BUFFERS or (head_set == "crypto" and name.startswith("bert.pooler."))


def _list(items: list[str]) -> str:
    shown = ", ".join(items[:_MOST_NAMED])
    return f"{shown} and {len(items) - _MOST_NAMED} more" if len(items) > _MOST_NAMED else shown
