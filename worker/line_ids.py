"""Ids of messages that stand in a file without one: the same on every run, and under every file name."""

import hashlib

from schemas.messages import RawMessage
from worker.source.decoding import message_kind


def content_id(line: bytes) -> str:
    """For articles: the same line is the same article, wherever it stands."""
    return f"line-{_digest(line)}"


def line_id(message: RawMessage, line: bytes, number: int, *, article: bool = False) -> str:
    """For chat and news, of the message that was read from a line; ``article``: known to be one."""
    # News with its time is one article wherever it stands. Of the rest equal lines are many messages (two
    # people write "ㅋㅋ"), so the number tells them apart. Not a digest of the whole file: after a line was
    # corrected, the others would be new.
    if message.published_at is not None and (article or message_kind(message) == "news"):
        return content_id(line)
    return f"line-{number}-{_digest(line)}"


def _digest(line: bytes) -> str:
    return hashlib.blake2b(line, digest_size=8).hexdigest()
