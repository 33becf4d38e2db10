"""``kbert plot``: pictures of a coin's series and of the narrative index."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.windows import Window
from worker.charts.figure import check_drawing, labels_in, picture
from worker.charts.words import Language
from worker.commands.common import run_async, settings_in_force
from worker.commands.times import parse_time
from worker.errors import ConfigurationError

plot_app = typer.Typer(no_args_is_help=True, help="Pictures for notebooks and papers: PNG, SVG or PDF.")

Out = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Ending in .png, .svg or .pdf.")]
Lang = Annotated[Language, typer.Option("--lang", help="Of the labels.")]


@plot_app.command("coin")
def plot_coin(
    *,
    symbol: Annotated[str, typer.Argument(help="Ticker, or MARKET.")],
    out: Out,
    metric: Annotated[
        list[str] | None, typer.Option(help="A panel each; sentiment_index and messages where absent.")
    ] = None,
    window: Annotated[Window, typer.Option(help="Which rolling window each point is.")] = "1h",
    since: Annotated[str | None, typer.Option("--from", metavar="TIME", help="RFC 3339, or 2h, 7d.")] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Now where absent.")] = None,
    step: Annotated[int | None, typer.Option(min=60, help="Seconds between points.")] = None,
    lang: Lang = "ko",
) -> None:
    """One coin's metrics over time; of sentiment, action and emotion the shares, stacked."""
    from worker.aggregates.series import METRICS, SeriesError
    from worker.charts.coin import PANEL_INCHES, WIDTH_INCHES, draw_coin
    from worker.clients import Aggregates
    from worker.coins import load_catalogue
    from worker.history.aggregates import check_named

    check_drawing(out)
    metrics = list(dict.fromkeys(metric or ("sentiment_index", "messages")))
    for name in metrics:
        if name not in METRICS:
            raise typer.BadParameter(f"--metric {name}: there are {', '.join(METRICS)}")
    settings = settings_in_force(quiet=True)
    language = labels_in(lang)
    ends: dict[str, Any] = {"since": parse_time("--from", since), "until": parse_time("--to", until)}

    async def work() -> None:
        redis = settings.redis
        async with Aggregates(
            redis.url.get_secret_value(), redis.prefix, redis.cluster, client_options=redis.client_options()
        ) as aggregates:
            check_named([symbol], await aggregates.coins())
            try:
                series = await aggregates.series(symbol, metrics, window, step=step, **ends)
            except SeriesError as error:
                raise ConfigurationError(f"The buckets cannot answer that: {error}.") from error
        coin = load_catalogue(settings.coins.user_file).coins.get(symbol)
        title = symbol
        if coin is not None:
            title = f"{coin.korean if language == 'ko' else coin.english} ({symbol})"
        with picture(out, WIDTH_INCHES, 0.8 + PANEL_INCHES * len(metrics), language) as figure:
            draw_coin(figure, series, metrics, title, language)

    run_async(work())
    print(out, file=sys.stderr)


@plot_app.command("narrative")
def plot_narrative(
    *,
    out: Out,
    first: Annotated[
        str | None, typer.Option("--from", metavar="MONTH", help="As 2015-01; else the first known.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", metavar="MONTH", help="Else the last known.")] = None,
    lang: Lang = "ko",
) -> None:
    """The monthly index of negative traffic narratives, with its interval and the articles it counts."""
    from worker.commands.narrative import counted
    from worker.narrative.chart import index_chart
    from worker.narrative.index import monthly_index
    from worker.narrative.months import parse_month

    check_drawing(out)
    settings = settings_in_force(quiet=True)
    rows = monthly_index(
        counted(settings),
        parse_month(first) if first else None,
        parse_month(last) if last else None,
        weights=settings.narrative.source_weights,
    )
    print(index_chart(rows, out, lang), file=sys.stderr)
