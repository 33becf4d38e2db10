"""What a bot imports: signals as they come, the aggregates per coin, the narrative index."""

from worker.clients.aggregates import Aggregates
from worker.clients.narrative import Narrative
from worker.clients.signals import SignalStream

__all__ = ["Aggregates", "Narrative", "SignalStream"]
