"""The model in training: an encoder with mean pooling and any number of linear heads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor, nn

from worker.errors import ConfigurationError
from worker.training.dropout import ByteDropout
from worker.training.heads import CRYPTO_HEADS, HeadSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import BertModel

    from worker.inference.config import HeadSet

UNKNOWN: Final = ("<unk>", "[UNK]")
"""What SentencePiece and WordPiece vocabularies call an unknown piece."""
_SHOWN: Final = 3
"""Missing names that a message lists."""


def _table(rows: Tensor, padding: int | None = None) -> nn.Embedding:
    """A trainable embedding that holds a copy of the rows."""
    count, width = rows.shape
    return nn.Embedding(count, width, padding, _weight=rows.detach().clone())


_TYPES: Final[Mapping[str, type]] = {"kbert": dict, "hidden_size": int, "num_hidden_layers": int}
"""What the recipe itself reads of config.json."""


def read_config(base: Path) -> dict[str, Any]:
    """What config.json says in the folder of an encoder or of a finished model.

    Raises ConfigurationError where it is missing, is not JSON, or holds something else than expected.
    """
    path = base / "config.json"
    if not path.is_file():
        raise ConfigurationError(f"{path} is missing: --base takes the folder of a BERT encoder")
    try:
        config: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigurationError(
            f"{path} is not JSON ({error}): --base takes the folder of a BERT encoder as it was saved"
        ) from error
    if not isinstance(config, dict) or any(
        not isinstance(config.get(key, kind()), kind) for key, kind in _TYPES.items()
    ):
        raise ConfigurationError(
            f"{path} is not an object with numbers as hidden_size and num_hidden_layers and an object as "
            "kbert, where it has these: --base takes the folder of a BERT encoder as it was saved"
        )
    return config


def is_finished(base: Path) -> bool:
    """Whether the folder holds a finished model of this project; its weights are not looked at.

    Raises ConfigurationError where its config.json cannot be read.
    """
    return (base / "config.json").is_file() and "kbert" in read_config(base)


def finished(base: Path, head_set: "HeadSet | None" = None) -> "dict[str, Tensor] | None":
    """Parameters of the finished model in ``base``, float32, as its signals' worker reads them.

    None where the folder holds a plain encoder. Raises CheckpointError where the model is damaged,
    ConfigurationError where it has other heads than those of ``head_set``.
    """
    if not is_finished(base):
        return None
    from worker.inference.checkpoint import load_checkpoint, resolve

    checkpoint = load_checkpoint(resolve(str(base), offline=True))
    if head_set is not None:
        check_head_set(base, checkpoint.head_set, head_set)
    return checkpoint.state


def check_head_set(base: Path, held: "HeadSet | None", wanted: "HeadSet") -> None:
    """Raise ConfigurationError where the finished model in ``base`` is known to have other heads."""
    if held not in (None, wanted):
        raise ConfigurationError(
            f"{base} holds a finished {held} model: --base takes an encoder or a finished {wanted} model"
        )


def _plain_state(base: Path) -> "dict[str, Tensor]":
    """Parameters of the encoder in ``base``, float32, names without ``bert.``.

    Raises ConfigurationError where they cannot be read, or belong to a finished model that config.json does
    not call one.
    """
    from worker.inference.checkpoint import resolve
    from worker.inference.errors import CheckpointError
    from worker.inference.weights import read_weights

    try:
        state, _ = read_weights(resolve(str(base), offline=True).weights)
    except CheckpointError as error:
        raise ConfigurationError(
            f"{base} holds no weights that can be read: --base takes an encoder's folder with "
            f"model.safetensors or pytorch_model.bin ({error})"
        ) from error
    if f"{CRYPTO_HEADS[0].name}.weight" in state:
        raise ConfigurationError(
            f"{base} holds the heads of a finished model, and its config.json has no kbert object: add "
            '"kbert": {"head_set": "crypto"} with its pooling, text_prefix and max_length'
        )
    return {name.removeprefix("bert."): value for name, value in state.items()}


def _fill(encoder: "BertModel", state: "Mapping[str, Tensor]", base: Path) -> None:
    """Load the layers that the encoder has; ConfigurationError where ``state`` lacks one or is of another
    size."""
    names = encoder.state_dict().keys()
    if missing := [name for name in names if name not in state]:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise ConfigurationError(
            f"{base}: its weights lack {', '.join(missing[:_SHOWN])}{more}: --base takes a BERT encoder "
            "whose weights have the names that transformers gives them"
        )
    try:
        encoder.load_state_dict({name: state[name] for name in names})
    except RuntimeError as error:
        raise ConfigurationError(
            f"{base} holds no weights that fit its config.json: --base takes the folder of a BERT encoder as "
            "it was saved"
        ) from error


def load_encoder(base: Path, layers: int, dropout: float, max_length: int) -> "BertModel":
    """The first ``layers`` layers of a Hugging Face BertModel, float32, positions cut to ``max_length``.

    ``base`` may also hold a finished model of this project. Raises ConfigurationError where it holds no
    config.json that can be read, no BERT, or no weights that can be read and fit.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, BertModel

    read_config(base)
    try:
        config = AutoConfig.from_pretrained(base)
    except (OSError, ValueError, StrictDataclassError) as error:
        reason = " ".join(str(error).partition(". ")[0].split())
        raise ConfigurationError(
            f"{base / 'config.json'} describes no encoder that transformers knows ({reason}): "
            "--base takes the folder of a BERT encoder as it was saved"
        ) from error
    if config.model_type != "bert":
        raise ConfigurationError(f"{base} holds a {config.model_type} model; --base takes a BERT encoder")
    config.num_hidden_layers = min(layers, config.num_hidden_layers)
    config.hidden_dropout_prob = dropout
    # Attention dropout costs a fifth of the step on a CPU and brought nothing that was seen.
    config.attention_probs_dropout_prob = 0.0
    # On two cores 242 messages/s against 152 with scaled_dot_product_attention, whose backward is slow there.
    config._attn_implementation = "eager"
    state = finished(base)
    if state is None:
        state = _plain_state(base)
        with torch.random.fork_rng():  # heads that are drawn later do not depend on what is overwritten here
            encoder = BertModel(config, add_pooling_layer=False)
        encoder.eval()  # type: ignore[no-untyped-call]
    else:
        encoder = BertModel(config, add_pooling_layer=False)
        state = {name.removeprefix("bert."): value for name, value in state.items()}
    _fill(encoder, state, base)
    positions = min(max_length, config.max_position_embeddings)
    embeddings = encoder.embeddings
    embeddings.position_embeddings = _table(embeddings.position_embeddings.weight[:positions])
    for buffer in ("position_ids", "token_type_ids"):
        embeddings.register_buffer(buffer, getattr(embeddings, buffer)[:, :positions], persistent=False)
    encoder.config.max_position_embeddings = positions
    return encoder


