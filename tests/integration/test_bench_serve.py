"""`kbert bench serve` measures what it says; how fast it is depends on the machine."""

from worker.benchmarks.serve import bench_serve


async def test_every_request_is_answered_and_counted() -> None:
    said: list[str] = []
    result = await bench_serve(said.append, rate=40, seconds=2, coins=16)
    assert result["answers"] == {"200": 80}
    assert result["coins"] == 16
    latency = result["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
    assert said[-1] == "40 requests a second for 2 s"
