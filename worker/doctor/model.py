"""The model of a pipeline: loads, classifies, and is pinned."""

import asyncio
from collections.abc import AsyncIterator
from time import perf_counter

from worker.configured_model import load_configured
from worker.doctor.finding import Finding, fail, ok, warn
from worker.errors import KbertError
from worker.settings import PipelineName, Settings

_SENTENCES: dict[PipelineName, str] = {
    "crypto": "비트 지금이라도 탑승해야됨",
    "traffic": "빗길 버스 추돌, 3명 숨져",
}


async def check_model(settings: Settings, pipeline: PipelineName) -> AsyncIterator[Finding]:
    """Load the model of one pipeline and classify a sentence."""
    check = f"model {pipeline}"
    try:
        yield await asyncio.to_thread(_classify, settings.of(pipeline), pipeline, check)
    except KbertError as error:
        yield fail(check, str(error))
        return
    except ModuleNotFoundError as error:
        yield fail(check, f"needs the package {error.name}", "pip install 'kbert-stream[model]'")
        return
    from worker.inference.hub import HUB_ID

    model = settings.of(pipeline).model
    if model.ref is not None and HUB_ID.fullmatch(model.ref) and model.revision is None:
        yield warn(
            check,
            f"{model.ref} is not pinned: it may change under a running service",
            "set model.revision to a commit of the Hub",
        )


def _classify(settings: Settings, pipeline: PipelineName, check: str) -> Finding:

    began = perf_counter()
    model = load_configured(settings.model, pipeline)
    (answer,) = model.classify([_SENTENCES[pipeline]])
    said = answer.get("sentiment_strength") or answer.get("label_name")
    return ok(
        check,
        f"{model.info.name} {(model.info.revision or '')[:12]} on {model.engine.description}: "
        f"{said}, after {perf_counter() - began:.1f} s",
    )
