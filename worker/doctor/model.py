"""The model of a pipeline: loads, classifies, and is pinned."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from functools import partial
from time import perf_counter

from worker.configured_model import load_configured
from worker.doctor.finding import Finding, fail, ok, warn
from worker.errors import KbertError
from worker.settings import PipelineName, Settings
from worker.stopping import in_own_thread

_SECONDS = 60.0
_SENTENCES: dict[PipelineName, str] = {
    "crypto": "비트 지금이라도 탑승해야됨",
    "traffic": "빗길 버스 추돌, 3명 숨져",
}


async def check_model(
    settings: Settings, pipeline: PipelineName, passed: asyncio.Event
) -> AsyncIterator[Finding]:
    """Load the model of one pipeline and classify a sentence.

    Args:
        passed: set before the loop ends where the process shall end with status 0, should it still load then.
    """
    check = f"model {pipeline}"
    work = partial(_classify, settings.of(pipeline), pipeline, check)
    loading = asyncio.create_task(in_own_thread(work, f"kbert-model-{pipeline}", passed))
    # Not cancelled here, but by the end of the loop: only then is the status known with which it leaves.
    if not (await asyncio.wait([loading], timeout=_SECONDS))[0]:
        loading.add_done_callback(_forget)
        yield warn(
            check,
            f"is still loading or downloading after {_SECONDS:g} s",
            "kbert run waits for as long as it takes; run kbert doctor again when it is there",
        )
        return
    try:
        finding, unpinned = loading.result()
    except KbertError as error:
        yield fail(check, str(error))
        return
    except ModuleNotFoundError as error:
        yield fail(check, f"needs the package {error.name}", "pip install 'kbert-stream[model]'")
        return
    yield finding
    section = "" if pipeline == "crypto" else f"{pipeline}."
    for repository, setting in unpinned.items():
        yield warn(
            check,
            f"{repository} is not pinned: it may change under a running service",
            f"set {section}{setting} to a commit of the Hub",
        )


def _forget(late: "asyncio.Task[tuple[Finding, Mapping[str, str]]]") -> None:
    if not late.cancelled():
        late.exception()  # read, so that asyncio does not complain


def _classify(settings: Settings, pipeline: PipelineName, check: str) -> tuple[Finding, Mapping[str, str]]:
    """What came of it, and the Hub ids that are not pinned, with the setting that pins each."""
    began = perf_counter()
    model = load_configured(settings.model, pipeline)
    (answer,) = model.classify([_SENTENCES[pipeline]])
    said = answer.get("sentiment_strength") or answer.get("label_name")
    finding = ok(
        check,
        f"{model.info.name} {(model.info.revision or '')[:12]} on {model.engine.description}: "
        f"{said}, after {perf_counter() - began:.1f} s",
    )
    return finding, model.unpinned
