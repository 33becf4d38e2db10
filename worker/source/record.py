"""One record as it was read, and the hold under which it was."""

from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import TopicPartition


class Claim:
    """This worker's hold on one partition, from its assignment to its revocation.

    Records carry their claim, so that work for a partition which was given up is
    dropped wherever it stands, and never committed late.
    """

    __slots__ = ("active", "bytes_held", "partition")

    def __init__(self, partition: TopicPartition) -> None:
        self.partition = partition
        self.active = True
        self.bytes_held = 0
        """Bytes of its records that are read and not finished."""


@dataclass(slots=True)  # frozen would make each one cost three times as much, and there is one a message
class Record:
    """One record as it came, with the claim under which it was read."""

    claim: Claim
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]

    @property
    def size(self) -> int:
        """Bytes of key, value and headers."""
        size = len(self.key or b"") + len(self.value or b"")
        return size + sum(len(name) + len(value or b"") for name, value in self.headers)
