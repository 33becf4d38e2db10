"""Where the server may be bound, and that its settings are refused in one sentence."""

import asyncio
import logging
import socket

import pytest
import structlog
from pydantic import SecretStr
from starlette.responses import PlainTextResponse
from structlog.testing import capture_logs

from worker.binding import check_binding
from worker.errors import ConfigurationError
from worker.serve import server
from worker.serve.server import bound_socket, run_serve, serve_app
from worker.settings import ServeSettings, load_settings
from worker.telemetry.seldom import Seldom


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "example.org"])
def test_beyond_this_machine_only_with_a_token(host: str) -> None:
    with pytest.raises(ConfigurationError, match=r"serve\.token \(KBERT_SERVE__TOKEN\)") as refused:
        check_binding("serve", host, None)
    assert "\n" not in str(refused.value)
    check_binding("serve", host, SecretStr("0123456789abcdef"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_this_machine_needs_none(host: str) -> None:
    check_binding("serve", host, None)


async def test_refused_before_anything_connects() -> None:
    settings = load_settings(_env_file=None, serve=ServeSettings(host="0.0.0.0"))
    with pytest.raises(ConfigurationError, match=r"serve\.token"):
        await run_serve(settings, asyncio.Event())


def test_a_short_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBERT_SERVE__TOKEN", "short")
    with pytest.raises(ConfigurationError, match="KBERT_SERVE__TOKEN"):
        load_settings(_env_file=None)


@pytest.mark.parametrize("section", ["serve", "metrics"])
@pytest.mark.parametrize(
    ("token", "taken"),
    [
        ("a token-of_16.characters~", True),
        ("비밀토큰은열여섯글자이상이어야함", False),
        ("café-of-16-characters", False),
        ("0123456789abcdef\n", False),
        (" 0123456789abcdef", False),
        ("0123456789\tabcdef", False),
    ],
)
def test_a_token_is_one_that_a_header_can_hold(
    monkeypatch: pytest.MonkeyPatch, section: str, token: str, taken: bool
) -> None:
    monkeypatch.setenv(f"KBERT_{section.upper()}__TOKEN", token)
    if taken:
        assert load_settings(_env_file=None).serve is not None
        return
    with pytest.raises(ConfigurationError, match=rf"{section}\.token .* printable ASCII") as refused:
        load_settings(_env_file=None)
    assert token not in str(refused.value)


async def test_malformed_requests_are_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop = asyncio.Event()
    with bound_socket(ServeSettings(port=0)) as listening, capture_logs() as said:
        # A logger of its own: the module's is bound for good once it has said anything.
        monkeypatch.setattr(server, "_seldom", Seldom(structlog.get_logger()))
        address = listening.getsockname()
        serving = asyncio.create_task(
            serve_app(PlainTextResponse("ok"), listening, stop, closing=lambda: None)
        )
        for request in [b"GARBAGE\r\n\r\n"] * 5 + [
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: h2c\r\n\r\n"
        ]:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(request)
            assert await reader.readline()
            writer.close()
        stop.set()
        await serving
    assert [line["event"] for line in said] == ["serve.malformed_request"]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_taken_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=r"serve\.port"), bound_socket(ServeSettings(port=port)):
            pass
