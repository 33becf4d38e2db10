"""`kbert watch`: options that go together, and an outage of Redis that it waits out."""

import asyncio
from typing import Any, Self

import pytest
import typer
from rich.console import Console

from worker.commands import watch
from worker.commands.board import Board
from worker.commands.watch import check_options, watch_board, watch_signals
from worker.errors import ConfigurationError, ConnectionFailedError
from worker.settings import Settings

GONE = "Redis at 127.0.0.1:6379 does not answer: start it."


class FakeAggregates:
    """Answers, is silent twice, answers again, and then stops the command."""

    def __init__(self, stop: asyncio.Event, answers: str) -> None:
        self._stop = stop
        self._answers = iter(answers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def all(self, _window: str) -> dict[str, Any]:
        answer = next(self._answers, None)
        if answer is None:
            self._stop.set()
        if answer == "-":
            raise ConnectionFailedError(GONE)
        return {}


def prepare(monkeypatch: pytest.MonkeyPatch, answers: str) -> asyncio.Event:
    stop = asyncio.Event()
    monkeypatch.setattr(watch, "_REFRESH_SECONDS", 0.001)
    monkeypatch.setattr(watch, "Aggregates", lambda *_, **__: FakeAggregates(stop, answers))
    return stop


async def test_lines_go_on_after_an_outage_that_standard_error_tells_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = prepare(monkeypatch, "+--+-")
    async with asyncio.timeout(10):
        await watch_board(Settings(), "1h", once=False, as_json=True, stop=stop)
    said = capsys.readouterr()
    assert said.out.splitlines() == ["{}"] * 3
    assert said.err.splitlines() == [f"kbert: {GONE}"] * 2  # one an outage


async def test_the_board_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = prepare(monkeypatch, "+-+")
    seen: list[str] = []

    class Seen(Board):
        def render(self, console: Console) -> Any:
            seen.append(self.status)
            return super().render(console)

    monkeypatch.setattr(watch, "Board", Seen)
    monkeypatch.setattr(watch, "Console", lambda: Console(force_terminal=True, width=100, height=30))
    async with asyncio.timeout(10):
        await watch_board(Settings(), "1h", once=False, as_json=False, stop=stop)
    assert seen == ["Ctrl-C ends", f"Ctrl-C ends   {GONE}", "Ctrl-C ends"]


@pytest.mark.parametrize("once", [True, False])
async def test_an_outage_at_the_start_ends_it(monkeypatch: pytest.MonkeyPatch, once: bool) -> None:
    stop = prepare(monkeypatch, "-")
    with pytest.raises(ConnectionFailedError):
        await watch_board(Settings(), "1h", once=once, as_json=False, stop=stop)


async def test_signals_of_a_coin_that_no_signal_can_name_are_not_waited_for() -> None:
    with pytest.raises(ConfigurationError, match=r"No signal can name btc, .*: write BTC"):
        await watch_signals(Settings(), ["BTC", "btc"], False, asyncio.Event())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"coins": ["BTC"]}, "--coin goes with --signals"),
        ({"signals": True, "once": True}, "--once is for the aggregates"),
        ({"signals": True, "window": "1h"}, "--window is for the aggregates"),
    ],
)
def test_options_that_do_not_go_together_are_refused(given: dict[str, Any], sentence: str) -> None:
    none: dict[str, Any] = {"signals": False, "coins": [], "window": None, "once": False}
    with pytest.raises(typer.BadParameter, match=sentence):
        check_options(**(none | given))


@pytest.mark.parametrize("given", [{}, {"signals": True, "coins": ["BTC"]}, {"window": "4h", "once": True}])
def test_options_that_go_together(given: dict[str, Any]) -> None:
    none: dict[str, Any] = {"signals": False, "coins": [], "window": None, "once": False}
    check_options(**(none | given))
