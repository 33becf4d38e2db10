"""``kbert narrative``: the monthly index, and its regression."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import orjson
import typer
from rich.console import Console

from worker.commands.common import MOST_NAMED
from worker.errors import ConfigurationError
from worker.narrative.export import check_output, records, table, write
from worker.narrative.index import IndexRow, monthly_index
from worker.narrative.months import parse_month, running_month
from worker.narrative.sums import MonthlySums
from worker.settings import Settings, load_settings

narrative_app = typer.Typer(
    no_args_is_help=True, help="The monthly index of negative traffic narratives, and its regression."
)

From = Annotated[
    str | None, typer.Option("--from", metavar="MONTH", help="First month, as 2015-01; else the first known.")
]
To = Annotated[str | None, typer.Option("--to", metavar="MONTH", help="Last month; else the last known.")]
Standardise = Annotated[
    bool, typer.Option("--standardise", help="Add the share standardised on the months before each.")
]
Weight = Annotated[
    list[str] | None,
    typer.Option("--weight", metavar="SOURCE=W", help="Weight of a source; over the setting."),
]
Out = Annotated[Path | None, typer.Option("--out", help="Write a .csv or .parquet file too.")]
Chart = Annotated[Path | None, typer.Option("--chart", help="Draw a .png, .svg or .pdf too.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@narrative_app.command("index")
def index(
    *,
    first: From = None,
    last: To = None,
    standardise: Standardise = False,
    weight: Weight = None,
    out: Out = None,
    chart: Chart = None,
    as_json: AsJson = False,
) -> None:
    """The index that the stream has counted in Redis."""
    settings = _settings()
    _check_outputs(out, chart)
    rows = _rows(counted(settings), settings, first, last, standardise=standardise, weight=weight)
    _give(rows, out, chart, as_json, standardised=standardise)


@narrative_app.command("build")
def build(
    *,
    source: Annotated[
        list[Path], typer.Option("--input", help="JSONL of articles (title, body, published_at), also .gz.")
    ],
    signals: Annotated[
        bool, typer.Option("--signals", help="The input holds signals of `kbert classify` already.")
    ] = False,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="DIR_OR_HUB_ID", help="Checkpoint; the bundled model where absent."),
    ] = None,
    first: From = None,
    last: To = None,
    standardise: Standardise = False,
    weight: Weight = None,
    out: Out = None,
    chart: Chart = None,
    as_json: AsJson = False,
) -> None:
    """The index of a file of articles, without Kafka and Redis."""
    from worker.narrative.build import build_from_articles, build_from_signals

    settings = _settings()
    _check_outputs(out, chart)
    if signals:
        built = build_from_signals(source, max_future=settings.source.max_future)
    else:
        from worker.configured_model import load_configured
        from worker.tasks import TrafficTask

        chosen = settings if model is None else settings.with_model("traffic", model)
        loaded = load_configured(chosen.of("traffic").model, "traffic")
        built = build_from_articles(
            source,
            loaded,
            TrafficTask(loaded.info, loaded.tokeniser.separator),
            max_bytes=settings.source.max_payload_bytes,
            max_future=settings.source.max_future,
        )
    for place, reason in built.rejected[:MOST_NAMED]:
        print(f"left out {place}: {reason}", file=sys.stderr)
    if built.rejected or built.accumulator.repeats:
        print(
            f"of {built.lines} lines {len(built.rejected)} could not be counted, "
            f"{built.accumulator.repeats} repeat an id",
            file=sys.stderr,
        )
    rows = _rows(built.accumulator.sums(), settings, first, last, standardise=standardise, weight=weight)
    _give(rows, out, chart, as_json, standardised=standardise)


@narrative_app.command("regress")
def regress(
    *,
    y: Annotated[Path, typer.Option(help="CSV with a column month (2015-01) and the dependent series.")],
    column: Annotated[str, typer.Option(help="Its column.")],
    index_file: Annotated[
        Path | None,
        typer.Option("--index", help="CSV of the index (`kbert narrative index --out`); Redis where absent."),
    ] = None,
    regressor: Annotated[str, typer.Option(help="Column of the index.")] = "share",
    x: Annotated[
        Path | None, typer.Option(help="CSV with further regressors; every column but month.")
    ] = None,
    lags: Annotated[str, typer.Option(help="Months by which the index comes before: 0,1,2 or 0-3.")] = "0",
    leads: Annotated[str, typer.Option(help="Months by which it comes after, likewise.")] = "",
    maxlags: Annotated[str, typer.Option(help="Of the Newey-West errors: auto or a number.")] = "auto",
    months: Annotated[bool, typer.Option("--months", help="Add a dummy for each month but January.")] = False,
    trend: Annotated[bool, typer.Option("--trend", help="Add a linear trend.")] = False,
    output: Annotated[Literal["text", "latex", "json"], typer.Option(help="What is printed.")] = "text",
    plots: Annotated[Path | None, typer.Option(help="Folder for index.png, fit.png, maxlags.png.")] = None,
) -> None:
    """OLS of a monthly series on the index, with Newey-West (HAC) errors and diagnostics."""
    try:
        import statsmodels  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "The regression needs statsmodels: pip install 'kbert-stream[narrative]'."
        ) from error
    from worker.charts.figure import check_drawing
    from worker.narrative.chart import regression_charts
    from worker.narrative.regression import regress as estimate
    from worker.narrative.report import latex, text
    from worker.narrative.series import index_series, read_index, read_series

    settings = _settings()
    if plots is not None:
        check_drawing()
        if plots.exists() and not plots.is_dir():
            raise ConfigurationError(f"--plots {plots} is a file: name a folder.")
    rows: list[IndexRow] = []
    notes: list[str] = []
    if index_file is not None:
        index_values = read_series(index_file, regressor, notes)[regressor]
        if plots is not None:
            rows = read_index(index_file)
    else:
        rows = _rows(
            counted(settings), settings, None, None, standardise=regressor == "standardised", weight=None
        )
        index_values = index_series(rows, regressor)
    fitted = estimate(
        read_series(y, column, notes)[column],
        index_values,
        dependent=column,
        index_name=f"index_{regressor}",
        lags=[*_numbers(lags, "--lags"), *(-lead for lead in _numbers(leads, "--leads"))],
        others=read_series(x, notes=notes) if x is not None else None,
        maxlags=_maxlags(maxlags),
        month_dummies=months,
        trend=trend,
        running=running_month(),
    )
    fitted = replace(fitted, notes=[*notes, *fitted.notes])
    if output == "json":
        print(orjson.dumps(fitted.to_dict(), option=orjson.OPT_INDENT_2).decode())
    else:
        print(latex(fitted) if output == "latex" else text(fitted))
    if plots is not None:
        for path in regression_charts(fitted, rows, plots):
            print(path, file=sys.stderr)


def _settings() -> Settings:
    from worker.telemetry.logs import configure_logging

    settings = load_settings()
    log = settings.log
    configure_logging(log if "level" in log.model_fields_set else log.model_copy(update={"level": "error"}))
    return settings


def counted(settings: Settings) -> MonthlySums:
    """What the stream has counted in Redis."""
    from worker.aggregates.store import RedisStore
    from worker.narrative.reader import read_sums

    async def read() -> MonthlySums:
        redis = settings.redis
        async with RedisStore(
            redis.url.get_secret_value(), cluster=redis.cluster, client_options=redis.client_options()
        ) as store:
            return await read_sums(store, redis.prefix)

    return asyncio.run(read())


def _check_outputs(out: Path | None, chart: Path | None) -> None:
    if out is not None:
        check_output(out)
    if chart is not None:
        from worker.charts.figure import check_drawing

        check_drawing(chart)


def _rows(
    sums: MonthlySums,
    settings: Settings,
    first: str | None,
    last: str | None,
    *,
    standardise: bool,
    weight: list[str] | None,
) -> list[IndexRow]:
    asked = dict(_weight(item) for item in weight or [])
    kept = settings.narrative.source_weights
    rows = monthly_index(
        sums,
        parse_month(first) if first else None,
        parse_month(last) if last else None,
        weights={**kept, **asked},
        standardise=standardise,
    )
    known = sorted({source for sources in sums.values() for source in sources})
    for name, weights in (("--weight", asked), ("narrative.source_weights", kept)):
        if unknown := sorted(weights.keys() - known):
            print(
                f"{name} names {_few(unknown)}, of which there is no article: the sources are "
                f"{_few(known) or 'none'}",
                file=sys.stderr,
            )
    return rows


def _few(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _weight(item: str) -> tuple[str, float]:
    source, _, value = item.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not source or not 0 <= number < float("inf"):
        raise ConfigurationError(f"--weight {item} is not SOURCE=NUMBER with a number of 0 or more.")
    return source, number


def _give(
    rows: list[IndexRow], out: Path | None, chart: Path | None, as_json: bool, *, standardised: bool
) -> None:
    if as_json:
        print(orjson.dumps(records(rows, standardised=standardised), option=orjson.OPT_INDENT_2).decode())
    else:
        Console().print(table(rows, standardised=standardised, running=running_month()))
    if out is not None:
        write(rows, out, standardised=standardised)
        print(out, file=sys.stderr)
    if chart is not None:
        from worker.narrative.chart import index_chart

        print(index_chart(rows, chart), file=sys.stderr)


def _numbers(text: str, option: str) -> list[int]:
    """``0,1,2`` or ``0-3`` as numbers."""
    result: list[int] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        first, _, last = part.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            raise ConfigurationError(f"{option} {text} is no list of months such as 0,1,2 or 0-3.")
        result += range(int(first), int(last or first) + 1)
    return result


def _maxlags(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal():
        raise ConfigurationError(f"--maxlags {text} is neither auto nor a number of months.")
    return int(text)
