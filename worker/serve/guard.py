"""What stands before every request: who may ask, and which headers go with the answer."""

import contextlib
import time
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from worker.binding import bears
from worker.rate_limit import RateLimit, client_of
from worker.serve import metrics
from worker.serve.limit import StreamLimit
from worker.settings import ServeSettings

_ALIVE: Final = "/healthz"
_OPEN: Final = (_ALIVE, "/readyz")
_STREAMS: Final = ("/v1/stream", "/v1/ws")
_PROTECTED: Final = ("/v1/", "/metrics")
_LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_HEADERS: Final = {
    # The page holds untrusted text: no inline script or style, nothing from elsewhere, no frames.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=()",
}


class Guard:
    """ASGI middleware.

    Without a token, only requests for a name of this machine are answered: another site's page
    could otherwise reach a server on the loopback by pointing its own name there (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app = app
        token = settings.token
        self._token = None if token is None else token.get_secret_value().encode()
        self._rate = RateLimit(settings.requests_per_second, settings.burst)
        self._streams = StreamLimit(settings.max_streams_per_client)
        self._hosts = frozenset((*_LOCAL_NAMES, *(name.lower() for name in settings.allowed_hosts)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        client = client_of((scope.get("client") or ("local",))[0])

        answered = False

        async def guarded_send(message: Message) -> None:
            nonlocal answered
            answered = True
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                _add_headers(message, scope["path"])
                route = getattr(scope.get("route"), "path", "other")
                metrics.REQUESTS.labels(route, str(message["status"])).inc()
                metrics.REQUEST_SECONDS.labels(route).observe(time.perf_counter() - began)
            await send(message)

        streams = scope["path"] in _STREAMS
        refusal = self._too_much(scope["path"], client, streams) or self._refusal(scope)
        with self._streams.one(client) if streams and refusal is None else contextlib.nullcontext():
            try:
                await (refusal or self._app)(scope, receive, guarded_send)
            except Exception:
                # Starlette's own 500 is sent from outside this middleware: without headers, and uncounted.
                if not answered:
                    await _refused(500, "this request failed: the server's log says why")(
                        scope, receive, guarded_send
                    )
                raise  # to the server, which logs it

    def _too_much(self, path: str, client: str, streams: bool) -> JSONResponse | None:
        if path == _ALIVE:
            return None
        if streams and self._streams.full(client):
            return _refused(429, "this address has as many streams open as serve.max_streams_per_client", 5)
        wait = self._rate.wait(client)
        return _refused(429, "this address asks more than serve.requests_per_second", wait) if wait else None

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        path: str = scope["path"]
        host = _name(headers.get("host", ""))
        if self._token is None and path not in _OPEN and host not in self._hosts:
            return _refused(421, "this name is not served: add it to serve.allowed_hosts")
        if scope["type"] == "websocket":
            origin = headers.get("origin")
            # urlsplit would raise on a malformed one.
            if origin is not None and origin.partition("://")[2].lower() != headers.get("host", "").lower():
                return _refused(403, "pages of other origins may not connect")
        needed = self._token if path.startswith(_PROTECTED) else None
        if needed is not None and not bears(headers.get("authorization", ""), needed):
            return _refused(401, "send the header Authorization: Bearer <serve.token>")
        return None


def _refused(status: int, sentence: str, retry_after: int | None = None) -> JSONResponse:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return JSONResponse({"detail": sentence}, status_code=status, headers=headers)


def _name(host: str) -> str:
    """Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _add_headers(message: Message, path: str) -> None:
    headers = MutableHeaders(scope=message)
    pairs: Iterable[tuple[str, str]] = _HEADERS.items()
    for name, value in pairs:
        headers[name] = value
    if "cache-control" not in headers:
        headers["Cache-Control"] = "no-store" if path.startswith("/v1/") else "no-cache"
