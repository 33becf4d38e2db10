"""Records whose header names are not UTF-8.

aiokafka raises for such a name, at every start again, and drops the records that it read before it. Kafka
itself takes any bytes, so one producer could stop every reader of a topic.
"""

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords, _MemoryRecordsPy


def escape_header_names() -> None:
    """Let every consumer of this process read such names, their odd bytes as ``\\xc3``.

    Ordinary records go through aiokafka's compiled code as before.
    """
    fetcher.MemoryRecords = _Answer
    fetcher.PartitionRecords = _PartitionRecords


class _Answer(MemoryRecords):  # type: ignore[misc]
    """The compiled reader of a broker's answer, which does not give the bytes back."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class _PartitionRecords(fetcher.PartitionRecords):  # type: ignore[misc]
    """Goes on in Python from the batch where the compiled code has given up."""

    _records: Any
    _records_iterator: Iterator[Any]

    def __next__(self) -> Any:
        try:
            return next(self._records_iterator)
        except UnicodeDecodeError:
            self._records = _Rest(self._records.data, self.next_fetch_offset)
            self._records_iterator = self._unpack_records()
            return next(self._records_iterator)


class _Rest:
    """The batches of an answer that end behind an offset; aiokafka passes over the records in front of it."""

    def __init__(self, data: bytes, offset: int) -> None:
        self.data = data
        self._batches = [batch for batch in _batches(data) if batch.next_offset > offset]
        self._batches.reverse()

    def has_next(self) -> bool:
        return bool(self._batches)

    def next_batch(self) -> Any:
        return self._batches.pop()


def _batches(data: bytes) -> Iterator[Any]:
    records = _MemoryRecordsPy(data)
    while records.has_next():
        held = records._next_slice
        batch = records.next_batch()
        yield _Batch(held) if isinstance(batch, DefaultRecordBatch) else batch


class _Batch(_DefaultRecordBatchPy):  # type: ignore[misc]
    _buffer: bytearray

    def __iter__(self) -> "_Batch":
        super().__iter__()  # decompresses
        self._buffer = _Escaping(self._buffer)
        return self


class _Escaping(bytearray):
    """Bytes that are text whatever they are, and so is every part of them."""

    def __getitem__(self, at: Any) -> Any:
        part = super().__getitem__(at)
        return _Escaping(part) if isinstance(at, slice) else part

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return super().decode(encoding, "backslashreplace")
