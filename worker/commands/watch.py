"""``kbert watch``: the live board of a running installation, or its signals."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import orjson
from rich.console import Console
from rich.live import Live

from schemas.windows import Window
from worker.clients import Aggregates, SignalStream
from worker.commands.board import Board, coin_lines, signal_line
from worker.settings import Settings
from worker.stopping import stopped_within

_REFRESH_SECONDS = 1.0


async def watch_signals(settings: Settings, coins: list[str], as_json: bool, stop: asyncio.Event) -> None:
    """Print each new signal as a line until ``stop`` is set."""
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
    """Show the aggregates of every coin, live on a terminal, once a second elsewhere."""
    redis = settings.redis
    async with Aggregates(
        redis.url.get_secret_value(), redis.prefix, redis.cluster, client_options=redis.client_options()
    ) as aggregates:
        console = Console()
        if once or as_json or not console.is_terminal:
            while True:
                metrics = await aggregates.all(window)
                if as_json:
                    document = {symbol: m.model_dump() for symbol, m in metrics.items()}
                    print(orjson.dumps(document).decode(), flush=True)
                else:
                    print("\n".join([*coin_lines(metrics), *([] if once else [""])]), flush=True)
                if once or await stopped_within(stop, _REFRESH_SECONDS):
                    return
        board = Board(window)
        board.status = "Ctrl-C ends"
        with Live(console=console, auto_refresh=False, screen=False) as live:
            while not stop.is_set():
                board.metrics = await aggregates.all(window)
                live.update(board.render(console), refresh=True)
                await stopped_within(stop, _REFRESH_SECONDS)


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
