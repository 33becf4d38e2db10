"""This machine and the settings that no server is asked about."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from worker.coins import load_catalogue
from worker.doctor.finding import Finding, fail, ok, warn
from worker.errors import ConfigurationError
from worker.settings import Settings

_SMALL_BYTES = 2 * 2**30


def check_machine(settings: Settings) -> Iterator[Finding]:
    """Disk, coins, author key, and what the API would be open to."""
    yield _temporary()
    models = [settings.of(name).model for name in settings.pipelines]
    from_hub = [model for model in models if model.ref is not None and not Path(model.ref).exists()]
    if from_hub:
        yield from _hub_cache(offline=all(model.offline for model in from_hub))
    if "crypto" in settings.pipelines:
        yield _coins(settings)
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


def _hub_cache(*, offline: bool) -> Iterator[Finding]:
    try:
        from huggingface_hub import constants
    except ModuleNotFoundError:
        return  # what `check_model` says
    cache = Path(constants.HF_HUB_CACHE)
    if offline or constants.HF_HUB_OFFLINE:
        yield ok("hub cache", f"{cache} is only read: the Hub is not asked")
        return
    here = next(path for path in (cache, *cache.parents) if path.exists())
    if not os.access(here, os.W_OK):
        yield warn(
            "hub cache",
            f"{cache} cannot be written, so only a model that it holds can be loaded",
            "set HF_HUB_CACHE to a directory that can, or HF_HUB_OFFLINE=1 where the model is there",
        )
        return
    free = shutil.disk_usage(here).free
    said = f"{cache} has {free / 2**30:.1f} GiB free"
    yield warn("hub cache", said, "make room for a model") if free < _SMALL_BYTES else ok("hub cache", said)


def _coins(settings: Settings) -> Finding:
    file = settings.coins.user_file
    try:
        catalogue = load_catalogue(file)
    except ConfigurationError as error:
        return fail("coins", str(error), f"correct {file}, or the setting coins.user_file")
    return ok("coins", f"{len(catalogue)} coins" + (f", with those of {file}" if file else ""))


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
