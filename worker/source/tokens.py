"""Tokens for SASL OAUTHBEARER, by the client-credentials grant (RFC 6749, 4.4)."""

import asyncio
import base64
import binascii
import http.client
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from functools import lru_cache
from time import monotonic
from typing import Final

import structlog
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaError

from worker.errors import ConnectionFailedError
from worker.settings import KafkaSettings
from worker.tls import client_context, refused_handshake

log = structlog.get_logger(__name__)

_TIMEOUT: Final = 10.0
_RETRY_AFTER: Final = 10.0
"""Seconds for which an endpoint that gave none is left alone while the old token is good."""
_RENEW_AT: Final = 0.8
"""Part of its life after which a token is renewed."""
_DEFAULT_LIFE: Final = 300.0
_MOST_BYTES: Final = 1 << 20


class TokenError(ConnectionFailedError, KafkaError):  # type: ignore[misc]
    """No token; a KafkaError as well, so that a running client tries again as after a lost connection."""

    retriable = True

    def __str__(self) -> str:
        return str(self.args[0])


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]
    """Fetches a token and keeps it for most of its life, or all of it while the endpoint gives no other;
    many clients on many loops may share one.
    """

    def __init__(self, kafka: KafkaSettings, clock: Callable[[], float] = monotonic) -> None:
        if (
            kafka.oauth_token_url is None
            or kafka.oauth_client_id is None
            or kafka.oauth_client_secret is None
        ):
            raise TypeError("the settings have no token endpoint")
        self._url = kafka.oauth_token_url
        self._client_id = kafka.oauth_client_id
        self._secret = kafka.oauth_client_secret
        self._scope = kafka.oauth_scope
        self._cafile = kafka.oauth_cafile
        self._clock = clock
        self._fetching = threading.Lock()
        self._token = ""
        self._renew_at = self._expires_at = 0.0

    async def token(self) -> str:
        """A token that has not expired.

        Raises:
            TokenError: the endpoint does not answer, or refuses us, and no token is left.
        """
        return await asyncio.to_thread(self._current)

    def _current(self) -> str:
        with self._fetching:
            asked_at = self._clock()
            if asked_at >= self._renew_at:
                try:
                    self._token, life = self._fetch()
                except TokenError as error:
                    now = self._clock()
                    if now >= self._expires_at:
                        raise
                    log.warning("token.not_renewed", left=round(self._expires_at - now), error=str(error))
                    self._renew_at = min(now + _RETRY_AFTER, self._expires_at)
                else:
                    self._renew_at = asked_at + _RENEW_AT * life
                    self._expires_at = asked_at + life
            return self._token

    def _fetch(self) -> tuple[str, float]:
        form = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        quoted = [
            urllib.parse.quote(part, safe="") for part in (self._client_id, self._secret.get_secret_value())
        ]
        request = urllib.request.Request(  # noqa: S310 - the settings take https, and http on the loopback
            self._url,
            data=urllib.parse.urlencode(form).encode(),
            headers={
                "Authorization": "Basic " + base64.b64encode(":".join(quoted).encode()).decode(),
                "Accept": "application/json",
            },
        )
        context = client_context("kafka", cafile=self._cafile) if self._url.startswith("https:") else None
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT, context=context) as answer:  # noqa: S310
                return _parsed(answer.read(_MOST_BYTES))
        except urllib.error.HTTPError as error:
            raise TokenError(
                f"The token endpoint kafka.oauth_token_url={self._url} refuses us with status {error.code}: "
                "correct kafka.oauth_client_id, kafka.oauth_client_secret or kafka.oauth_scope."
            ) from None  # the request that it holds carries the secret
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            host = urllib.parse.urlsplit(self._url).netloc
            cause = reason if isinstance(reason, BaseException) else error
            said = refused_handshake(cause, "kafka", host)
            said = (said or f"{cause}.").replace("kafka.ssl_cafile", "kafka.oauth_cafile")
            raise TokenError(
                f"The token endpoint kafka.oauth_token_url={self._url} does not answer: {said}"
            ) from error
        except (ValueError, binascii.Error) as error:
            raise TokenError(
                f"The token endpoint kafka.oauth_token_url={self._url} answers no token ({error}): "
                "correct the setting."
            ) from None


def _parsed(body: bytes) -> tuple[str, float]:
    try:
        answer = json.loads(body)
    except ValueError:
        raise ValueError("its answer is no JSON") from None
    token = answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(token, str) or not token:
        raise ValueError("its answer has no access_token")
    life = answer.get("expires_in")
    return token, float(life) if isinstance(life, int | float) and life > 0 else _DEFAULT_LIFE


@lru_cache(maxsize=8)
def token_provider(kafka: KafkaSettings) -> ClientCredentials:
    """The one of these settings: every client of a process shares its token."""
    return ClientCredentials(kafka)
