"""A BERT encoder over packed tokens: the arithmetic of ``BertModel``, without a padded row."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from worker.inference.attention import Attention
from worker.inference.config import EncoderShape
from worker.inference.kernels import Kernels, Parameters
from worker.inference.linears import Projection

_FEED_FORWARD: Final = ".feed_forward"


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: torch.Tensor
    bias: torch.Tensor
    eps: float

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class _Layer:
    queries: Projection | None
    """Only where queries are asked apart from keys and values: see ``Encoder.first_rows``."""
    keys_values: Projection
    """Queries too, side by side before the keys, unless they stand apart."""
    attended: Projection
    attention_norm: _Norm
    feed_forward: Callable[[torch.Tensor], torch.Tensor]
    output_norm: _Norm

    def finish(self, attended: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """What follows attention: projection, residual and feed-forward, token by token."""
        x = self.attention_norm(self.attended.plus(attended, x))
        return self.output_norm(self.feed_forward(x))


class Encoder:
    """The weights in the precision of the computation.

    Residuals and norms are kept in that precision too; sums inside a product, norms and softmax are in
    float32 whatever it is.

    Args:
        state: float32 parameters under the names of ``BertModel`` with ``bert.`` in front.
        shape: Their sizes.
        kernels: Of the linear layers; they take and give ``dtype``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        device: Where to compute.
        first_rows_only: Leave out of the last layer what only other tokens than the first need: with
            12 layers 7% of the work.
    """

    def __init__(
        self,
        state: Mapping[str, torch.Tensor],
        shape: EncoderShape,
        kernels: Kernels,
        *,
        dtype: torch.dtype,
        device: torch.device,
        first_rows_only: bool,
    ) -> None:
        self._dtype = dtype
        self._first_rows_only = first_rows_only

        embeddings = "bert.embeddings"
        self._words = state[f"{embeddings}.word_embeddings.weight"].to(device, dtype)
        positions = state[f"{embeddings}.position_embeddings.weight"]
        # One text a sequence: every token is of type 0.
        self._positions = (positions + state[f"{embeddings}.token_type_embeddings.weight"][0]).to(device)
        self._norm = _norm(state, f"{embeddings}.LayerNorm", shape.layer_norm_eps, torch.float32, device)
        # CUDA's kernel wants norm parameters in the input's precision; the CPU's is faster and finer so.
        norm_dtype = torch.float32 if device.type == "cpu" else dtype
        self._layers = [
            _layer(
                state,
                _name(index),
                shape,
                kernels,
                norm_dtype=norm_dtype,
                device=device,
                queries_apart=first_rows_only and index == shape.layers - 1,
            )
            for index in range(shape.layers)
        ]

    def __call__(
        self, ids: torch.Tensor, positions: torch.Tensor, starts: torch.Tensor, attention: Attention
    ) -> torch.Tensor:
        """Encode one packed batch.

        Args:
            ids: ``[rows]`` token ids, int64.
            positions: ``[rows]`` position of each token in its sequence.
            starts: ``[n]`` row of each sequence's first token.
            attention: Knows which rows form a sequence.

        Returns:
            ``[n, hidden]`` last hidden states of the first tokens where ``first_rows_only``, else
            ``[rows, hidden]`` of all tokens.
        """
        words = self._words.index_select(0, ids).to(torch.float32)
        x = self._norm(words.add_(self._positions.index_select(0, positions))).to(self._dtype)
        for layer in self._layers:
            if layer.queries is None:
                x = layer.finish(attention.all_rows(layer.keys_values(x)), x)
            else:
                asking = x.index_select(0, starts)
                attended = attention.first_rows(layer.queries(asking), layer.keys_values(x))
                x = layer.finish(attended, asking)
        return x


def feed_forward_name(layer: int) -> str:
    """What its kernels know the feed-forward of a layer by."""
    return f"{_name(layer)}{_FEED_FORWARD}"


def _name(layer: int) -> str:
    return f"bert.encoder.layer.{layer}"


def _layer(
    state: Mapping[str, torch.Tensor],
    name: str,
    shape: EncoderShape,
    kernels: Kernels,
    *,
    norm_dtype: torch.dtype,
    device: torch.device,
    queries_apart: bool,
) -> _Layer:
    def stored(part: str) -> Parameters:
        return state[f"{name}.{part}.weight"], state[f"{name}.{part}.bias"]

    def side_by_side(*parts: str) -> Projection:
        # Scores are divided by sqrt(width); for widths 16, 64, 256 the factor is a power of two: exact.
        scale = {"query": (shape.hidden_size // shape.heads) ** -0.5}
        weights = [state[f"{name}.attention.self.{part}.weight"] * scale.get(part, 1.0) for part in parts]
        biases = [state[f"{name}.attention.self.{part}.bias"] * scale.get(part, 1.0) for part in parts]
        return kernels.projection(f"{name}.{'+'.join(parts)}", (torch.cat(weights), torch.cat(biases)))

    return _Layer(
        queries=side_by_side("query") if queries_apart else None,
        keys_values=side_by_side("key", "value") if queries_apart else side_by_side("query", "key", "value"),
        attended=kernels.projection(f"{name}.attended", stored("attention.output.dense")),
        attention_norm=_norm(
            state, f"{name}.attention.output.LayerNorm", shape.layer_norm_eps, norm_dtype, device
        ),
        feed_forward=kernels.feed_forward(
            f"{name}{_FEED_FORWARD}", stored("intermediate.dense"), stored("output.dense")
        ),
        output_norm=_norm(state, f"{name}.output.LayerNorm", shape.layer_norm_eps, norm_dtype, device),
    )


def _norm(
    state: Mapping[str, torch.Tensor], name: str, eps: float, dtype: torch.dtype, device: torch.device
) -> _Norm:
    return _Norm(state[f"{name}.weight"].to(device, dtype), state[f"{name}.bias"].to(device, dtype), eps)
