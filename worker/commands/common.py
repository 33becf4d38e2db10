"""What the commands share: options, the settings in force, the event loop."""

from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import typer

from worker.settings import PipelineName, Settings, load_settings

Result = TypeVar("Result")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ModelRef = Annotated[
    str | None,
    typer.Option("--model", metavar="DIR_OR_HUB_ID", help="Checkpoint; the bundled model where absent."),
]


def settings_in_force(
    model: str | None = None, *, quiet: bool = False, pipeline: PipelineName = "crypto"
) -> Settings:
    """Settings in force, with the model of one pipeline replaced, and logs set up by them.

    ``quiet``: only errors are logged, unless the level was set, because a board has the terminal.
    """
    from worker.telemetry.logs import configure_logging

    settings = load_settings()
    if model is not None:
        settings = settings.with_model(pipeline, model)
    log = settings.log
    if quiet and "level" not in log.model_fields_set:
        log = log.model_copy(update={"level": "error"})
    configure_logging(log)
    return settings


def run_async(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's coroutine to its end, and give what it returns."""
    import uvloop

    return uvloop.run(work)
