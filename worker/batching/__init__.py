"""The dynamic batcher: pure asyncio, knows neither Kafka nor torch."""

from worker.batching.batcher import Batch, BatcherClosedError, DynamicBatcher

__all__ = ["Batch", "BatcherClosedError", "DynamicBatcher"]
