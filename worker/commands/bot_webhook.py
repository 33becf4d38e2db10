"""``kbert bot webhook``: the signal topic, or a file of dead letters, to a webhook."""

import asyncio
import sys
from pathlib import Path

import structlog
from pydantic import ValidationError

from schemas.signals import CryptoSignal
from worker.clients import SignalStream
from worker.clients.bots.relay import relay
from worker.clients.bots.webhook import Webhook
from worker.commands.common import MOST_NAMED, InterruptedEarlyError
from worker.errors import ConfigurationError
from worker.json_object import json_object
from worker.settings import Settings
from worker.stopping import unless_stopped

log = structlog.get_logger(__name__)


async def run_webhook(settings: Settings, stop: asyncio.Event) -> None:
    """Deliver new signals until ``stop`` is set."""
    chosen = settings.bot.webhook
    options = settings.kafka.client_options()
    async with Webhook(chosen) as hook:
        stream = SignalStream(
            options.pop("bootstrap_servers"),
            topic=settings.topics.signals,
            coins=chosen.coins or None,
            actions=chosen.actions or None,
            sentiments=chosen.sentiments or None,
            min_certainty=chosen.min_certainty,
            min_relevance=chosen.min_relevance,
            group_id=chosen.group_id,
            auto_commit=False,
            **options,
        )
        async with stream:
            log.info("webhook.ready", group=chosen.group_id)
            await relay(stream, hook.deliver, stop, queue=chosen.queue, drain_timeout=chosen.drain_timeout)
        log.info("webhook.ended", delivered=hook.delivered, refused=hook.refused)


async def resend_dead_letters(
    settings: Settings, signals: list[CryptoSignal], left_out: int, stop: asyncio.Event
) -> None:
    """Deliver what `read_dead_letters` gave; what fails again is a dead letter again.

    Raises:
        InterruptedEarlyError: ``stop`` was set before the last one was delivered or refused.
    """
    async with Webhook(settings.bot.webhook) as hook:
        for signal in signals:
            if stop.is_set() or await unless_stopped(stop, hook.deliver(signal)) is None:
                break
    print(f"{hook.delivered} delivered, {hook.refused} refused, {left_out} left out")
    remaining = len(signals) - hook.delivered - hook.refused
    if remaining:
        raise InterruptedEarlyError(f"Interrupted: the last {remaining} were not sent, or not answered.")


def read_dead_letters(settings: Settings, file: Path) -> tuple[list[CryptoSignal], int]:
    """The signals of a file of dead letters, and how many lines are none; the first of them are named.

    Raises:
        ConfigurationError: it cannot be read, holds nothing else, or is the one that new ones go to.
    """
    if file.resolve() == settings.bot.webhook.dead_letters.resolve():
        raise ConfigurationError(
            f"{file} is where new dead letters go: rename it, and give --resend the new name."
        )
    try:
        letters = file.read_bytes().splitlines()
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}.") from error
    signals: list[CryptoSignal] = []
    bad: list[str] = []
    for number, line in enumerate(letters, start=1):
        if not line.strip():
            continue
        try:
            signals.append(CryptoSignal.model_validate(json_object(line).get("signal")))
        except ValidationError as error:
            bad.append(f"{file.name}:{number}: {error.errors(include_url=False)[0]['msg']}")
    if bad and not signals:
        raise ConfigurationError(f"{file} is no file of dead letters: no line of it holds a signal.")
    for place in bad[:MOST_NAMED]:
        print(f"left out {place}", file=sys.stderr)
    return signals, len(bad)
