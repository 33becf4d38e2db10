"""The order of the live feed: the page's own module, in Playwright's Node.js, without a browser."""

import json
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import playwright
import pytest

from schemas.signals import CryptoSignal
from tests.serving import full_signal, now
from worker.signal_filter import SignalFilter

PAGE = Path(__file__).parents[2] / "worker" / "serve" / "page"
NODE = Path(playwright.__file__).parent / "driver" / "node"
START = now().replace(microsecond=0)

pytestmark = pytest.mark.skipif(not NODE.exists(), reason="this Playwright has no Node.js of its own")

FEED = """
import fs from "node:fs";
globalThis.requestAnimationFrame = () => {};
const { Feed } = await import(process.argv[1]);
const calls = JSON.parse(fs.readFileSync(0, "utf8"));
const feed = Object.create(Feed.prototype);
Object.assign(feed, { signals: [], held: [], paused: false, render() {}, showPause() {} });
for (const [name, argument] of calls) feed[name](argument);
const names = (signals) => signals.map((signal) => `${signal.source}${signal.id}`);
console.log(JSON.stringify([names(feed.signals), names(feed.held)]));
"""


def feed(*calls: tuple[str, Any]) -> tuple[list[str], list[str]]:
    """Source and id of what is shown, and of what waits, after some calls of its methods."""
    shown, held = run(FEED, calls)
    return shown, held


def run(script: str, given: Any) -> Any:
    """What a script prints as JSON of what it is given, with the feed's module as its argument."""
    done = subprocess.run(
        [NODE, "--input-type=module", "--eval", script, (PAGE / "feed.js").as_uri()],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


def said(number: int, second: float, room: str = "a") -> dict[str, Any]:
    at = (START + timedelta(seconds=second)).isoformat().replace("+00:00", "Z")
    return {"id": str(number), "source": room, "processed_at": at}


PASSES = """
import fs from "node:fs";
const { Feed } = await import(process.argv[1]);
const [query, signals] = JSON.parse(fs.readFileSync(0, "utf8"));
const feed = { query: () => query };
console.log(JSON.stringify(signals.map((signal) => Feed.prototype.passes.call(feed, signal))));
"""


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"coin": "ETH"},
        {"sentiment": "weak_pos", "action": "buy"},
        {"action": "sell"},
        {"min_certainty": 0.8, "min_relevance": 0.9},
        {"min_relevance": 0.95},
    ],
)
def test_the_page_filters_as_the_api_does(query: dict[str, Any]) -> None:
    signals = [
        full_signal(1, START),
        full_signal(2, START, ("BTC", "ETH"), certainty=0.7),
        full_signal(3, START, (), action_signal="sell", relevance=0.99),
    ]
    coins, sentiments, actions = (
        frozenset({query[name]}) if name in query else None for name in ("coin", "sentiment", "action")
    )
    least = {name: value for name, value in query.items() if name.startswith("min_")}
    wanted = SignalFilter(coins=coins, sentiments=sentiments, actions=actions, **least)
    empty = dict.fromkeys(("coin", "sentiment", "action", "min_certainty", "min_relevance"), "")
    shown = run(PASSES, [empty | query, signals])
    assert shown == [wanted.passes(CryptoSignal.model_validate(signal)) for signal in signals]


def test_what_was_missed_stands_where_its_time_is() -> None:
    old = [said(n, n) for n in reversed(range(80))]
    missed = [said(n, n) for n in reversed(range(60, 140)) if n != 120]
    shown, _ = feed(("start", old), ("add", said(120, 120)), ("start", missed))
    assert shown == [f"a{n}" for n in reversed(range(60, 140))]


def test_times_are_compared_as_times() -> None:
    """As texts, 1.5 s stands before 1 s and after 2 s."""
    shown, _ = feed(("start", [said(1, 1), said(3, 2), said(2, 1.5)]))
    assert shown == ["a3", "a2", "a1"]


def test_the_same_id_in_another_room_is_another_signal() -> None:
    shown, _ = feed(("start", [said(500, 1)]), ("add", said(500, 2, "b")), ("add", said(500, 1)))
    assert shown == ["b500", "a500"]
    shown, _ = feed(("start", [said(500, 2, "b"), said(500, 1)]))
    assert shown == ["b500", "a500"]


def test_a_paused_feed_stands_still() -> None:
    calls = [
        ("start", [said(2, 2), said(1, 1)]),
        ("pause", True),
        ("add", said(5, 5)),
        ("start", [said(5, 5), said(4, 4), said(2, 2), said(1, 1)]),
    ]
    assert feed(*calls) == (["a2", "a1"], ["a5", "a4"])
    assert feed(*calls, ("pause", False)) == (["a5", "a4", "a2", "a1"], [])
