"""Ids seen lately: at-least-once delivery, or a replay, may put a signal on the topic twice."""

from collections import OrderedDict

from worker.aggregates.buckets import Partition


class RepeatWindows:
    """One `RepeatWindow` for each partition that this process reads; they know of each other.

    A replay after a coin got its name, or after the topic got more partitions, puts the signals under
    other keys, on other partitions. Partitions of other processes are not known here.
    """

    def __init__(self, size: int) -> None:
        """Prepare; ``size`` is how many offsets of a partition are remembered."""
        self._size = size
        self._windows: dict[Partition, RepeatWindow] = {}
        self._owners: dict[int, RepeatWindow] = {}

    def of(self, partition: Partition) -> "RepeatWindow":
        """The partition's window."""
        window = self._windows.get(partition)
        if window is None:
            window = self._windows[partition] = RepeatWindow(self._size, self._owners)
        return window

    def forget(self, partition: Partition) -> None:
        """Another process reads it now."""
        window = self._windows.pop(partition, None)
        if window is not None:
            window.clear()


class RepeatWindow:
    """Tells for each record whether its identity stands already on one of the ``size`` offsets before it.

    Fed with every record in offset order. A record that is read again gets the answer
    that it got before; reading on from before the first offset known starts anew.
    """

    def __init__(self, size: int, owners: "dict[int, RepeatWindow] | None" = None) -> None:
        """Prepare.

        Args:
            size: offsets that are remembered.
            owners: hash of an identity -> the window whose record counted, shared among partitions. What was
                dropped owns nothing: two records that are read again would each be dropped for the other.
        """
        self._size = size
        self._owners: dict[int, RepeatWindow] = {} if owners is None else owners
        self._offsets: OrderedDict[int, int] = OrderedDict()
        """Hash of the identity -> last offset, oldest first."""
        self._repeats: OrderedDict[int, bool] = OrderedDict()
        """Offsets that were repeats, and whether only another partition had the identity."""
        self._first: int | None = None
        self._last = -1

    def is_repeat(self, offset: int, id_hash: int) -> bool:
        """Whether the record repeats one before it, or one that another partition's window holds."""
        if self._first is None or offset < self._first:
            self.clear()
            self._first, self._last = offset, offset - 1
        if offset <= self._last:
            return offset in self._repeats
        self._last = offset
        before = self._offsets.pop(id_hash, None)
        self._offsets[id_hash] = offset
        self._forget(offset - self._size)
        here = before is not None and before >= offset - self._size
        elsewhere = not here and self._owners.get(id_hash, self) is not self
        if here or elsewhere:
            self._repeats[offset] = elsewhere
        else:
            self._owners[id_hash] = self
        return here or elsewhere

    def came_elsewhere(self, offset: int) -> bool:
        """Whether it is a repeat, and of another partition only."""
        return self._repeats.get(offset, False)

    def clear(self) -> None:
        """Know nothing."""
        for id_hash in self._offsets:
            self._disown(id_hash)
        self._offsets.clear()
        self._repeats.clear()
        self._first, self._last = None, -1

    def _forget(self, horizon: int) -> None:
        assert self._first is not None  # noqa: S101 - set by is_repeat
        self._first = max(self._first, horizon)
        while self._offsets[next(iter(self._offsets))] < horizon:  # the newest is always there
            self._disown(self._offsets.popitem(last=False)[0])
        while self._repeats and next(iter(self._repeats)) < horizon:
            self._repeats.popitem(last=False)

    def _disown(self, id_hash: int) -> None:
        if self._owners.get(id_hash) is self:
            del self._owners[id_hash]
