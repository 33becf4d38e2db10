"""Who takes the offsets: the consumer group, or transactions that hold the outcomes too."""

from collections.abc import Iterable, Mapping
from enum import Enum, auto
from typing import Protocol

from aiokafka import TopicPartition


class Committed(Enum):
    """What became of a partition's commit."""

    DONE = auto()
    FENCED = auto()
    """Another worker has opened the partition's producer: the hold on the partition is over."""
    FAILED = auto()
    """Nothing is known: the partition has to be claimed anew and read from its committed offset."""


class Committer(Protocol):
    """Commits offsets in transactions of its own."""

    async def due(self) -> None:
        """Wait until the next commit."""
        ...

    async def claim(self, partitions: Iterable[TopicPartition]) -> None:
        """Become the only one who commits for these partitions."""
        ...

    async def commit(self, positions: Mapping[TopicPartition, int]) -> dict[TopicPartition, Committed]:
        """Commit positions; a partition that is not claimed is left out of the answer."""
        ...

    async def release(self, partitions: Iterable[TopicPartition]) -> None:
        """Give partitions away."""
        ...
