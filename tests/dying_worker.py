"""``kbert`` with a part that ends by itself: ``DYING=engine`` or ``DYING=task``."""

import asyncio
import os
from typing import Any, NoReturn

from worker.cli import main
from worker.inference.torch_engine import TorchEngine
from worker.source.consumer import KafkaSource


def _end_of_thread(self: TorchEngine, prepared: Any) -> NoReturn:
    raise SystemExit(0)  # ends a thread without a word


async def _end_of_task(self: KafkaSource) -> None:
    raise asyncio.CancelledError  # ends a task without an error


if __name__ == "__main__":
    if os.environ["DYING"] == "engine":
        TorchEngine.run = _end_of_thread  # type: ignore[method-assign]
    else:
        KafkaSource.commit_forever = _end_of_task  # type: ignore[method-assign]
    main()
