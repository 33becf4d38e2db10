"""The running server keeps what its OpenAPI document says, as schemathesis tries to disprove."""

import asyncio
import sys
from pathlib import Path

import httpx

from tests.processes import kbert
from tests.servers import KafkaServer, Topics
from tests.serving import full_signal, now, send, serve_settings
from tests.waiting import eventually


async def test_schemathesis_finds_nothing(
    kafka: KafkaServer, topics: Topics, redis_url: str, redis_prefix: str, tmp_path: Path
) -> None:
    settings = await serve_settings(kafka, topics, redis_url, redis_prefix)
    await send(settings, *(full_signal(n, now()) for n in range(20)))
    address = f"http://127.0.0.1:{settings.serve.port}"
    with kbert(["serve"], settings, tmp_path / "serve.log") as process:
        await eventually(lambda: process.says("serve.ready"), timeout=60, what="kbert serve")
        async with httpx.AsyncClient(base_url=address) as http:
            await eventually(lambda: _answers(http), timeout=20, what="an answer")
        # The event stream never ends, so it is left out; test_serve_api.py reads it.
        tried = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{address}/v1/openapi.json"),
            *("--max-examples", "25", "--exclude-path", "/v1/stream", "--no-color", "--seed", "7"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
        )
        output, _ = await tried.communicate()
        assert tried.returncode == 0, output.decode()[-6_000:]
        assert "Operations:       8 selected / 9 total" in output.decode()


async def _answers(http: httpx.AsyncClient) -> bool:
    return (await http.get("/readyz")).status_code == 200
