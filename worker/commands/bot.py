"""``kbert bot``: signals and aggregates to trading bots."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from worker.commands.common import run_async
from worker.settings import Settings, load_settings

bot_app = typer.Typer(no_args_is_help=True, help="Hand signals and aggregates to trading bots.")


@bot_app.command("markets")
def markets(
    coin: Annotated[list[str] | None, typer.Argument(help="Symbols; every coin where absent.")] = None,
    venue: Annotated[str | None, typer.Option(help="Only this exchange.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What each exchange calls a coin's market."""
    from worker.clients.bots.markets import Markets
    from worker.coins import load_catalogue

    settings = _settings()
    catalogue = load_catalogue(settings.coins.user_file)
    known = Markets(catalogue, settings.bot.markets_file)
    codes = {}
    for symbol in coin or [coin.symbol for coin in catalogue]:
        known.of(symbol, "ccxt")  # an unknown coin is an error, not an empty line
        places = {venue: known.of(symbol, venue)} if venue else known.codes(symbol)
        codes[symbol] = {name: market.code for name, market in places.items()}
    if as_json:
        print(orjson.dumps(codes, option=orjson.OPT_INDENT_2).decode())
        return
    for symbol, places_of_coin in codes.items():
        print(
            symbol,
            *(f"{name}={','.join(known.spellings(symbol, name))}" for name in places_of_coin),
            sep="  ",
        )


@bot_app.command("webhook")
def webhook(
    url: Annotated[str | None, typer.Option(help="Address; bot.webhook.url where absent.")] = None,
    coin: Annotated[list[str] | None, typer.Option(help="Only these coins; over the setting.")] = None,
    resend: Annotated[
        Path | None, typer.Option(help="Deliver the signals of this file of dead letters, and end.")
    ] = None,
) -> None:
    """POST every new signal that passes the filters, signed, until SIGTERM or Ctrl-C.

    With --resend status 1 where a line of the file is no dead letter, 130 where it was stopped early.
    """
    from worker.commands.bot_webhook import read_dead_letters, resend_dead_letters, run_webhook

    settings = _settings()
    given: dict[str, Any] = {"url": url, "coins": coin or None}
    section = settings.bot.webhook.model_dump() | {k: v for k, v in given.items() if v is not None}
    settings = load_settings(bot=settings.bot.model_dump() | {"webhook": section})
    if resend is None:
        _run(run_webhook, settings, part="bot-webhook")
        return
    signals, left_out = read_dead_letters(settings, resend)
    # Without a part: it ends by itself, and the webhook beside it may have the port.
    _run(lambda known, stop: resend_dead_letters(known, signals, left_out, stop), settings)
    if left_out:
        raise typer.Exit(1)


@bot_app.command("freqtrade")
def freqtrade() -> None:
    """Serve rolling windows beside candles to freqtrade's external_message_consumer, until Ctrl-C."""
    from worker.commands.bot_freqtrade import run_freqtrade

    _run(run_freqtrade, _settings(), part="bot-freqtrade")


@bot_app.command("hummingbot")
def hummingbot() -> None:
    """Publish probabilities for hummingbot's ai_livestream controller over MQTT, until Ctrl-C."""
    from worker.commands.bot_hummingbot import run_hummingbot

    _run(run_hummingbot, _settings(), part="bot-hummingbot")


def _settings() -> Settings:
    from worker.telemetry.logs import configure_logging

    settings = load_settings()
    configure_logging(settings.log)
    return settings


def _run(
    work: Callable[[Settings, asyncio.Event], Awaitable[None]], settings: Settings, part: str | None = None
) -> None:
    """Run a bot until it ends; ``part`` names it to those who ask at ``metrics.port``, if anyone may."""
    from worker.app import observed, stop_on_signals
    from worker.telemetry.health import HEALTH
    from worker.telemetry.metrics import READY

    async def until_stopped() -> None:
        async with AsyncExitStack() as stack:
            if part is not None:
                await stack.enter_async_context(observed(settings))
                stack.enter_context(HEALTH.part(part))(None)  # what it cannot mend ends it
                READY.labels(part).set(1)
            stop = await stack.enter_async_context(stop_on_signals())
            await work(settings, stop)

    run_async(until_stopped())
