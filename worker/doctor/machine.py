"""This machine and the settings that no server is asked about."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from worker.doctor.finding import Finding, fail, ok, warn
from worker.errors import ConfigurationError
from worker.settings import Settings

_SMALL_BYTES = 2 * 2**30


def check_machine(settings: Settings) -> Iterator[Finding]:
    """Disk, author key, and what the API would be open to."""
    yield _temporary()
    if settings.model.ref is not None and not Path(settings.model.ref).exists():
        yield _hub_cache()
    if "crypto" in settings.pipelines:
        yield (
            ok("author key", "author names are hashed with a key of yours")
            if settings.sink.author_key is not None
            else warn(
                "author key",
                "sink.author_key is not set: author hashes can be guessed from known names",
                "set it to 32 random bytes, and keep it",
            )
        )
    yield from _bindings(settings)


def _temporary() -> Finding:
    directory = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"kbert")
    except OSError as error:
        return warn("disk", f"{directory} cannot be written ({error.strerror})", "mount a tmpfs there")
    return ok("disk", f"{directory} can be written, {shutil.disk_usage(directory).free / 2**30:.1f} GiB free")


def _hub_cache() -> Finding:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    here = next(path for path in (home, *home.parents) if path.exists())
    if not os.access(here, os.W_OK):
        return fail("hub cache", f"{home} cannot be written", "set HF_HOME to a directory that can")
    free = shutil.disk_usage(here).free
    if free < _SMALL_BYTES:
        return warn("hub cache", f"{home} has {free / 2**30:.1f} GiB free", "make room for a model")
    return ok("hub cache", f"{home} has {free / 2**30:.1f} GiB free")


def _bindings(settings: Settings) -> Iterator[Finding]:
    from worker.binding import check_binding

    listening = [("serve", settings.serve.host, settings.serve.token)]
    if settings.metrics.port is not None:
        listening.append(("metrics", settings.metrics.host, settings.metrics.token))
    for section, host, token in listening:
        try:
            check_binding(section, host, token)
        except ConfigurationError as error:
            yield fail(section, str(error))
        else:
            yield ok(section, f"{host}, {'with' if token else 'without'} a token")
