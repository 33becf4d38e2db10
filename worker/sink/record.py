"""One record to be written."""

from collections.abc import Sequence
from dataclasses import dataclass

Header = tuple[str, bytes | None]


@dataclass(frozen=True, slots=True)
class OutRecord:
    """Topic, key, value and headers; the partition follows from the key."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Sequence[Header] = ()
