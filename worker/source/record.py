"""One record as it was read, and the hold under which it was."""

from collections.abc import Sequence

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


class Record:
    """One record as it came, with the claim under which it was read."""

    __slots__ = ("claim", "headers", "key", "offset", "size", "timestamp", "value")

    def __init__(  # noqa: PLR0917 - as its fields
        self,
        claim: Claim,
        offset: int,
        timestamp: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]],
    ) -> None:
        self.claim = claim
        self.offset = offset
        self.timestamp = timestamp
        self.key = key
        self.value = value
        self.headers = headers
        size = len(key or b"") + len(value or b"")
        if headers:
            size += sum(len(name) + len(content or b"") for name, content in headers)
        self.size = size
        """Bytes of key, value and headers."""


def unread(topic: str) -> Record:
    """A record that stands on no topic: what a message of our own, for a check, is said to come from."""
    return Record(Claim(TopicPartition(topic, 0)), 0, -1, None, None, ())
