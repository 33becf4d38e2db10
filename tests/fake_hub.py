"""A Hugging Face Hub on localhost: enough of its HTTP interface for huggingface_hub to download from."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_LARGE = 1024


@dataclass
class FakeHub:
    """Serves ``directory`` as the repository ``repo_id``."""

    repo_id: str
    directory: Path
    endpoint: str = ""
    downloaded: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)
    gated: bool = False
    status: int | None = None
    """Of every answer, where the Hub is in trouble."""

    def files(self) -> dict[str, bytes]:
        return {
            file.relative_to(self.directory).as_posix(): file.read_bytes()
            for file in sorted(self.directory.rglob("*"))
            if file.is_file()
        }


@contextmanager
def fake_hub(repo_id: str, directory: Path) -> Iterator[FakeHub]:
    hub = FakeHub(repo_id, directory)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            path = self.path.split("?", 1)[0]
            hub.tokens.add(self.headers.get("Authorization"))
            api, raw = f"/api/models/{hub.repo_id}", f"/{hub.repo_id}/resolve/"
            if hub.status is not None:
                self._send(hub.status, b"{}", body, {})
            elif hub.gated and not self.headers.get("Authorization"):
                self._send(401, b"{}", body, {"X-Error-Code": "GatedRepo"})
            elif path == api or path.startswith(f"{api}/revision/"):
                self._revision(path.removeprefix(api).removeprefix("/revision/"), body)
            elif path.startswith(f"{api}/tree/"):
                self._send(200, json.dumps(_tree(hub)).encode(), body)
            elif path.startswith(raw):
                self._file(path.removeprefix(raw).split("/", 1)[1], body)
            else:
                self._send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})

        def _revision(self, revision: str, body: bool) -> None:
            if revision not in ("", "main", COMMIT):
                self._send(404, b"{}", body, {"X-Error-Code": "RevisionNotFound"})
                return
            siblings = [{"rfilename": name} for name in hub.files()]
            info = {"id": hub.repo_id, "sha": COMMIT, "siblings": siblings, "private": False}
            self._send(200, json.dumps(info).encode(), body)

        def _file(self, name: str, body: bool) -> None:
            content = hub.files()[name]
            if body:
                hub.downloaded.append(name)
            self._send(200, content, body, {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": COMMIT})

        def _send(
            self, status: int, content: bytes, body: bool, headers: dict[str, str] | None = None
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

    return Handler


def _etag(content: bytes) -> str:
    """Large files are known by their SHA-256, small ones by their git blob id."""
    if len(content) >= _LARGE:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _tree(hub: FakeHub) -> list[dict[str, object]]:
    entries: list[dict[str, object]] = []
    for name, content in hub.files().items():
        entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
        if len(content) >= _LARGE:
            entry["lfs"] = {"oid": _etag(content), "size": len(content), "pointerSize": 130}
        entries.append(entry)
    return entries
