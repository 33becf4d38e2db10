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
    ``scaled_dot_product_attention`` takes 2.3 ms, a tenth of the whole layer. The vector of each head and
    token is fetched to its place in a tile, and back, in one go: by token first and by head then, all would
    move twice, and attention take 1.3 times as long.
    """

    def __init__(self, packing: Packing, heads: int, place: Place) -> None:
        self._heads = heads
        self._slots = place(packing.slots)
        self._slot_of = place(packing.slot_of)
        self._back = place(_back(packing, heads))
        self._fetch = {kinds: place(_fetch(packing, heads, kinds)) for kinds in (2, 3)}
        self._tiles = [
            _TileOnDevice(
                tile.count,
                tile.length,
                slice(tile.start * heads, (tile.start + tile.count * tile.length) * heads),
                slice(tile.first, tile.first + tile.count),
                None if tile.mask is None else place(tile.mask)[:, None, None, :],
            )
            for tile in packing.tiles
        ]

    def all_rows(self, qkv: torch.Tensor) -> torch.Tensor:
        """See :class:`Attention`."""
        rows, hidden = qkv.shape[0], qkv.shape[1] // 3
        vectors = self._fetched(qkv, 3)
        out = vectors.new_empty(vectors.shape[0] // 3, vectors.shape[1])
        for tile in self._tiles:
            q, k, v = self._of_tile(vectors, tile, 3)
            _attend(q, k, v, tile, self._heads, out[tile.rows].view(q.shape))
        return out.index_select(0, self._back).view(rows, hidden)

    def first_rows(self, q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
        """See :class:`Attention`."""
        heads, width = self._heads, q.shape[1] // self._heads
        vectors = self._fetched(kv, 2)
        asking = q.index_select(0, self._slots)
        out = torch.empty_like(asking)
        for tile in self._tiles:
            k, v = self._of_tile(vectors, tile, 2)
            shape = (tile.count * heads, 1, width)
            _attend(asking[tile.slots].view(shape), k, v, tile, heads, out[tile.slots].view(shape))
        return out.index_select(0, self._slot_of)

    def _fetched(self, tokens: torch.Tensor, kinds: int) -> torch.Tensor:
        """``[tiles' tokens * kinds * heads, width]`` of ``[rows, kinds * hidden]``."""
        return tokens.view(tokens.shape[0] * kinds * self._heads, -1).index_select(0, self._fetch[kinds])

    def _of_tile(self, vectors: torch.Tensor, tile: _TileOnDevice, kinds: int) -> tuple[torch.Tensor, ...]:
        """Queries, keys and values, or the last two, each ``[count * heads, length, width]``."""
        own = vectors[tile.rows.start * kinds : tile.rows.stop * kinds]
        return own.view(kinds, tile.count * self._heads, tile.length, -1).unbind(0)


def _fetch(packing: Packing, heads: int, kinds: int) -> npt.NDArray[np.int32]:
    """Where each vector of the tiles stands: a tile holds ``[kinds, count, heads, length]`` of them.

    The tokens' vectors lie side by side: ``[rows, kinds, heads]``.
    """
    part = np.arange(kinds * heads, dtype=np.int32).reshape(kinds, 1, heads, 1)
    found = []
    for tile in packing.tiles:
        rows = packing.gather[tile.start : tile.start + tile.count * tile.length].astype(np.int32)
        found.append((rows.reshape(1, tile.count, 1, tile.length) * (kinds * heads) + part).reshape(-1))
    return np.concatenate(found)


def _back(packing: Packing, heads: int) -> npt.NDArray[np.int32]:
    """For each vector ``[rows, heads]`` its place among the tiles' ``[count, heads, length]``."""
    places = np.empty((len(packing.gather), heads), dtype=np.int32)
    for tile in packing.tiles:
        size = tile.count * tile.length
        own = np.arange(tile.start * heads, (tile.start + size) * heads, dtype=np.int32)
        by_head = own.reshape(tile.count, heads, tile.length)
        places[tile.start : tile.start + size] = by_head.transpose(0, 2, 1).reshape(size, heads)
    return places[packing.scatter].reshape(-1)


def _attend(  # noqa: PLR0917
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, tile: _TileOnDevice, heads: int, out: torch.Tensor, /
) -> None:
    """Write ``[count * heads, asking, width]`` to ``out``; the softmax is taken in float32."""
    scores = torch.bmm(q, k.transpose(1, 2))
    if tile.mask is not None:
        # In bf16 this addition alone would take as long as the whole softmax.
        scores = scores.to(torch.float32)
        scores.view(tile.count, heads, -1, tile.length).add_(tile.mask)
    torch.bmm(torch.softmax(scores, -1, dtype=torch.float32).to(v.dtype), v, out=out)


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
