"""Which offsets are finished, and how far each partition may be committed."""

from collections import deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)


class _Partition:
    __slots__ = ("committed", "finished", "in_flight", "position")

    def __init__(self) -> None:
        self.in_flight: deque[int] = deque()  # in offset order; Kafka leaves gaps, so no counting
        self.finished: set[int] = set()  # finished, but behind an unfinished one
        self.position: int | None = None  # next offset to read
        self.committed: int | None = None


class OffsetLedger(Generic[P]):
    """Commits only what is finished, in order, per partition.

    An offset is tracked when it is read and finished when its signal or dead letter is
    acknowledged. The commit position of a partition is its first unfinished offset, or
    the offset after the last tracked one when none is left.
    """

    def __init__(self) -> None:
        self._partitions: dict[P, _Partition] = {}

    def track(self, partition: P, offsets: Iterable[int]) -> None:
        """Take note of offsets just read, ascending.

        Raises:
            ValueError: an offset is not above the ones before it. Reading backwards means
                a seek that the ledger was not told of by ``release``.
        """
        state = self._partitions.setdefault(partition, _Partition())
        position = state.position
        for offset in offsets:
            if position is not None and offset < position:
                raise ValueError(f"{partition}: offset {offset} was read after {position - 1}")
            state.in_flight.append(offset)
            state.position = position = offset + 1

    def pass_over(self, partition: P, offset: int) -> None:
        """Nothing below ``offset`` is there to be read any more, so it may be committed."""
        state = self._partitions.setdefault(partition, _Partition())
        state.position = max(offset, state.position or 0)

    def finish(self, partition: P, offsets: Iterable[int]) -> None:
        """Offsets are done. Unknown partitions are ignored: they were released meanwhile."""
        state = self._partitions.get(partition)
        if state is None:
            return
        in_flight, finished = state.in_flight, state.finished
        for offset in offsets:
            if in_flight and in_flight[0] == offset:  # the usual case: in order
                in_flight.popleft()
            else:
                finished.add(offset)
        while in_flight and in_flight[0] in finished:
            finished.remove(in_flight.popleft())

    def committable(self) -> dict[P, int]:
        """Commit positions that have moved since ``mark_committed``."""
        positions: dict[P, int] = {}
        for partition, state in self._partitions.items():
            position = state.in_flight[0] if state.in_flight else state.position
            if position is not None and (state.committed is None or position > state.committed):
                positions[partition] = position
        return positions

    def mark_committed(self, positions: dict[P, int]) -> None:
        """Remember what the broker has accepted."""
        for partition, position in positions.items():
            state = self._partitions.get(partition)
            if state is not None:
                state.committed = position

    def outstanding(self, partitions: Iterable[P] | None = None) -> int:
        """Offsets read and not finished."""
        chosen = self._partitions if partitions is None else partitions
        return sum(len(self._partitions[p].in_flight) for p in chosen if p in self._partitions)

    def release(self, partitions: Iterable[P]) -> None:
        """Forget partitions that another member owns now."""
        for partition in partitions:
            self._partitions.pop(partition, None)
