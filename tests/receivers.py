"""A webhook receiver: a real HTTP server on a thread that answers as a test says."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Answer = int | tuple[int, dict[str, str]] | Literal["hang", "drop", "garble"]


@dataclass
class Receiver:
    """What came, and what is answered next; 200 when the script has run out."""

    url: str
    script: list[Answer] = field(default_factory=list)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    accepted: list[bytes] = field(default_factory=list)
    """Bodies that were answered with 2xx."""
    awake: threading.Event = field(default_factory=threading.Event)
    """Set, a hanging answer ends."""

    @property
    def bodies(self) -> list[bytes]:
        """Of all requests."""
        return [body for _, body in self.requests]


@contextlib.contextmanager
def receiver(*script: Answer, port: int = 0) -> Iterator[Receiver]:
    """A server until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            known.requests.append((dict(self.headers), body))
            answer = known.script.pop(0) if known.script else 200
            if answer == "garble":  # a body that is not compressed as it says
                self.send_response(502)
                self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Length", "4")
                self.end_headers()
                self.wfile.write(b"oops")
                return
            if answer == "hang":
                known.awake.wait(60)
            if isinstance(answer, str):
                self.close_connection = True
                return
            status, headers = answer if isinstance(answer, tuple) else (answer, {})
            if 200 <= status < 300:
                known.accepted.append(body)
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    known = Receiver(f"http://127.0.0.1:{server.server_port}/hook?token=hidden", list(script))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield known
    finally:
        known.awake.set()
        server.shutdown()
        server.server_close()
        thread.join()
