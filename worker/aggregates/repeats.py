"""Ids seen lately on one partition: at-least-once delivery may put a signal there twice."""

from collections import OrderedDict


class RepeatWindow:
    """Tells for each record whether its identity stands already on one of the ``size`` offsets before it.

    Fed with every record in offset order. A record that is read again gets the answer
    that it got before; reading on from before the first offset known starts anew.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._offsets: OrderedDict[int, int] = OrderedDict()
        """Hash of the identity -> last offset, oldest first."""
        self._repeats: OrderedDict[int, None] = OrderedDict()
        """Offsets that were repeats."""
        self._first: int | None = None
        self._last = -1

    def is_repeat(self, offset: int, id_hash: int) -> bool:
        """Whether the record repeats one before it."""
        if self._first is None or offset < self._first:
            self._offsets.clear()
            self._repeats.clear()
            self._first, self._last = offset, offset - 1
        if offset <= self._last:
            return offset in self._repeats
        self._last = offset
        before = self._offsets.pop(id_hash, None)
        self._offsets[id_hash] = offset
        self._forget(offset - self._size)
        repeat = before is not None and before >= offset - self._size
        if repeat:
            self._repeats[offset] = None
        return repeat

    def _forget(self, horizon: int) -> None:
        assert self._first is not None  # noqa: S101 - set by is_repeat
        self._first = max(self._first, horizon)
        while self._offsets[next(iter(self._offsets))] < horizon:  # the newest is always there
            self._offsets.popitem(last=False)
        while self._repeats and next(iter(self._repeats)) < horizon:
            self._repeats.popitem(last=False)
