"""Which partition a key belongs to, as every Kafka client has it."""

import random
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from struct import pack, unpack
from typing import Final

_SEED: Final = 0x9747B28C
_MULTIPLIER: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF
_WORD: Final = 4


def partitions_of(keys: Sequence[bytes | None], partitions: Sequence[int]) -> list[int]:
    """The partition of each key; any one where there is no key."""
    found: list[int] = []
    by_length: defaultdict[int, tuple[list[int], list[bytes]]] = defaultdict(lambda: ([], []))
    for place, key in enumerate(keys):
        found.append(random.choice(partitions) if key is None else 0)
        if key is not None:
            places, same = by_length[len(key)]
            places.append(place)
            same.append(key)
    for length, (places, same) in by_length.items():
        for place, hashed in zip(places, _murmur2(same, length), strict=True):
            found[place] = partitions[(hashed & 0x7FFFFFFF) % len(partitions)]
    return found


def _murmur2(keys: Sequence[bytes], length: int) -> tuple[int, ...]:
    """Kafka's hash, 32 bits unsigned, of keys of one length.

    All at once: one integer holds a lane of 64 bits for each key, half of it room for a product, so an
    operation costs Python about as much for all keys as for one. aiokafka's own takes each key byte by
    byte, which was a sixth of the worker's time around the engine.
    """
    count = len(keys)
    whole, rest = divmod(length, _WORD)
    padding = bytes(-length % _WORD)
    stride = whole + bool(rest)
    words = unpack(f"<{count * stride}I", padding.join(keys) + padding)
    ones = _ones(count)
    mask = _MASK * ones
    result = (_SEED ^ length) * ones
    for n in range(stride):
        word = int.from_bytes(pack(f"<{count}Q", *words[n::stride]), "little")
        if n < whole:
            mixed = word * _MULTIPLIER & mask
            mixed = (mixed ^ mixed >> 24 & mask) * _MULTIPLIER & mask
            result = (result * _MULTIPLIER & mask) ^ mixed
        else:
            result = (result ^ word) * _MULTIPLIER & mask
    result = (result ^ result >> 13 & mask) * _MULTIPLIER & mask
    result ^= result >> 15 & mask
    return unpack(f"<{count}Q", result.to_bytes(8 * count, "little"))


@lru_cache(maxsize=64)
def _ones(count: int) -> int:
    return int.from_bytes(pack("<Q", 1) * count, "little")
