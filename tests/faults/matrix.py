"""``make faults``: every fault, and a table of what was lost and repeated.

``python -m tests.faults.matrix [--only NAME …] [--delivery exactly_once]``; ends with status 1
if anything was lost, an offset passed an unfinished message, or, in exactly-once mode on an
Apache Kafka, anything was repeated.
"""

import argparse
import asyncio
import logging
import os
import platform
import sys
import tempfile
import traceback
from pathlib import Path
from time import monotonic
from typing import Final

import structlog

from tests.checkpoints import SMALL, random_state, write_checkpoint
from tests.faults import backpressure, bad_input, scenarios
from tests.faults.scenarios import Row, Scenario
from tests.servers import KafkaServer, kafka_server

FULL: Final[dict[str, tuple[Scenario, int]]] = {
    "killed": (scenarios.killed, 30),
    "stopped": (scenarios.stopped, 2),
    "broker-frozen": (scenarios.broker_frozen, 2),
    "broker-restarted": (scenarios.broker_restarted, 2),
    "rebalances": (scenarios.rebalances, 10),
    "terminated": (scenarios.terminated, 3),
    "terminated-twice": (scenarios.terminated_twice, 3),
    "read-only": (scenarios.read_only, 1),
    "disk-full": (scenarios.disk_full, 1),
    "clock-jumps": (scenarios.clock_jumps, 5),
    "bad-input": (bad_input.bad_input, 1),
    "flood": (backpressure.flood, 1),
    "poisonous": (scenarios.poisonous, 3),
    "whole-batch": (scenarios.whole_batch, 3),
    "out-of-memory": (scenarios.out_of_memory, 3),
    "redis-with-data": (scenarios.redis_with_data, 3),
    "redis-without-data": (scenarios.redis_without_data, 3),
    "redis-slow": (scenarios.redis_slow, 2),
}
_HEAD: Final = ("fault", "rounds", "messages", "lost", "repeated", "past unfinished", "recovery", "note")


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(_HEAD) + " |", "|---|---:|---:|---:|---:|---:|---:|---|"]
    for row in rows:
        recovery = "" if row.recovery is None else f"{row.recovery:.1f} s"
        t = row.tally
        cells = (
            row.fault,
            row.rounds,
            t.messages,
            t.lost,
            t.repeated,
            t.unfinished_committed,
            recovery,
            row.note,
        )
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


async def _run(kafka: KafkaServer, names: list[str], directory: Path, *, exactly_once: bool) -> bool:
    checkpoint = write_checkpoint(directory / "model", random_state(SMALL))
    rows: list[Row] = []
    failed: list[str] = []
    absent: list[str] = []
    began = monotonic()
    async with scenarios.field_of(kafka, checkpoint, directory, exactly_once=exactly_once) as place:
        for name in names:
            if why := _cannot(name, kafka):
                absent.append(f"{name}: not run, {why}")
                continue
            scenario, rounds = FULL[name]
            since = monotonic()
            try:
                row = await scenario(place, rounds)
            except Exception:  # noqa: BLE001 - a fault that fails is a line of the report, and the others still run
                failed.append(name)
                traceback.print_exc()
                continue
            rows.append(row)
            print(table([row]).splitlines()[-1], f"({monotonic() - since:.0f} s)", flush=True)
    broker = "Apache Kafka" if kafka.is_apache else "the embedded broker"
    mode = "exactly once" if exactly_once else "at least once"
    minutes, seconds = divmod(round(monotonic() - began), 60)
    print(f"\n{mode}, {broker}, {platform.machine()}, {os.cpu_count()} cores, {minutes} min {seconds} s\n")
    print(table(rows))
    print("\nWhat each row left on the signals topic, aggregated, equals a recount of it.")
    for line in (*absent, *(f"{name}: failed, see above" for name in failed)):
        print(f"\n{line}")
    return not failed and all(_kept(row, once=exactly_once and kafka.is_apache) for row in rows)


def _cannot(name: str, kafka: KafkaServer) -> str | None:
    """Why a fault cannot be done to this broker."""
    if name != "broker-restarted" or (kafka.is_apache and scenarios.RESTART):
        return None
    return (
        "needs an Apache Kafka (KBERT_TEST_KAFKA) and the command that restarts it (KBERT_TEST_KAFKA_RESTART)"
    )


def _kept(row: Row, *, once: bool) -> bool:
    return not (row.tally.lost or row.tally.unfinished_committed or (once and row.tally.repeated))


def main() -> None:
    """Run, print, and end with a status."""
    parser = argparse.ArgumentParser(description="Run the fault matrix and print its table.")
    parser.add_argument("--only", nargs="+", choices=FULL, default=list(FULL))
    parser.add_argument("--delivery", choices=("at_least_once", "exactly_once"), default="at_least_once")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)  # the faults are meant: their messages would bury the table
    with kafka_server() as kafka, tempfile.TemporaryDirectory(prefix="kbert-faults-") as directory:
        kept = asyncio.run(
            _run(
                kafka,
                arguments.only,
                Path(directory),
                exactly_once=arguments.delivery == "exactly_once",
            )
        )
    sys.exit(not kept)


if __name__ == "__main__":
    main()
