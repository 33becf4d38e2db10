"""What the log holds of an error."""

import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from worker.settings import LogSettings
from worker.telemetry.logs import configure_logging


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


@pytest.mark.parametrize("kind", ["console", "json"])
def test_a_traceback_shows_no_variables(
    kind: Literal["console", "json"], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(LogSettings(format=kind))
    token = "-".join(["a", "bearer", "token"])
    try:
        int("no number")
    except ValueError:
        structlog.get_logger("test").exception("failed")
        logging.getLogger("uvicorn.error").exception("failed too")
    said = capsys.readouterr().err
    assert said.count("ValueError: invalid literal") == 2
    assert token not in said
