"""Ours and its peers at the null-engine job, side by side: interleaved repeats, a process each."""

import asyncio
import statistics
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import orjson

from worker.benchmarks.engine import Report
from worker.benchmarks.null_job import NullJob
from worker.benchmarks.raw_topic import fill, on_broker, payloads, with_own_topics
from worker.embedded import EmbeddedKafka
from worker.errors import KbertError
from worker.settings import Settings
from worker.sink.topics import create_topics

_SECONDS: Final = 300.0
_ROOT: Final = Path(__file__).parents[2]
_OURS: Final = "ours"
_PLAIN: Final = ", signals as plain dicts"
_MODULES: Final = {
    _OURS: "worker.benchmarks.null_ours",
    "FastStream": "worker.benchmarks.null_faststream",
    "Quix Streams": "worker.benchmarks.null_quix",
}

Interpreter = str
Measured = dict[str, float]


def contestants(quix_python: Path | None) -> tuple[dict[str, Interpreter], dict[str, str]]:
    """Who can run, with which interpreter; and who cannot, with the reason."""
    able: dict[str, Interpreter] = {_OURS: sys.executable}
    absent: dict[str, str] = {}
    if find_spec("faststream") is None:
        absent["FastStream"] = "not installed: pip install 'kbert-stream[bench]'"
    else:
        able["FastStream"] = sys.executable
    if quix_python is not None:
        able["Quix Streams"] = str(quix_python)
    elif find_spec("quixstreams") is not None:
        able["Quix Streams"] = sys.executable
    else:
        absent["Quix Streams"] = (
            "not installed: it wants an older pydantic than ours, so give the interpreter of an "
            "environment of its own with --quix-python"
        )
    # Once as their documents show it, and once with what costs them most left out.
    return able | {name + _PLAIN: python for name, python in able.items() if name != _OURS}, absent


async def race(
    settings: Settings,
    kafka: EmbeddedKafka,
    *,
    messages: int,
    repeats: int,
    quix_python: Path | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Run all contestants ``repeats`` times in turn over the same raw topic.

    Returns:
        ``ours`` and ``peers`` (name → messages per second of the process's CPU time, medians),
        ``ratios``, ``wall`` (messages/s by the clock), ``absent`` (name → why).
    """
    tell = report or (lambda _: None)
    able, absent = contestants(quix_python)
    base = with_own_topics(on_broker(settings, kafka.bootstrap_servers))
    await fill(base, payloads(messages))
    runs: dict[str, list[Measured]] = {name: [] for name in able}
    for repeat in range(repeats):
        for name, interpreter in list(able.items()):
            tell(f"null engine, repeat {repeat + 1} of {repeats}: {name}")
            try:
                runs[name].append(await _run(base, name, interpreter, messages))
            except ContestantError as error:
                if name == _OURS:
                    raise
                absent[name] = str(error)
                del able[name], runs[name]
    per_core = {name: _median(done, "cpu_seconds") for name, done in runs.items()}
    ours = per_core.pop(_OURS)
    return {
        "unit": "messages per second of CPU time",
        "ours": round(ours),
        "peers": {name: round(rate) for name, rate in per_core.items()},
        "ratios": {name: round(ours / rate, 2) for name, rate in per_core.items()},
        "wall": {name: round(_median(done, "seconds")) for name, done in runs.items()},
        "absent": absent,
    }


class ContestantError(KbertError):
    """A contestant did not finish; the message holds its last words."""


async def _run(base: Settings, name: str, interpreter: Interpreter, messages: int) -> Measured:
    mine = with_own_topics(base, raw=base.topics.raw)
    await create_topics(mine)
    job = NullJob.of(mine, messages, validated=not name.endswith(_PLAIN))
    process = await asyncio.create_subprocess_exec(
        interpreter,
        *("-m", _MODULES[name.removesuffix(_PLAIN)], job.to_argument()),
        cwd=_ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_SECONDS):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        _, err = await process.communicate()
        raise ContestantError(f"did not finish in {_SECONDS:g} s; {_last_words(err)}") from None
    if process.returncode:
        raise ContestantError(f"ended with status {process.returncode}; {_last_words(err)}")
    measured: Mapping[str, float] = orjson.loads(out.splitlines()[-1])
    return dict(measured)


def _last_words(err: bytes) -> str:
    return " / ".join(err.decode(errors="replace").strip().splitlines()[-3:]) or "it said nothing"


def _median(done: list[Measured], of: str) -> float:
    return statistics.median(run["messages"] / run[of] for run in done)
