"""A local Kafka-protocol broker and Redis-protocol server as child processes, for demo and tests."""

from worker.embedded.kafka import EmbeddedKafka
from worker.embedded.redis import EmbeddedRedis
from worker.embedded.server import EmbeddedServer, EmbeddedServerError, free_port

__all__ = ["EmbeddedKafka", "EmbeddedRedis", "EmbeddedServer", "EmbeddedServerError", "free_port"]
