"""``kbert demo --pipeline traffic``: sample articles through embedded servers, and the index they make."""

import asyncio
import gzip
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from worker.aggregates.store import RedisStore
from worker.app import run_services, stop_on_signals
from worker.charts.figure import check_drawing
from worker.commands.common import InterruptedEarlyError
from worker.commands.demo import _servers, ending
from worker.errors import KbertError
from worker.narrative.chart import index_chart
from worker.narrative.export import records, table
from worker.narrative.index import monthly_index
from worker.narrative.reader import read_sums
from worker.narrative.sums import MonthlySums
from worker.settings import Settings
from worker.sink.producer import KafkaSink, OutRecord
from worker.sink.topics import create_topics
from worker.source.counting import TopicCounter
from worker.stopping import stopped_within

SAMPLES: Final = Path(__file__).parent.parent / "bundled" / "samples" / "traffic.jsonl.gz"
_TIMEOUT: Final = 600.0
_CHUNK: Final = 200


async def run_traffic_demo(settings: Settings, *, messages: int | None, chart: Path, as_json: bool) -> None:
    """Stream the sample articles, wait for the index, print it and draw it.

    Args:
        messages: how many articles; each sample once where absent, again from the first one (with other
            ids) where it is more than there are.
        chart: the PNG.
        as_json: print one JSON object instead of the table.
    """
    check_drawing(chart)
    with gzip.open(SAMPLES, "rt", encoding="utf-8") as lines:
        rows = [orjson.loads(line) for line in lines]
    count = messages or len(rows)
    async with _servers(settings) as local, stop_on_signals() as stop:
        local = local.model_copy(update={"pipelines": ["traffic"]})  # noqa: PLW2901 - the same settings, narrowed
        await create_topics(local)
        async with asyncio.TaskGroup() as group:
            services = group.create_task(run_services(local, ["worker", "aggregates"], stop))
            try:
                sums = await _flow(local, rows, count, stop)
            finally:
                stop.set()
            await services
    index = monthly_index(sums, standardise=True)
    path = index_chart(index, chart)
    if as_json:
        result = {"messages_in": count, "signals_out": count, "index": records(index), "chart": str(path)}
        print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())
    else:
        Console().print(table(index))
        print(f"articles in {count}, signals out {count}; chart: {path.resolve()}")


def samples(rows: list[dict[str, Any]], count: int) -> Iterator[bytes]:
    """``count`` articles, each with an id of its own."""
    for number, row in enumerate(itertools.islice(itertools.cycle(rows), count), 1):
        yield orjson.dumps({**row, "id": f"demo-{number}"})


async def _flow(
    settings: Settings, rows: list[dict[str, Any]], count: int, stop: asyncio.Event
) -> MonthlySums:
    """Send, and wait until every article is classified and counted."""
    progress = Progress(
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    signals, letters = settings.traffic.signals, settings.topics.dead_letter
    done = 0
    sums: MonthlySums = {}
    with progress:
        bar = progress.add_task("classifying", total=count)
        sending = asyncio.create_task(_send(settings, samples(rows, count)))
        url = settings.redis.url.get_secret_value()
        outcomes = TopicCounter(settings.kafka, signals, letters)
        try:
            async with asyncio.timeout(_TIMEOUT), ending(sending), outcomes, RedisStore(url) as store:
                while not stop.is_set():
                    counts = await outcomes.update(timeout=0.1)
                    done = counts[signals]
                    progress.update(bar, completed=done + counts[letters])
                    if counts[letters]:
                        raise KbertError(f"{counts[letters]} sample articles became dead letters.")
                    sums = await read_sums(store, settings.redis.prefix)
                    if _articles(sums) == count or await stopped_within(stop, 0.2):
                        break
                if not stop.is_set():
                    await sending
        except TimeoutError:
            raise KbertError(
                f"Of {count} articles only {done} were classified within {_TIMEOUT:g} s."
            ) from None
    if _articles(sums) != count:
        raise InterruptedEarlyError(f"Interrupted: {_articles(sums)} of {count} articles were counted.")
    return sums


def _articles(sums: MonthlySums) -> int:
    return sum(one.articles for sources in sums.values() for one in sources.values())


async def _send(settings: Settings, feed: Iterator[bytes]) -> None:
    sink = KafkaSink(settings.kafka, settings.sink)
    await sink.start()
    try:
        while chunk := list(itertools.islice(feed, _CHUNK)):
            sent = [OutRecord(settings.traffic.raw, None, value) for value in chunk]
            await (await sink.send(sent)).acknowledged()
    finally:
        await sink.stop()
