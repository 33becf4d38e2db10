"""What a bot imports: signals as they come, and the aggregates per coin."""

from worker.clients.aggregates import Aggregates
from worker.clients.signals import SignalStream

__all__ = ["Aggregates", "SignalStream"]
