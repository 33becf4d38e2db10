"""Header names that are not UTF-8, read by aiokafka's own consumer parts."""

import struct
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.codec import gzip_encode
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from worker.source import header_names
from worker.source.header_names import escape_header_names

_PARTITION = TopicPartition("raw", 0)
_NAME, _ODD = b"QQQQ", b"\xc3\xe2\xc3\xb3"
_READ_COMMITTED = 1


@pytest.fixture(autouse=True)
def _escaping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetcher, "MemoryRecords", fetcher.MemoryRecords)
    monkeypatch.setattr(fetcher, "PartitionRecords", fetcher.PartitionRecords)
    escape_header_names()


def _batch(first: int, *, odd: bool = False, codec: int = 0, producer: int = -1) -> bytes:
    """Three records from that offset; where odd, the second has a header name that is not UTF-8."""
    transactional = producer >= 0
    builder = DefaultRecordBatchBuilder(
        2, 0, transactional, producer, 0 if transactional else -1, -1, 1 << 16
    )
    for number in range(3):
        name = _NAME.decode() if odd and number == 1 else "id"
        builder.append(number, 1_000, b"key", b"%d" % (first + number), [(name, b"v"), ("none", None)])
    built = bytes(builder.build()).replace(_NAME, _ODD)
    body = gzip_encode(built[61:]) if codec else built[61:]
    data = bytearray(built[:61] + body)
    struct.pack_into(">qi", data, 0, first, len(data) - 12)
    data[22] |= codec
    return _sealed(data)


def _abort_marker(offset: int, producer: int) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, True, producer, 0, -1, 1 << 16)
    builder.append(0, 1_000, b"\0\0\0\0", b"", [])
    data = bytearray(builder.build())
    struct.pack_into(">q", data, 0, offset)
    data[22] |= 0x20
    return _sealed(data)


def _sealed(data: bytearray) -> bytes:
    struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    return bytes(data)


def _read(data: bytes, start: int = 0, aborted: Sequence[tuple[int, int]] = ()) -> list[Any]:
    return list(
        fetcher.PartitionRecords(
            _PARTITION, fetcher.MemoryRecords(data), list(aborted), start, None, None, True, _READ_COMMITTED
        )
    )


@pytest.mark.parametrize("codec", [0, 1], ids=["plain", "gzip"])
@pytest.mark.parametrize("start", [0, 1, 2])
def test_an_odd_name_is_escaped_and_every_record_is_read_once(start: int, codec: int) -> None:
    data = b"".join(_batch(first, odd=first in {0, 6}, codec=codec) for first in (0, 3, 6, 9))
    records = _read(data, start)
    assert [(r.offset, r.value) for r in records] == [(n, b"%d" % n) for n in range(start, 12)]
    escaped = "\\xc3\\xe2ó"  # the last two bytes are a letter
    assert [r.headers for r in records] == [
        ((escaped if n in {1, 7} else "id", b"v"), ("none", None)) for n in range(start, 12)
    ]


def test_what_an_aborted_transaction_wrote_stays_away() -> None:
    # Its first batch lies before the odd name, its second one behind it.
    data = b"".join(
        (_batch(0, producer=7), _batch(3, odd=True), _batch(6, producer=7), _abort_marker(9, 7), _batch(10))
    )
    assert [r.offset for r in _read(data, aborted=[(7, 0)])] == [3, 4, 5, 10, 11, 12]


def test_a_torn_batch_is_still_refused() -> None:
    torn = bytearray(_batch(3, odd=True))
    torn[-1] ^= 1
    with pytest.raises(CorruptRecordException):
        _read(_batch(0) + bytes(torn))


def test_ordinary_records_are_read_by_the_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_names, "_Rest", None)  # what the pure-Python reader begins with
    assert [r.offset for r in _read(_batch(0) + _batch(3))] == list(range(6))
