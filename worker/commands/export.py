"""``kbert export``: signals and aggregates of a time range into a file."""

import sys
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS
from schemas.windows import Window
from worker.commands.common import run_async, settings_in_force
from worker.commands.times import parse_time
from worker.history.columns import CRYPTO_COLUMNS, TRAFFIC_COLUMNS, Column, aggregate_columns
from worker.history.signals import By, Range, ReadCounts, signals_of
from worker.history.writing import STANDARD_OUTPUT, Format, format_of, writer
from worker.settings import PipelineName
from worker.signal_filter import SignalFilter, check_coins

export_app = typer.Typer(no_args_is_help=True, help="Signals or aggregates of a time range into a file.")

Out = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="FILE", help="Ending in .parquet, .csv or .jsonl; or - ."),
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="TIME", help="From then on: RFC 3339, or 30m, 2h, 1d ago."),
]
To = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Before this time; now where absent.")]
FormatChoice = Annotated[
    Format | None, typer.Option("--format", help="Where the ending does not say; - writes jsonl.")
]


@export_app.command("signals")
def export_signals(
    *,
    out: Out,
    since: From = None,
    until: To = None,
    by: Annotated[By, typer.Option(help="Which of a signal's times the range is of.")] = "processed_at",
    coin: Annotated[list[str] | None, typer.Option(help="Only signals that name one of these.")] = None,
    sentiment: Annotated[list[str] | None, typer.Option(help="Only these.")] = None,
    action: Annotated[list[str] | None, typer.Option(help="Only these.")] = None,
    emotion: Annotated[list[str] | None, typer.Option(help="Only signals that show one of these.")] = None,
    min_certainty: Annotated[float, typer.Option(min=0, max=1)] = 0.0,
    min_relevance: Annotated[float, typer.Option(min=0, max=1)] = 0.0,
    pipeline: Annotated[PipelineName, typer.Option(help="Whose signals.")] = "crypto",
    format_: FormatChoice = None,
) -> None:
    """Signals out of their topic, each source and id once, up to where the topic ends now."""
    chosen = format_of(out, format_)
    settings = settings_in_force(quiet=True)
    wanted = SignalFilter(
        coins=frozenset(coin) if coin else None,
        sentiments=_one_of("--sentiment", sentiment, SENTIMENTS),
        actions=_one_of("--action", action, ACTIONS),
        emotions=_one_of("--emotion", emotion, EMOTIONS),
        min_certainty=min_certainty,
        min_relevance=min_relevance,
    )
    if pipeline == "traffic" and wanted != SignalFilter():
        raise typer.BadParameter("signals of traffic news have no coins and classes: leave the filters out")
    if coin:
        from worker.coins import load_catalogue

        check_coins(coin, load_catalogue(settings.coins.user_file))
    within = Range(*_range(since, until), by)
    counts = ReadCounts()
    columns = CRYPTO_COLUMNS if pipeline == "crypto" else TRAFFIC_COLUMNS
    records = signals_of(settings, pipeline, within, wanted, counts)
    run_async(_write(records, out, chosen, columns))
    _say(
        f"{counts.signals} signals{_to(out)}; {counts.repeats} repeats of an id left out, "
        f"{counts.unreadable} records are no signals of this version"
    )
    whole_from = counts.reach.whole_from
    if within.since is not None and whole_from is not None and whole_from > within.since:
        topic = settings.of(pipeline).topics.signals
        _say(
            f"{topic} reaches back to {_rfc3339(whole_from)} only with all its partitions, so older signals "
            "may be missing: its retention.ms says how long it is kept"
        )


@export_app.command("aggregates")
def export_aggregates(
    *,
    out: Out,
    coin: Annotated[
        list[str] | None, typer.Option(help="Symbol, or MARKET; all of them where absent.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="May be given several times; all of them where absent.")
    ] = None,
    window: Annotated[Window, typer.Option(help="Which rolling window each row is.")] = "1h",
    step: Annotated[
        int | None, typer.Option(min=60, help="Seconds between rows; some 200 rows a coin where absent.")
    ] = None,
    since: From = None,
    until: To = None,
    format_: FormatChoice = None,
) -> None:
    """Rolling windows over time out of Redis, one row a coin and time, as known today.

    Messages published by a row's time and processed later are in it: for a backtest export signals and go by
    processed_at.
    """
    from worker.aggregates.series import METRICS
    from worker.clients import Aggregates
    from worker.history.aggregates import aggregates_of

    chosen = format_of(out, format_)
    settings = settings_in_force(quiet=True)
    _one_of("--metric", metric, METRICS)
    metrics = list(dict.fromkeys(metric or METRICS))
    first, last = _range(since, until)
    rows = 0
    earliest: datetime | None = None

    async def work() -> None:
        nonlocal rows, earliest
        redis = settings.redis
        async with Aggregates(
            redis.url.get_secret_value(), redis.prefix, redis.cluster, client_options=redis.client_options()
        ) as aggregates:
            records = aggregates_of(
                aggregates, coin or [], metrics, window, since=first, until=last, step=step
            )
            with writer(out, chosen, aggregate_columns(metrics)) as file:
                async for record in records:
                    rows += 1
                    earliest = earliest or record["time"]
                    file.write(record)

    run_async(work())
    _say(f"{rows} rows{_to(out)}")
    if first is not None and earliest is not None and (earliest - first).total_seconds() > (step or 86_400):
        _say(f"the buckets reach back to {_rfc3339(earliest)} only: minutes are kept for 25 h, hours for 8 d")


async def _write(
    records: AsyncGenerator[Mapping[str, Any], None], out: Path, format_: Format, columns: tuple[Column, ...]
) -> None:
    with writer(out, format_, columns) as file:
        async with aclosing(records):
            async for record in records:
                file.write(record)


def _range(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    first, last = parse_time("--from", since), parse_time("--to", until)
    if first is not None and last is not None and first >= last:
        raise typer.BadParameter("--from lies at or after --to")
    return first, last


def _one_of(option: str, given: list[str] | None, known: Iterable[str]) -> frozenset[str] | None:
    """The values as a set; None where none was given."""
    known = list(known)
    for value in given or ():
        if value not in known:
            raise typer.BadParameter(f"{option} {value}: there are {', '.join(known)}")
    return frozenset(given) if given else None


def _to(out: Path) -> str:
    return "" if out == STANDARD_OUTPUT else f" to {out}"


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")
