"""Where the server may be bound, and that its settings are refused in one sentence."""

import asyncio
import socket

import pytest
from pydantic import SecretStr

from worker.binding import check_binding
from worker.errors import ConfigurationError
from worker.serve.server import bound_socket, run_serve
from worker.settings import ServeSettings, load_settings


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


def test_a_taken_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=r"serve\.port"), bound_socket(ServeSettings(port=port)):
            pass
