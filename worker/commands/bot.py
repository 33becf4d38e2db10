"""``kbert bot``: signals and aggregates to trading bots."""

import asyncio
from collections.abc import Awaitable, Callable
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
        print(symbol, *(f"{name}={code}" for name, code in places_of_coin.items()), sep="  ")


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
        _run(run_webhook, settings)
        return
    signals, left_out = read_dead_letters(settings, resend)
    _run(lambda known, stop: resend_dead_letters(known, signals, left_out, stop), settings)
    if left_out:
        raise typer.Exit(1)


@bot_app.command("freqtrade")
def freqtrade() -> None:
    """Serve rolling windows beside candles to freqtrade's external_message_consumer, until Ctrl-C."""
    from worker.commands.bot_freqtrade import run_freqtrade

    _run(run_freqtrade, _settings())


@bot_app.command("hummingbot")
def hummingbot() -> None:
    """Publish probabilities for hummingbot's ai_livestream controller over MQTT, until Ctrl-C."""
    from worker.commands.bot_hummingbot import run_hummingbot

    _run(run_hummingbot, _settings())


def _settings() -> Settings:
    from worker.telemetry.logs import configure_logging

    settings = load_settings()
    configure_logging(settings.log)
    return settings


def _run(work: Callable[[Settings, asyncio.Event], Awaitable[None]], settings: Settings) -> None:
    from worker.app import stop_on_signals

    async def until_stopped() -> None:
        async with stop_on_signals() as stop:
            await work(settings, stop)

    run_async(until_stopped())
