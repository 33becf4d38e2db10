"""Which partition a key belongs to, as every Kafka client has it."""

from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Final

_SEED: Final = 0x9747B28C
_MULTIPLIER: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF
_WORDS: Final = [Struct(f"<{count}I") for count in range(160)]  # ids have at most 512 characters


@lru_cache(maxsize=16_384)
def partition_of(key: bytes, partitions: tuple[int, ...]) -> int:
    """The partition of a key; coins repeat, ids do not."""
    return partitions[(murmur2(key) & 0x7FFFFFFF) % len(partitions)]


def murmur2(data: bytes) -> int:
    """Kafka's hash, 32 bits unsigned.

    aiokafka's own takes the bytes one by one, which was a sixth of the worker's time around the engine.
    """
    length = len(data)
    count = length // 4
    result = _SEED ^ length
    for word in _words(data, count):
        mixed = word * _MULTIPLIER & _MASK
        result = (result * _MULTIPLIER & _MASK) ^ ((mixed ^ mixed >> 24) * _MULTIPLIER & _MASK)
    if rest := data[4 * count :]:
        result = (result ^ int.from_bytes(rest, "little")) * _MULTIPLIER & _MASK
    result = (result ^ result >> 13) * _MULTIPLIER & _MASK
    return result ^ result >> 15


def _words(data: bytes, count: int) -> Sequence[int]:
    layout = _WORDS[count] if count < len(_WORDS) else Struct(f"<{count}I")
    return layout.unpack_from(data)
