"""Tokens for OAUTHBEARER: fetched once, renewed in time, and what goes wrong is one sentence."""

import asyncio
import base64
import json
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.tls import Certificates
from worker.errors import ConfigurationError
from worker.settings import KafkaSettings, load_settings
from worker.source.tokens import ClientCredentials, TokenError

SECRET = "s3cret/of:the tests"


class Endpoint(ThreadingHTTPServer):
    """Answers what a test put into ``answer``, and notes the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answer: tuple[int, bytes] = (200, b"")
        self.requests: list[tuple[str, dict[str, list[str]]]] = []
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                endpoint.requests.append((self.headers["Authorization"], urllib.parse.parse_qs(body)))
                status, answer = endpoint.answer
                self.send_response(status)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def gives(self, token: str, **fields: Any) -> None:
        self.answer = (200, json.dumps({"access_token": token, "token_type": "bearer"} | fields).encode())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def kafka(url: str, **fields: Any) -> KafkaSettings:
    return KafkaSettings(
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="OAUTHBEARER",
        oauth_token_url=url,
        oauth_client_id="kbert",
        oauth_client_secret=SecretStr(SECRET),
        **fields,
    )


def provider(endpoint: Endpoint, clock: Clock, **fields: Any) -> ClientCredentials:
    return ClientCredentials(kafka(f"http://127.0.0.1:{endpoint.server_port}/token", **fields), clock)


async def test_one_token_for_all_who_ask_until_it_is_old(endpoint: Endpoint, clock: Clock) -> None:
    endpoint.gives("first", expires_in=100)
    tokens = provider(endpoint, clock, oauth_scope="kafka")
    assert await asyncio.gather(*(tokens.token() for _ in range(5))) == ["first"] * 5
    assert len(endpoint.requests) == 1
    authorization, form = endpoint.requests[0]
    given = base64.b64decode(authorization.removeprefix("Basic ")).decode().split(":")
    assert [urllib.parse.unquote(part) for part in given] == ["kbert", SECRET]
    assert form == {"grant_type": ["client_credentials"], "scope": ["kafka"]}
    endpoint.gives("second", expires_in=100)
    clock.now = 79.0
    assert await tokens.token() == "first"
    clock.now = 80.0
    assert await tokens.token() == "second"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((401, b'{"error": "invalid_client"}'), "status 401: correct kafka.oauth_client_id"),
        ((200, b"<html>"), "no JSON"),
        ((200, b'{"token": "x"}'), "no access_token"),
        ((200, b"[]"), "no access_token"),
    ],
)
async def test_an_endpoint_that_gives_none(
    endpoint: Endpoint, clock: Clock, answer: tuple[int, bytes], sentence: str
) -> None:
    endpoint.answer = answer
    with pytest.raises(TokenError, match=sentence) as refused:
        await provider(endpoint, clock).token()
    assert "\n" not in str(refused.value)
    assert SECRET not in repr(refused.value)
    endpoint.gives("after all")
    assert await provider(endpoint, clock).token() == "after all"


async def test_an_old_token_is_used_while_no_other_is_to_be_had(endpoint: Endpoint, clock: Clock) -> None:
    endpoint.gives("first", expires_in=100)
    tokens = provider(endpoint, clock)
    assert await tokens.token() == "first"
    endpoint.answer = (503, b"")
    clock.now = 80.0
    assert [await tokens.token() for _ in range(3)] == ["first"] * 3
    assert len(endpoint.requests) == 2, "who asks again and again makes the trouble larger"
    clock.now = 99.0
    assert await tokens.token() == "first"
    assert len(endpoint.requests) == 3
    clock.now = 100.0
    with pytest.raises(TokenError, match="status 503"):
        await tokens.token()
    endpoint.gives("second", expires_in=100)
    assert await tokens.token() == "second"


async def test_an_endpoint_that_is_not_there() -> None:
    with pytest.raises(TokenError, match=r"oauth_token_url=http://127\.0\.0\.1:1/ does not answer"):
        await ClientCredentials(kafka("http://127.0.0.1:1/")).token()


async def test_an_endpoint_behind_tls_is_verified(endpoint: Endpoint, tmp_path: Path) -> None:
    certificates, strangers = Certificates.make(tmp_path / "ours"), Certificates.make(tmp_path / "others")
    endpoint.socket = certificates.of_server().wrap_socket(endpoint.socket, server_side=True)
    endpoint.gives("token")
    url = f"https://localhost:{endpoint.server_port}/token"
    assert await ClientCredentials(kafka(url, oauth_cafile=certificates.cafile)).token() == "token"
    with pytest.raises(TokenError, match=r"not signed by an authority.*kafka\.oauth_cafile"):
        await ClientCredentials(kafka(url, oauth_cafile=strangers.cafile)).token()


def test_clients_of_the_same_settings_share_a_token() -> None:
    options = [kafka("http://127.0.0.1:1/").client_options() for _ in range(2)]
    assert options[0]["sasl_oauth_token_provider"] is options[1]["sasl_oauth_token_provider"]
    assert SECRET not in repr(options)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"oauth_client_secret": None}, "oauth_client_secret"),
        ({"oauth_token_url": "http://example.org/token"}, "https://"),
        ({"oauth_token_url": "https://user:pass@example.org/token"}, "password"),
    ],
)
def test_settings_that_lack_something(fields: dict[str, Any], name: str) -> None:
    whole = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "OAUTHBEARER",
        "oauth_token_url": "https://example.org/token",
        "oauth_client_id": "kbert",
        "oauth_client_secret": SECRET,
    }
    assert isinstance(KafkaSettings.model_validate(whole).client_options()["ssl_context"], ssl.SSLContext)
    with pytest.raises(ConfigurationError, match=name) as refused:
        load_settings(_env_file=None, kafka=whole | fields)
    assert SECRET not in str(refused.value)
