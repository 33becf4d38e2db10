"""A warning that every message can cause is said once in a while, and the others are counted."""

import structlog
from structlog.testing import capture_logs

from worker.telemetry.seldom import Seldom


def test_said_once_and_the_rest_counted() -> None:
    now = 0.0
    with capture_logs() as lines:
        seldom = Seldom(structlog.get_logger(), seconds=30.0, clock=lambda: now)
        for _ in range(1_000):
            seldom.warning("one", detail="x")
        seldom.warning("another")
        now = 30.0
        seldom.warning("one", detail="y")
    assert [(line["event"], line["unsaid"]) for line in lines] == [("one", 0), ("another", 0), ("one", 999)]
