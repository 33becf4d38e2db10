"""``kbert replay``: a file back onto the raw topic."""

import sys
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Annotated

import typer

from worker.commands.common import INTERRUPTED, MOST_NAMED, run_async, settings_in_force
from worker.errors import ConfigurationError
from worker.settings import PipelineName


def replay(
    file: Annotated[
        Path, typer.Argument(help="Raw messages, or exported signals with text: .jsonl, .csv or .parquet.")
    ],
    *,
    speed: Annotated[
        str | None,
        typer.Option(help="1: as they were published; 60: an hour a minute; max, the default."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Messages a second, whenever they were published.")
    ] = None,
    now: Annotated[
        bool, typer.Option("--now", help="Shift all times so that the latest one is the present.")
    ] = False,
    pipeline: Annotated[PipelineName, typer.Option(help="Whose raw topic.")] = "crypto",
) -> None:
    """Send a file's messages to the raw topic, with their ids and times.

    The aggregates count an id again that is more than aggregates.id_window offsets back; with several
    aggregators also one that comes back on another partition, since a coin got its name or the topic grew.

    Status 1 where a line could not be sent, 130 after Ctrl-C.
    """
    from worker.app import stop_on_signals
    from worker.history.messages import BadLine
    from worker.history.pace import Pace
    from worker.history.replay import Replay, shift_to_now

    if speed is not None and rate is not None:
        raise typer.BadParameter("--speed and --rate exclude each other")
    pace = Pace(speed=_speed(speed), rate=rate)
    settings = settings_in_force(quiet=True).of(pipeline)
    named = 0

    def tell(line: BadLine) -> None:
        nonlocal named
        named += 1
        if named <= MOST_NAMED:
            print(f"left out {line.place}: {line.reason}", file=sys.stderr)

    shift = shift_to_now(file, settings.source.max_payload_bytes) if now else timedelta()
    sending = Replay(settings, file, pace, shift=shift, tell=tell)
    started = monotonic()

    async def work() -> None:
        async with stop_on_signals() as stop:
            await sending.run(stop)

    try:
        run_async(work())
    finally:
        done = sending.done
        if done.complete or done.sent or done.bad:
            print(
                f"{done.sent} messages sent to {settings.topics.raw} in {monotonic() - started:.1f} s, "
                f"{done.bad} left out{'' if done.complete else '; not the whole file'}",
                file=sys.stderr,
            )
    if not done.complete:
        raise typer.Exit(INTERRUPTED)
    if done.bad:
        raise typer.Exit(1)


def _speed(text: str | None) -> float | None:
    if text is None or text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise ConfigurationError(f"--speed {text} is neither max nor a number above 0.")
    return speed
