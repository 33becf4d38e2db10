"""``kbert watch``: the live board of a running installation, or its signals."""

import asyncio
import sys
from collections.abc import Coroutine, Mapping
from typing import Any

import orjson
import typer
from rich.console import Console
from rich.live import Live

from schemas.aggregates import WindowMetrics
from schemas.windows import Window
from worker.clients import Aggregates, SignalStream
from worker.coins import load_catalogue
from worker.commands.board import Board, coin_lines, signal_line
from worker.errors import ConnectionFailedError
from worker.settings import Settings
from worker.signal_filter import check_coins
from worker.stopping import stopped_within

_REFRESH_SECONDS = 1.0
_HINT = "Ctrl-C ends"


def check_options(*, signals: bool, coins: list[str], window: str | None, once: bool) -> None:
    """Raise BadParameter for options of `kbert watch` of which one would be passed over."""
    if coins and not signals:
        raise typer.BadParameter("--coin goes with --signals: the board shows every coin")
    for option, given in (("--once", once), ("--window", window is not None)):
        if given and signals:
            raise typer.BadParameter(f"{option} is for the aggregates: leave it or --signals out")


async def watch_signals(settings: Settings, coins: list[str], as_json: bool, stop: asyncio.Event) -> None:
    """Print each new signal as a line until ``stop`` is set.

    Raises:
        ConfigurationError: no signal can name one of the coins, or Kafka refuses us.
        ConnectionFailedError: no broker answers.
    """
    check_coins(coins, load_catalogue(settings.coins.user_file))
    options = settings.kafka.client_options()
    async with SignalStream(
        options.pop("bootstrap_servers"), topic=settings.topics.signals, coins=coins or None, **options
    ) as stream:

        async def print_all() -> None:
            async for signal in stream:
                print(signal.model_dump_json() if as_json else signal_line(signal), flush=True)

        await until(stop, print_all())


async def watch_board(
    settings: Settings, window: Window, *, once: bool, as_json: bool, stop: asyncio.Event
) -> None:
    """Show the aggregates of every coin, live on a terminal, once a second elsewhere.

    An outage of Redis after the first reading is waited out: the board says so, or standard error once.

    Raises:
        ConnectionFailedError: Redis does not answer at the start.
        ConfigurationError: Redis refuses us.
    """
    redis = settings.redis
    async with Aggregates(
        redis.url.get_secret_value(), redis.prefix, redis.cluster, client_options=redis.client_options()
    ) as aggregates:
        console = Console()
        if once or as_json or not console.is_terminal:
            metrics: Mapping[str, WindowMetrics] | None = await aggregates.all(window)
            while True:
                if metrics is not None:
                    _print(metrics, once=once, as_json=as_json)
                if once or await stopped_within(stop, _REFRESH_SECONDS):
                    return
                try:
                    metrics = await aggregates.all(window)
                except ConnectionFailedError as error:
                    if metrics is not None:
                        print(f"kbert: {error}", file=sys.stderr, flush=True)
                    metrics = None
        board = Board(window)
        board.metrics, board.status = await aggregates.all(window), _HINT
        with Live(console=console, auto_refresh=False, screen=False) as live:
            while not stop.is_set():
                live.update(board.render(console), refresh=True)
                if await stopped_within(stop, _REFRESH_SECONDS):
                    return
                try:
                    board.metrics, board.status = await aggregates.all(window), _HINT
                except ConnectionFailedError as error:
                    board.status = f"{_HINT}   {error}"


def _print(metrics: Mapping[str, WindowMetrics], *, once: bool, as_json: bool) -> None:
    if as_json:
        document = {symbol: m.model_dump() for symbol, m in metrics.items()}
        print(orjson.dumps(document).decode(), flush=True)
    else:
        print("\n".join([*coin_lines(metrics), *([] if once else [""])]), flush=True)


async def until(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` until it ends or ``stop`` is set."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    done, pending = await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
    if working in done:
        working.result()
