"""``kbert topics``."""

import sys
from dataclasses import asdict

import orjson
from rich.console import Console
from rich.table import Table

from worker.settings import Settings
from worker.sink.topics import create_topics, describe_topics


async def show_topics(settings: Settings, *, create: bool, as_json: bool) -> None:
    """Print each topic's state, after making those that are missing if asked to.

    A topic that was there with fewer partitions than the setting asks for is named on standard error.
    """
    created = await create_topics(settings) if create else []
    states = await describe_topics(settings)
    wanted = settings.topics.partitions
    keyed = (settings.topics.signals, settings.traffic.signals)
    for state in states:
        if create and state.exists and state.partitions < wanted:
            advice = (
                "leave it so: a wider one counts known ids again and breaks the order of a coin's signals "
                "(where it has to be, drain it first: stop the workers until every reader is at its end)"
                if state.name in keyed
                else f"widen it with kafka-topics.sh --alter --topic {state.name} --partitions {wanted}"
            )
            print(
                f"{state.name} has {state.partitions} partitions, and topics.partitions asks for {wanted}: "
                f"{advice}.",
                file=sys.stderr,
            )
    if as_json:
        print(orjson.dumps([asdict(s) | {"created": s.name in created} for s in states]).decode())
        return
    table = Table("topic", "state", "partitions", "replicas", box=None)
    for state in states:
        here = (
            "created"
            if state.name in created
            else "there"
            if state.exists
            else "missing: kbert topics --create"
        )
        table.add_row(state.name, here, str(state.partitions or ""), str(state.replicas or ""))
    Console().print(table)
