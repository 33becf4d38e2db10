"""Signals as signed POST requests to any HTTP server."""

import asyncio
import contextlib
import hashlib
import hmac
import os
import random
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

import orjson
import structlog

from schemas.signals import CryptoSignal
from schemas.topics import CRYPTO_SIGNAL_V1
from worker.errors import ConfigurationError
from worker.settings import WebhookSettings

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger(__name__)

SIGNATURE: Final = "X-Kbert-Signature"
TIMESTAMP: Final = "X-Kbert-Timestamp"
ID: Final = "X-Kbert-Id"
"""The signal's id, percent-encoded: equal on every attempt and every repeat."""
SCHEMA: Final = "X-Kbert-Schema"

_TEMPORARY: Final = frozenset({408, 425, 429})
"""Besides 5xx the answers that another attempt may change."""


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """``sha256=`` and the hexadecimal HMAC-SHA256 of ``<timestamp>.<body>``."""
    mac = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256)
    return f"sha256={mac.hexdigest()}"


def verify(
    secret: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    tolerance: float = 300.0,
    now: float | None = None,
) -> bool:
    """Whether a request came from here, for a receiver in Python.

    Args:
        secret: the setting ``bot.webhook.secret`` of the sender.
        headers: of the request, found by the names above in any case.
        body: the raw bytes, before any parsing.
        tolerance: seconds by which the timestamp may differ from now; bounds replays.
        now: seconds since 1970; the present by default.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    timestamp = lower.get(TIMESTAMP.lower(), "")
    if not (timestamp.isascii() and timestamp.isdigit()):
        return False
    if abs((time.time() if now is None else now) - int(timestamp)) > tolerance:
        return False
    given = lower.get(SIGNATURE.lower(), "").encode()
    return hmac.compare_digest(sign(secret, int(timestamp), body).encode(), given)


class Webhook:
    """Delivers signals one after another; use it as an async context manager.

    What the receiver refuses for good (another status than 2xx, 408, 425, 429 or 5xx, redirections
    among them) and what fails in every attempt is appended to ``dead_letters``, a line of JSON each.

    Raises:
        ConfigurationError: no usable address, no secret, or the file cannot be written.
    """

    def __init__(self, settings: WebhookSettings, rng: random.Random | None = None) -> None:
        url = settings.url.get_secret_value() if settings.url else ""
        if not _can_be_asked(url):
            raise ConfigurationError(
                "A webhook needs an address: set bot.webhook.url (KBERT_BOT__WEBHOOK__URL) to http(s)://..."
            )
        if settings.secret is None:
            raise ConfigurationError(
                "A webhook needs a key for its signature: set bot.webhook.secret "
                "(KBERT_BOT__WEBHOOK__SECRET) to at least 16 characters that the receiver knows too."
            )
        self._url = url
        self._secret = settings.secret.get_secret_value()
        self._settings = settings
        self._rng = rng or random.Random()
        self._client: httpx.AsyncClient | None = None
        self.delivered = 0
        self.refused = 0

    async def __aenter__(self) -> Self:
        import httpx

        _append(self._settings.dead_letters, b"")
        # One deadline covers the whole attempt, so httpx keeps none of its own.
        self._client = httpx.AsyncClient(timeout=None)  # noqa: S113
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def deliver(self, signal: CryptoSignal) -> bool:
        """Send one signal, with as many attempts as it takes; False where it became a dead letter."""
        body = signal.model_dump_json().encode()
        reason = ""
        for attempt in range(1, self._settings.attempts + 1):
            reason, again, pause = await self._attempt(signal.id, body)
            if not reason:
                self.delivered += 1
                return True
            if not again or attempt == self._settings.attempts:
                break
            longest = min(self._settings.max_backoff, self._settings.backoff * 2 ** (attempt - 1))
            # Any moment up to the longest, so that many senders do not come back at once.
            seconds = min(self._settings.max_backoff, pause) or self._rng.uniform(0, longest)
            log.warning(
                "webhook.retry", id=signal.id, reason=reason, attempt=attempt, seconds=round(seconds, 3)
            )
            await asyncio.sleep(seconds)
        self.refused += 1
        log.error("webhook.dead_letter", id=signal.id, reason=reason, file=str(self._settings.dead_letters))
        letter = {
            "failed_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "reason": reason,
            "attempts": attempt,
            "signal": orjson.Fragment(body),
        }
        _append(self._settings.dead_letters, orjson.dumps(letter) + b"\n")
        return False

    async def _attempt(self, identity: str, body: bytes) -> tuple[str, bool, float]:
        """Why it failed (empty: it did not), whether to try again, and the pause that was asked for."""
        import httpx

        assert self._client is not None, "Webhook is used outside its context"  # noqa: S101
        now = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "kbert-stream",
            TIMESTAMP: str(now),
            SIGNATURE: sign(self._secret, now, body),
            ID: quote(identity, safe=":/"),
            SCHEMA: CRYPTO_SIGNAL_V1,
        }
        try:
            async with asyncio.timeout(self._settings.timeout):
                answer = await self._client.post(self._url, content=body, headers=headers)
        except TimeoutError:
            return f"no answer within {self._settings.timeout:g} s", True, 0.0
        except httpx.RequestError as error:
            return f"{type(error).__name__}: {error}", True, 0.0
        if answer.is_success:
            return "", False, 0.0
        again = answer.status_code in _TEMPORARY or answer.status_code >= 500
        after = answer.headers.get("Retry-After", "")
        return f"status {answer.status_code}", again, float(after) if after.isdecimal() else 0.0


def _can_be_asked(url: str) -> bool:
    """Whether httpx takes it as an address: what it refuses in a request would end the process there."""
    import httpx

    try:
        parts = httpx.Request("POST", url).url
    except (httpx.InvalidURL, ValueError):  # a name that IDNA refuses is a ValueError
        return False
    return parts.scheme in ("http", "https") and bool(parts.host) and 0 < (parts.port or 80) < 65_536


def _append(file: Path, line: bytes) -> None:
    """Add a line that is on the disk when this returns: the signal's offset is committed after it.

    On a disk that is full nothing of it stays: the next line would stand behind a torn one, and be lost.
    """
    try:
        # Without a buffer: one would write what is left of the line when the file is closed.
        with file.open("a+b", buffering=0) as opened:
            size = opened.seek(0, os.SEEK_END)
            if line and size:
                opened.seek(size - 1)
                if opened.read(1) != b"\n":  # a process was killed while it wrote
                    line = b"\n" + line
            try:
                while line:
                    line = line[opened.write(line) :]
                os.fsync(opened.fileno())
            except OSError:
                with contextlib.suppress(OSError):  # a file that only grows; the next line starts anew then
                    opened.truncate(size)
                raise
    except OSError as error:
        raise ConfigurationError(
            f"The dead letters cannot be written to {file} ({error.strerror}): correct "
            "bot.webhook.dead_letters (KBERT_BOT__WEBHOOK__DEAD_LETTERS)."
        ) from error
