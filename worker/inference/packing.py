"""Sequences of any length in one row of tokens, and the few padded tiles in which they attend.

Everything but attention works on single tokens, so sequences lie end to end and nothing is padded there.
Attention works within a sequence: sequences of like length share a tile ``[count, length]``. Lengths and
counts come from short lists, since oneDNN compiles a kernel for each new shape (0.3 to 1 ms, as long as a
short message takes), and attention is so small a part (3%) that the padding in its tiles does not show.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_LENGTHS: Final = np.array(
    [*range(8, 64, 8), *range(64, 128, 16), *range(128, 256, 32), *range(256, 1025, 64)], dtype=np.int64
)
_COUNTS: Final = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64], dtype=np.int64)
_TILE_TOKENS: Final = 1024
_ROW_STEPS: Final = ((128, 8), (1024, 32), (1 << 62, 64))


@dataclass(frozen=True, slots=True)
class Tile:
    """``count`` sequences padded to ``length``, for attention only."""

    count: int
    length: int
    start: int
    """First row of the tile in the gathered tokens; it takes ``count * length`` rows."""
    first: int
    """First slot of the tile among all tiles' sequences; it takes ``count`` slots."""
    mask: npt.NDArray[np.float32] | None
    """``[count, length]``: 0 for a key that exists, -inf for padding; None where all exist."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Where every token of a batch lies. Rows beyond the last token are filler, read by nobody."""

    rows: int
    tokens: int
    order: Ints
    """``[n]`` sequence number, shortest first: the order in which sequences lie in the row."""
    starts: Ints
    """``[n]`` row of the first token of each sequence, by sequence number."""
    positions: Ints
    """``[rows]`` position of each token in its sequence."""
    owners: Ints
    """``[tokens]`` sequence number of each token."""
    gather: Ints
    """``[sum of count * length]`` row of each token of the tiles."""
    scatter: Ints
    """``[rows]`` tile token of each row: the inverse of ``gather``."""
    slots: Ints
    """``[sum of count]`` sequence number of each slot of the tiles."""
    slot_of: Ints
    """``[n]`` slot of each sequence number."""
    tiles: tuple[Tile, ...]


def pack(lengths: Sequence[int]) -> Packing:
    """Lay out sequences of the given lengths (tokens, each at least 1)."""
    sizes = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(sizes, kind="stable")
    ordered = sizes[order]
    ends = np.cumsum(ordered)
    tokens = int(ends[-1])
    rows = _round_up(tokens)
    starts_ordered = ends - ordered
    starts = np.empty_like(starts_ordered)
    starts[order] = starts_ordered
    positions = np.zeros(rows, dtype=np.int64)
    positions[:tokens] = np.arange(tokens) - np.repeat(starts_ordered, ordered)
    gathers: list[Ints] = []
    slots: list[Ints] = []
    tiles: list[Tile] = []
    scatter = np.zeros(rows, dtype=np.int64)
    slot_of = np.empty_like(starts)
    start = first = 0
    for low, high, length in _runs(ordered):
        count = int(_COUNTS[np.searchsorted(_COUNTS, high - low)]) if high - low > 1 else 1
        column = np.arange(length)
        exists = column < ordered[low:high, None]
        row = np.where(exists, starts_ordered[low:high, None] + column, starts_ordered[low:high, None])
        gather = np.zeros((count, length), dtype=np.int64)
        gather[: high - low] = row
        scatter[row[exists]] = start + np.flatnonzero(exists)
        slot = np.full(count, order[low])
        slot[: high - low] = order[low:high]
        slot_of[order[low:high]] = first + np.arange(high - low)
        mask = None
        if not exists.all():
            # A slot without a sequence attends to all its filler: a row of -inf alone would give NaN.
            mask = np.zeros((count, length), dtype=np.float32)
            mask[: high - low][~exists] = -np.inf
        tiles.append(Tile(count, length, start, first, mask))
        gathers.append(gather.reshape(-1))
        slots.append(slot)
        start += count * length
        first += count
    return Packing(
        rows=rows,
        tokens=tokens,
        order=order,
        starts=starts,
        positions=positions,
        owners=np.repeat(order, ordered),
        gather=np.concatenate(gathers),
        scatter=scatter,
        slots=np.concatenate(slots),
        slot_of=slot_of,
        tiles=tuple(tiles),
    )


def split(lengths: Sequence[int], most_tokens: int) -> list[Ints]:
    """Cut a batch into parts of at most ``most_tokens``, like lengths together.

    A longer sequence makes a part of its own. Each part holds the numbers of its sequences.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(sizes, kind="stable")
    parts: list[Ints] = []
    low, filled = 0, 0
    for place, size in enumerate(sizes[order].tolist()):
        if place > low and filled + size > most_tokens:
            parts.append(order[low:place])
            low, filled = place, 0
        filled += size
    parts.append(order[low:])
    return parts


def share(lengths: Sequence[int], parts: int) -> list[Ints]:
    """Divide a batch into at most so many parts of nearly as many tokens each, like lengths together.

    Each part holds the numbers of its sequences, at least one.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(sizes, kind="stable")
    ends = np.cumsum(sizes[order])
    # A sequence goes where its middle lies.
    part = (ends - sizes[order] / 2) * parts // ends[-1]
    return np.split(order, np.flatnonzero(np.diff(part)) + 1)


def _runs(ordered: Ints) -> list[tuple[int, int, int]]:
    """Neighbours that share a tile: (first, beyond last, tile length)."""
    longest = int(_LENGTHS[-1])
    index = np.searchsorted(_LENGTHS, np.minimum(ordered, longest))
    classes = np.where(ordered > longest, ordered, _LENGTHS[index])
    runs = []
    low = 0
    for high in [*(np.flatnonzero(np.diff(classes)) + 1).tolist(), len(ordered)]:
        length = int(classes[low])
        most = max(1, min(_TILE_TOKENS // length, int(_COUNTS[-1])))
        most = int(_COUNTS[np.searchsorted(_COUNTS, most, side="right") - 1])
        runs += [(at, min(at + most, high), length) for at in range(low, high, most)]
        low = high
    return runs


def _round_up(tokens: int) -> int:
    """Fewer distinct row counts, for the same reason as fewer tile shapes; at most 3% more above 256."""
    for limit, step in _ROW_STEPS:
        if tokens <= limit:
            return -(-tokens // step) * step
    return tokens
