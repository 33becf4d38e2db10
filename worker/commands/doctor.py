"""``kbert doctor``."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import asdict

import orjson
from rich.console import Console

from worker.doctor.finding import Finding, fail
from worker.settings import Settings

_SECONDS = 60.0
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


async def run_doctor(settings: Settings, *, as_json: bool) -> bool:
    """Print every finding as it comes, or all as JSON; whether none is a failure."""
    console = Console(highlight=False, soft_wrap=True)
    findings: list[Finding] = []
    passed = asyncio.Event()
    async for finding in examine(settings, passed):
        findings.append(finding)
        if not as_json:
            style = _STYLES[finding.outcome]
            console.print(f"[{style}]{finding.outcome:<4}[/] ", end="")
            mend = f"; {finding.mend}" if finding.mend else ""
            console.print(f"{finding.check}: {finding.said.removesuffix('.')}{mend}", markup=False)
    if as_json:
        print(orjson.dumps([asdict(finding) for finding in findings], option=orjson.OPT_INDENT_2).decode())
    if all(finding.outcome != "fail" for finding in findings):
        passed.set()
    return passed.is_set()


async def examine(settings: Settings, passed: asyncio.Event | None = None) -> AsyncIterator[Finding]:
    """Every finding, one room after the other; one that takes a minute is a finding of its own.

    Args:
        passed: what `check_model` takes, where the process ends afterwards.
    """
    from worker.doctor.kafka import check_kafka
    from worker.doctor.machine import check_machine
    from worker.doctor.model import check_model
    from worker.doctor.redis import check_redis

    passed = passed or asyncio.Event()
    rooms = [
        _in_time("machine", _async(check_machine(settings))),
        *(check_model(settings, name, passed) for name in settings.pipelines),  # has its own time
        _in_time("kafka", check_kafka(settings)),
        _in_time("redis", check_redis(settings)),
    ]
    for findings in rooms:
        async for finding in findings:
            yield finding


async def _in_time(name: str, findings: AsyncIterator[Finding]) -> AsyncIterator[Finding]:
    with suppress(StopAsyncIteration):
        while True:
            try:
                async with asyncio.timeout(_SECONDS):
                    finding = await anext(findings)
            except TimeoutError:
                yield fail(name, f"has not answered within {_SECONDS:g} s")
                return
            yield finding


async def _async(findings: Iterator[Finding]) -> AsyncIterator[Finding]:
    for finding in findings:
        yield finding