def check_positions(encoder: "BertModel", base: Path, max_length: int) -> None:
    """Raise ConfigurationError where the encoder of ``base`` has fewer positions than ``max_length``."""
    positions = encoder.config.max_position_embeddings
    if max_length > positions:
        raise ConfigurationError(
            f"--max-length is {max_length}, and {base} has {positions} positions: "
            "lower it, or choose another encoder"
        )


def grow_embeddings(encoder: "BertModel", old: "Tokenizer", new: "Tokenizer") -> None:
    """Add rows for the new pieces; each starts as the mean of the pieces of its letters, as far as known.

    Rows that the table has beyond the old vocabulary, as padding, go.
    """
    import unicodedata

    import torch

    table = encoder.embeddings.word_embeddings
    known_rows = table.weight.detach()[: old.get_vocab_size()]
    rows = [known_rows]
    unknown = next((i for name in UNKNOWN if (i := old.token_to_id(name)) is not None), None)
    mean = known_rows.mean(0)
    for index in range(old.get_vocab_size(), new.get_vocab_size()):
        parts = unicodedata.normalize("NFD", (new.id_to_token(index) or "").removeprefix("##"))
        known = [i for part in parts if (i := old.token_to_id(part)) is not None and i != unknown]
        rows.append((known_rows[known].mean(0) if known else mean)[None])
    encoder.embeddings.word_embeddings = _table(torch.cat(rows), table.padding_idx)
    encoder.config.vocab_size = new.get_vocab_size()


class MultiHeadModel(nn.Module):
    """``encoder`` under the name ``bert``, pooled by mean or first token, and linear heads."""

    def __init__(
        self, encoder: "BertModel", heads: Sequence[HeadSpec], pooling: str, head_dropout: float
    ) -> None:
        super().__init__()
        self.bert = encoder
        self.pooling = pooling
        self.dropout = nn.Dropout(head_dropout)
        self.heads = nn.ModuleDict()
        self.add_heads(heads)

    def add_heads(self, heads: Sequence[HeadSpec]) -> None:
        """Add the heads that are not there yet."""
        for head in heads:
            if head.name not in self.heads:
                layer = nn.Linear(self.bert.config.hidden_size, head.size)
                nn.init.normal_(layer.weight, std=0.02)
                nn.init.constant_(layer.bias, 0.5 if head.kind == "score" else 0.0)
                self.heads[head.name] = layer

    def adopt_heads(self, state: "Mapping[str, Tensor]") -> None:
        """Take over the heads of a finished model, by their names there."""
        for name, head in self.heads.items():
            if f"{name}.weight" in state:
                head.load_state_dict({part: state[f"{name}.{part}"] for part in ("weight", "bias")})

    def set_dropout(self, share: float) -> None:
        """Set the dropout of the encoder's embeddings and sublayers; its attention keeps none."""
        dropouts = [name for name, module in self.bert.named_modules() if isinstance(module, nn.Dropout)]
        for name in dropouts:
            if not name.endswith("attention.self.dropout"):
                self.bert.set_submodule(name, ByteDropout(share))

    def pooled(self, ids: Tensor, mask: Tensor) -> Tensor:
        """One vector [N, hidden] for each row of token ids [N, L] with mask [N, L] of 0 and 1."""
        states: Tensor = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        if self.pooling == "cls":
            return states[:, 0]
        weights = mask.unsqueeze(-1).float()
        return (states * weights).sum(1) / weights.sum(1)

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Raw outputs [N, size] of every head."""
        vector = self.dropout(self.pooled(ids, mask))
        return {name: head(vector) for name, head in self.heads.items()}
