"""Metrics and probes over HTTP, from a thread of their own.

/metrics  Prometheus text format
/healthz  200 while the event loop turns: restart the process otherwise
/readyz   200 while every part works; the body says what each lacks

Beyond this machine /metrics asks for a bearer token; the probes of an orchestrator carry none.
"""

import json
import socket
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar, Final

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import SecretStr

from worker.binding import bears, check_binding
from worker.errors import ConfigurationError
from worker.rate_limit import RateLimit, client_of
from worker.telemetry.health import HEALTH, Health
from worker.telemetry.seldom import Seldom

log = structlog.get_logger(__name__)

_READS_PER_SECOND: Final = 5.0
_READS_AT_ONCE: Final = 20
"""Of one address; a scrape costs some 10 ms of the process."""


class _Handler(BaseHTTPRequestHandler):
    health: ClassVar[Health]
    token: ClassVar[bytes | None]
    rate: ClassVar[RateLimit]
    timeout = 10.0  # a client that says nothing gives its thread back

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics" and self.rate.wait(client_of(self.client_address[0])):
            self._answer(HTTPStatus.TOO_MANY_REQUESTS, "text/plain", b"ask less often\n")
        elif path == "/metrics" and not self._may_read():
            self._answer(HTTPStatus.UNAUTHORIZED, "text/plain", b"Authorization: Bearer <metrics.token>\n")
        elif path == "/metrics":
            self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest())
        elif path == "/healthz":
            problem = self.health.alive()
            self._say(problem is None, {} if problem is None else {"process": problem})
        elif path == "/readyz":
            parts = {name: problem or "ok" for name, problem in self.health.parts().items()}
            if (problem := self.health.alive()) is not None:
                parts["process"] = problem
            self._say(self.health.ready(), parts)
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"/metrics, /healthz or /readyz\n")

    def _may_read(self) -> bool:
        return self.token is None or bears(self.headers.get("Authorization", ""), self.token)

    def _say(self, works: bool, parts: dict[str, str]) -> None:
        body = {"status": "ok" if works else "unavailable", "parts": parts}
        status = HTTPStatus.OK if works else HTTPStatus.SERVICE_UNAVAILABLE
        self._answer(status, "application/json", json.dumps(body).encode() + b"\n")

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a probe every few seconds is no news."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, host: str, port: int, handler: type[_Handler]) -> None:
        self.address_family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
        self._seldom = Seldom(log)
        super().__init__((host, port), handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log it seldom, and a client that went away not at all: the default prints each traceback."""
        error = sys.exception()
        if not isinstance(error, OSError):
            self._seldom.warning("metrics.request_failed", exc_info=error)


def expose(
    host: str, port: int, token: SecretStr | None = None, health: Health = HEALTH
) -> ThreadingHTTPServer:
    """Serve metrics and probes from daemon threads; port 0 takes a free one.

    Raises:
        ConfigurationError: nothing can listen there, or others could read there without a token.
    """
    check_binding("metrics", host, token)
    own = {
        "health": health,
        "token": None if token is None else token.get_secret_value().encode(),
        "rate": RateLimit(_READS_PER_SECOND, _READS_AT_ONCE),
    }
    handler = type("_HandlerOf", (_Handler,), own)
    try:
        server = _Server(host, port, handler)
    except OSError as error:
        raise ConfigurationError(
            f"Nothing can listen at {host}:{port} ({error.strerror}): set metrics.port (KBERT_METRICS__PORT) "
            "or metrics.host (KBERT_METRICS__HOST)."
        ) from error
    Thread(target=server.serve_forever, name="kbert-metrics", daemon=True).start()
    return server
