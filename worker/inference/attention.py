"""Attention over packed sequences: in padded tiles anywhere, with the variable-length kernel on CUDA.

Queries come in scaled: the factor is folded into their weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch

from worker.inference.packing import Packing

_WIDEST_HEAD: Final = 256

Place = Callable[[npt.NDArray[Any]], torch.Tensor]
"""Brings an array to where the computation runs."""


class Attention(Protocol):
    """Attends within every sequence of one packed batch."""

    def all_rows(self, qkv: torch.Tensor) -> torch.Tensor:
        """Every token asks.

        Args:
            qkv: ``[rows, 3 * hidden]``: queries, keys and values side by side.

        Returns:
            ``[rows, hidden]``.
        """
        ...

    def first_rows(self, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        """Only the first token of each sequence asks.

        Args:
            q: ``[n, hidden]`` in the order of the sequences.
            kv: ``[rows, 2 * hidden]``: keys and values side by side.

        Returns:
            ``[n, hidden]``.
        """
        ...


@dataclass(frozen=True, slots=True)
class _TileOnDevice:
    count: int
    length: int
    rows: slice
    slots: slice
    mask: torch.Tensor | None
    """``[count, 1, 1, length]``."""


class TiledAttention:
    """Batched matrix products over tiles of like length.

    On one Zen 5 core 32 sequences of 23 tokens take 0.85 ms a layer in bf16 this way;
    ``scaled_dot_product_attention`` takes 2.3 ms, a tenth of the whole layer.
    """

    def __init__(self, packing: Packing, heads: int, place: Place) -> None:
        self._heads = heads
        self._gather = place(packing.gather)
        self._scatter = place(packing.scatter)
        self._slots = place(packing.slots)
        self._slot_of = place(packing.slot_of)
        self._tiles = [
            _TileOnDevice(
                tile.count,
                tile.length,
                slice(tile.start, tile.start + tile.count * tile.length),
                slice(tile.first, tile.first + tile.count),
                None if tile.mask is None else place(tile.mask)[:, None, None, :],
            )
            for tile in packing.tiles
        ]

    def all_rows(self, qkv: torch.Tensor) -> torch.Tensor:
        """See :class:`Attention`."""
        heads, hidden = self._heads, qkv.shape[1] // 3
        tokens = qkv.index_select(0, self._gather)
        out = tokens.new_empty(tokens.shape[0], hidden)
        for tile in self._tiles:
            count, length = tile.count, tile.length
            split = tokens[tile.rows].view(count, length, 3, heads, hidden // heads)
            q, k, v = split.permute(2, 0, 3, 1, 4).reshape(3, count * heads, length, -1).unbind(0)
            attended = _attend(q, k, v, tile, heads)
            target = out[tile.rows].view(count, length, heads, hidden // heads)
            target.copy_(attended.view(count, heads, length, -1).transpose(1, 2))
        return out.index_select(0, self._scatter)

    def first_rows(self, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        """See :class:`Attention`."""
        heads, hidden = self._heads, q.shape[1]
        tokens = kv.index_select(0, self._gather)
        asking = q.index_select(0, self._slots)
        out = torch.empty_like(asking)
        for tile in self._tiles:
            count, length = tile.count, tile.length
            split = tokens[tile.rows].view(count, length, 2, heads, hidden // heads)
            k, v = split.permute(2, 0, 3, 1, 4).reshape(2, count * heads, length, -1).unbind(0)
            first = asking[tile.slots].view(count * heads, 1, hidden // heads)
            out[tile.slots] = _attend(first, k, v, tile, heads).view(count, hidden)
        return out.index_select(0, self._slot_of)


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tile: _TileOnDevice, heads: int
) -> torch.Tensor:
    """``[count * heads, asking, width]``; the softmax is taken in float32."""
    scores = torch.bmm(q, k.transpose(1, 2))
    if tile.mask is not None:
        # In bf16 this addition alone would take as long as the whole softmax.
        scores = scores.to(torch.float32)
        scores.view(tile.count, heads, -1, tile.length).add_(tile.mask)
    return torch.bmm(torch.softmax(scores, -1, dtype=torch.float32).to(v.dtype), v)


class VarlenAttention:
    """The variable-length flash kernel that ships with torch; half precisions on CUDA. Not measured.

    Args:
        layout: What :meth:`laid_out` gives.
        heads: Of the encoder.
        tokens: Rows that belong to a sequence.
        longest: Tokens of the longest sequence, or more.
    """

    def __init__(self, layout: Sequence[torch.Tensor], heads: int, tokens: int, longest: int) -> None:
        self._ends, self._each, self._order, self._back = layout
        self._heads, self._tokens, self._longest = heads, tokens, longest

    @staticmethod
    def laid_out(packing: Packing, place: Place) -> tuple[torch.Tensor, ...]:
        """All that differs between batches of the same numbers of rows and sequences."""
        ends = np.append(packing.starts[packing.order], packing.tokens)
        return (
            place(ends.astype(np.int32)),
            place(np.arange(len(ends), dtype=np.int32)),
            place(packing.order),
            place(np.argsort(packing.order)),
        )

    @classmethod
    def of(cls, packing: Packing, heads: int, place: Place) -> "VarlenAttention":
        """For one batch."""
        longest = int(np.diff(np.append(packing.starts[packing.order], packing.tokens)).max())
        return cls(cls.laid_out(packing, place), heads, packing.tokens, longest)

    def all_rows(self, qkv: torch.Tensor) -> torch.Tensor:
        """See :class:`Attention`."""
        from torch.nn.attention.varlen import varlen_attn

        rows, hidden = qkv.shape[0], qkv.shape[1] // 3
        q, k, v = qkv.view(rows, 3, self._heads, -1).unbind(1)
        out = qkv.new_zeros(rows, hidden)
        attended = varlen_attn(
            q[: self._tokens],
            k[: self._tokens],
            v[: self._tokens],
            self._ends,
            self._ends,
            self._longest,
            self._longest,
            scale=1.0,
        )
        out[: self._tokens] = _only_output(attended).reshape(self._tokens, hidden)
        return out

    def first_rows(self, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        """See :class:`Attention`."""
        from torch.nn.attention.varlen import varlen_attn

        hidden = q.shape[1]
        k, v = kv[: self._tokens].view(self._tokens, 2, self._heads, -1).unbind(1)
        asking = q.index_select(0, self._order).view(-1, self._heads, hidden // self._heads)
        attended = varlen_attn(asking, k, v, self._each, self._ends, 1, self._longest, scale=1.0)
        return _only_output(attended).reshape(-1, hidden).index_select(0, self._back)


def make_attention(
    packing: Packing, heads: int, place: Place, *, varlen: bool
) -> TiledAttention | VarlenAttention:
    """For one batch; ``varlen`` where :func:`attends_by_varlen` says so."""
    return VarlenAttention.of(packing, heads, place) if varlen else TiledAttention(packing, heads, place)


def attends_by_varlen(dtype: torch.dtype, device: torch.device, width: int) -> bool:
    """Whether the variable-length kernel runs there, in that precision, with heads of that width."""
    from importlib.util import find_spec

    return (
        device.type == "cuda"
        and dtype in (torch.bfloat16, torch.float16)
        and width % 8 == 0
        and width <= _WIDEST_HEAD
        and find_spec("torch.nn.attention.varlen") is not None
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def _only_output(attended: torch.Tensor | tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return attended if isinstance(attended, torch.Tensor) else attended[0]
