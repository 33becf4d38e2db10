"""What the commands share: options, the settings in force, the event loop."""

from collections.abc import Coroutine
from typing import Annotated, Any, Final, TypeVar

import typer

from worker.errors import KbertError, first_of
from worker.settings import PipelineName, Settings, load_settings

Result = TypeVar("Result")

INTERRUPTED: Final = 130
"""Status of a command that Ctrl-C ended before its work was done, as shells have it."""

MOST_NAMED: Final = 20
"""Lines or records that a command names of those that it leaves out; all are counted."""

_SAID: Final = (KbertError, ModuleNotFoundError, BrokenPipeError)
"""What `main` answers without a traceback."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ModelRef = Annotated[
    str | None,
    typer.Option("--model", metavar="DIR_OR_HUB_ID", help="Checkpoint; the bundled model where absent."),
]


class InterruptedEarlyError(KbertError):
    """Ctrl-C before the work was done; the message says how far it came."""


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
    """Run a command's coroutine to its end, and give what it returns.

    A task group wraps even a known error: where it holds nothing else, the first of them is raised bare.
    """
    import uvloop

    try:
        return uvloop.run(work)
    except BaseExceptionGroup as errors:
        if errors.split(_SAID)[1] is not None:
            raise
        raise first_of(errors) from errors
