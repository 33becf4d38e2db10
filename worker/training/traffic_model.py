"""The traffic model in training: an encoder, BERT's pooler, and a classifier of two labels."""

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from schemas.labels import TRAFFIC_LABELS
from worker.errors import ConfigurationError
from worker.inference.checkpoint import resolve
from worker.inference.weights import read_weights
from worker.training.heads import HeadSpec
from worker.training.model import MultiHeadModel, _table

if TYPE_CHECKING:
    from transformers import BertModel

TRAFFIC_HEADS: Final = (HeadSpec("classifier", len(TRAFFIC_LABELS), "class", 1.0),)
_POSITIONS: Final = "embeddings.position_embeddings.weight"
_WORDS: Final = "embeddings.word_embeddings.weight"


class _Pooler(nn.Module):
    """``tanh(W x + b)`` under BERT's parameter names; starts as the identity where none was pretrained."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(size, size)
        nn.init.eye_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)

    def forward(self, states: Tensor) -> Tensor:
        """BertModel calls it with the states [N, L, hidden]; what is used is `TrafficModel.pooled`."""
        return self.of(states[:, 0])

    def of(self, vector: Tensor) -> Tensor:
        """The pooled vector [N, hidden]."""
        result: Tensor = torch.tanh(self.dense(vector))
        return result


class TrafficModel(MultiHeadModel):
    """Pools by the first token (as published) or the mean, then goes through the pooler."""

    def __init__(self, encoder: "BertModel", pooling: str, head_dropout: float) -> None:
        super().__init__(encoder, TRAFFIC_HEADS, pooling, head_dropout)
        # Under BERT's own name, so that a checkpoint has the published layout.
        self.bert.pooler = _Pooler(encoder.config.hidden_size)  # type: ignore[assignment]

    @property
    def pooler(self) -> _Pooler:
        """The layer between the encoder's states and the classifier."""
        pooler = self.bert.get_submodule("pooler")
        assert isinstance(pooler, _Pooler)  # noqa: S101 - registered above
        return pooler

    def pooled(self, ids: Tensor, mask: Tensor) -> Tensor:
        """One vector [N, hidden] for each row."""
        vector = super().pooled(ids, mask)
        with torch.autocast(vector.device.type, enabled=False):  # the heads stay in float32, as in the engine
            return self.pooler.of(vector)


def read_checkpoint(folder: Path) -> dict[str, Tensor]:
    """The float32 weights of a checkpoint folder, names without ``bert.``.

    Raises:
        CheckpointError: none are there, or they cannot be read.
    """
    state, _ = read_weights(resolve(str(folder), offline=True).weights)
    return {name.removeprefix("bert."): value for name, value in state.items()}


def take_over(encoder: "BertModel", weights: Mapping[str, Tensor], init: Path, layers: int) -> None:
    """Copy what another checkpoint knows into the encoder: words, layers, positions as far as they go.

    Raises ConfigurationError where the checkpoint of ``init`` is of another shape, or has other than the
    encoder's number of layers and more than the ``layers`` asked for.
    """
    state = encoder.state_dict()
    if _WORDS not in weights or _POSITIONS not in weights:
        raise ConfigurationError(f"--init {init} holds no BERT encoder: name a checkpoint of this project")
    words = weights[_WORDS]
    width, wide = words.shape[1], encoder.config.hidden_size
    held = next(n for n in count() if f"encoder.layer.{n}.output.dense.weight" not in weights)
    if width != wide or min(held, layers) != encoder.config.num_hidden_layers:
        raise ConfigurationError(
            f"--init {init} has {held} layers of hidden size {width}, and --base gives "
            f"{encoder.config.num_hidden_layers} of {wide}: name the encoder that it was made from, and its "
            "--layers"
        )
    copied = (name for name in state if name not in (_WORDS, _POSITIONS))
    if other := [n for n in copied if n not in weights or weights[n].shape != state[n].shape]:
        raise ConfigurationError(
            f"--init {init} lacks {other[0]} of the shape that it has in --base: name the encoder that it "
            "was made from"
        )
    encoder.embeddings.word_embeddings = _table(words, encoder.embeddings.word_embeddings.padding_idx)
    encoder.config.vocab_size = len(words)
    taken = {
        name: value for name, value in weights.items() if name in state and name not in (_WORDS, _POSITIONS)
    }
    positions = state[_POSITIONS].clone()
    known = min(len(positions), len(weights[_POSITIONS]))
    positions[:known] = weights[_POSITIONS][:known]
    encoder.load_state_dict({**taken, _POSITIONS: positions}, strict=False)
