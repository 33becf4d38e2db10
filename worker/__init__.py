"""kbert-stream: Korean crypto chatter in through Kafka, trading signals out."""

from typing import Final

__version__: Final = "0.1.0"
