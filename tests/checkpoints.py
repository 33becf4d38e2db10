"""Small random checkpoints and tokenisers for tests, in the layouts that users have."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from worker.inference.architecture import expected_sizes
from worker.inference.config import EncoderShape, HeadSet, Pooling
from worker.inference.graphs import Graphs
from worker.inference.kernels import Kernels
from worker.inference.torch_engine import TorchEngine

State = dict[str, torch.Tensor]
Storage = Literal["safetensors", "sharded", "bin", "sharded bin", "pt", "pt in a folder", "plain pt"]

WORDS = (
    "비트",
    "이더",
    "가즈아",
    "떡상",
    "나락",
    "존버",
    "매수",
    "손절",
    "?",
    "!",
    "to",
    "the",
    "moon",
    "ㅋㅋㅋ",
)
PIECES = (
    "##코인",
    "##가",
    "##자",
    "##해",
    "##moon",
    "비",
    "##트",
    "가",
    "자",
    "##더",
    "이",
    "b",
    "##i",
    "##t",
)

SMALL = EncoderShape(
    vocab_size=64,
    hidden_size=32,
    layers=3,
    heads=4,
    intermediate_size=80,
    positions=256,
    token_types=2,
)
"""Heads of width 8, where 1/sqrt(width) is no power of two."""


def wordpiece_tokenizer() -> Tokenizer:
    """As klue/bert-base has it, with a vocabulary of a few words."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *PIECES]
    tokenizer = Tokenizer(
        models.WordPiece({name: index for index, name in enumerate(names)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=None, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def unigram_tokenizer() -> Tokenizer:
    """As SentencePiece checkpoints have it."""
    scored = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    scored += [(f"▁{word}", -2.0) for word in WORDS]
    scored += [(piece.removeprefix("##"), -4.0) for piece in PIECES if piece.startswith("##")]
    scored += [("▁", -3.0), ("비", -6.0), ("트", -6.0), ("a", -6.0), ("aa", -5.0), ("b", -6.0)]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def random_state(shape: EncoderShape, head_set: HeadSet = "crypto", *, std: float = 0.2) -> State:
    """Weights large enough for attention and activations to matter."""
    generator = torch.Generator().manual_seed(7)
    state = {
        name: torch.empty(size).normal_(0.0, std, generator=generator)
        for name, size in expected_sizes(shape, head_set).items()
    }
    for name, tensor in state.items():
        if name.endswith("LayerNorm.weight"):
            tensor.add_(1.0)
    return state


def bert_config(shape: EncoderShape, **more: Any) -> dict[str, Any]:
    """The ``config.json`` of a shape."""
    return {
        "model_type": "bert",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.positions,
        "type_vocab_size": shape.token_types,
        "layer_norm_eps": shape.layer_norm_eps,
        "hidden_act": shape.activation,
        **more,
    }


def write_checkpoint(
    directory: Path,
    state: Mapping[str, torch.Tensor],
    shape: EncoderShape = SMALL,
    *,
    storage: Storage = "safetensors",
    kbert: dict[str, Any] | None = None,
    tokenizer: Tokenizer | None = None,
    config: bool = True,
    beside: dict[str, Any] | None = None,
) -> Path:
    """Write weights, tokeniser and config; returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    write_weights(directory, dict(state), storage, beside or {})
    if config:
        more = {} if kbert is None else {"kbert": kbert}
        (directory / "config.json").write_text(json.dumps(bert_config(shape, **more)))
    (tokenizer or wordpiece_tokenizer()).save(str(directory / "tokenizer.json"))
    return directory


def write_weights(directory: Path, state: State, storage: Storage, beside: dict[str, Any]) -> None:
    """Write one state dict in one of the storages."""
    names = sorted(state)
    halves = [{name: state[name] for name in part} for part in (names[::2], names[1::2])]
    match storage:
        case "safetensors":
            save_file(state, directory / "model.safetensors")
        case "bin":
            torch.save(state, directory / "pytorch_model.bin")
        case "pt":
            torch.save({"state_dict": state, **beside}, directory / "lq-kbert-base.pt")
        case "pt in a folder":
            (directory / "model").mkdir()
            torch.save({"state_dict": state, **beside}, directory / "model" / "lq-kbert-base.pt")
        case "plain pt":
            torch.save(state, directory / "weights.pt")
        case "sharded" | "sharded bin":
            stem, suffix = ("model", "safetensors") if storage == "sharded" else ("pytorch_model", "bin")
            weight_map: dict[str, str] = {}
            for number, half in enumerate(halves, start=1):
                file = directory / f"{stem}-0000{number}-of-00002.{suffix}"
                if suffix == "safetensors":
                    save_file(half, file)
                else:
                    torch.save(half, file)
                weight_map |= dict.fromkeys(half, file.name)
            index = directory / f"{stem}.{suffix}.index.json"
            index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def quantised(state: Mapping[str, torch.Tensor]) -> State:
    """8-bit storage: matrices as int8 with one float16 scale a row."""
    stored: State = {}
    for name, tensor in state.items():
        if tensor.ndim == 2:
            scale = (tensor.abs().amax(1) / 127).to(torch.float16)
            stored[name] = (tensor / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8)
            stored[f"{name}.scale"] = scale
        else:
            stored[name] = tensor.to(torch.float16)
    return stored


def dequantised(stored: Mapping[str, torch.Tensor]) -> State:
    """What :func:`quantised` means, written out."""
    return {
        name: tensor.float() * stored[f"{name}.scale"].float()[:, None]
        if tensor.dtype == torch.int8
        else tensor.float()
        for name, tensor in stored.items()
        if not name.endswith(".scale")
    }


def cpu_engine(
    state: State,
    shape: EncoderShape = SMALL,
    head_set: HeadSet = "crypto",
    pooling: Pooling = "cls",
    dtype: torch.dtype = torch.float32,
    *,
    threads: int = 1,
    kernels: Kernels | None = None,
    graphs: Graphs | None = None,
) -> TorchEngine:
    """An engine on the CPU with these parameters."""
    return TorchEngine(
        state,
        shape,
        head_set=head_set,
        pooling=pooling,
        dtype=dtype,
        device=torch.device("cpu"),
        threads=threads,
        kernels=kernels,
        graphs=graphs,
    )


def reference_outputs(
    state: Mapping[str, torch.Tensor],
    shape: EncoderShape,
    sequences: Sequence[Sequence[int]],
    *,
    head_set: HeadSet = "crypto",
    pooling: Literal["cls", "mean"] = "cls",
    batch: int = 1,
) -> dict[str, torch.Tensor]:
    """Plain transformers: ``BertModel`` and linear heads, padded batches, float32."""
    # On busy cores two threads of OpenMP wait for each other longer than one takes alone.
    torch.set_num_threads(1)
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    config = BertConfig(**{k: v for k, v in bert_config(shape).items() if k != "model_type"})
    if head_set == "traffic":
        model: Any = BertForSequenceClassification(config)
    else:
        model = torch.nn.Module()
        model.bert = BertModel(config, add_pooling_layer=False)
        for name, size in (("head_senti", 5), ("head_act", 6), ("head_emo", 7), ("head_reg", 3)):
            setattr(model, name, torch.nn.Linear(shape.hidden_size, size))
    model.load_state_dict(dict(state), strict=True)
    model.eval()
    rows: dict[str, list[torch.Tensor]] = {}
    with torch.inference_mode():
        for start in range(0, len(sequences), batch):
            part = [torch.tensor(ids) for ids in sequences[start : start + batch]]
            ids = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(p) for p in part], batch_first=True)
            if head_set == "traffic":
                found = {"logits": model(input_ids=ids, attention_mask=mask).logits}
            else:
                hidden = model.bert(input_ids=ids, attention_mask=mask).last_hidden_state
                weights = mask[..., None].float()
                pooled = hidden[:, 0] if pooling == "cls" else (hidden * weights).sum(1) / weights.sum(1)
                found = {
                    "logits_senti": model.head_senti(pooled),
                    "logits_act": model.head_act(pooled),
                    "logits_emo": model.head_emo(pooled),
                    "pred_reg": model.head_reg(pooled),
                }
            for name, values in found.items():
                rows.setdefault(name, []).append(values)
    return {name: torch.cat(parts) for name, parts in rows.items()}


def with_activation(shape: EncoderShape, activation: Any) -> EncoderShape:
    """The same sizes with another activation."""
    return replace(shape, activation=activation)
