"""One record to be written."""

from collections.abc import Sequence
from dataclasses import dataclass

Header = tuple[str, bytes | None]


@dataclass(slots=True)  # frozen would make each one cost three times as much, and there is one a signal
class OutRecord:
    """Topic, key, value and headers; the partition follows from the key."""

    topic: str
    key: bytes | None
    value: bytes
    headers: Sequence[Header] = ()
