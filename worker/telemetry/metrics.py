"""Prometheus metrics of worker and aggregates; one process, one registry. README.md has them in a table."""

from collections.abc import Mapping
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_POWERS: Final = tuple(2.0**n for n in range(0, 18))
_PIPELINE: Final = ("pipeline",)

RECORDS: Final = Counter("kbert_records_total", "Records read.", _PIPELINE)
SIGNALS: Final = Counter("kbert_signals_total", "Signals acknowledged by the broker.", _PIPELINE)
SIGNAL_CLASSES: Final = Counter(
    "kbert_signal_classes_total", "Acknowledged signals by class.", ["pipeline", "field", "value"]
)
DEAD_LETTERS: Final = Counter(
    "kbert_dead_letters_total", "Messages that became dead letters.", ["pipeline", "reason"]
)
GIVEN_UP: Final = Counter(
    "kbert_given_up_total", "Records dropped because their partition was revoked.", _PIPELINE
)
RECORDS_LOST: Final = Counter(
    "kbert_records_lost_total", "Records that their topic dropped unread.", ["pipeline", "service"]
)
COMMITS: Final = Counter("kbert_commits_total", "Offset commits.", ["pipeline", "outcome"])
TRANSACTIONS: Final = Counter(
    "kbert_transactions_total", "Transactions in exactly-once mode.", ["pipeline", "outcome"]
)
REBALANCES: Final = Counter("kbert_rebalances_total", "Revocations of partitions.", _PIPELINE)
LAG: Final = Gauge(
    "kbert_lag_records", "Records without an outcome.", ["pipeline", "service", "topic", "partition"]
)
QUEUE_TOKENS: Final = Gauge("kbert_queue_tokens", "Tokens waiting for the engine.", _PIPELINE)
QUEUE_MESSAGES: Final = Gauge("kbert_queue_messages", "Messages waiting for the engine.", _PIPELINE)
STALLED_SECONDS: Final = Gauge(
    "kbert_stalled_seconds", "Time without progress while work may be there.", ["part"]
)
READY: Final = Gauge("kbert_ready", "1 where a part lacks nothing, else 0.", ["part"])
BATCH_TOKENS: Final = Histogram("kbert_batch_tokens", "Tokens of a batch.", _PIPELINE, buckets=_POWERS)
BATCH_MESSAGES: Final = Histogram("kbert_batch_messages", "Messages of a batch.", _PIPELINE, buckets=_POWERS)
FILLER_TOKENS: Final = Counter(
    "kbert_batch_filler_tokens_total", "Tokens computed that no message has.", ["pipeline", "where"]
)
STAGE_SECONDS: Final = Histogram(
    "kbert_stage_seconds",
    "Time that a poll or a batch spends in a stage.",
    ["pipeline", "stage"],
    buckets=_SECONDS,
)
ENGINE_BUSY_SECONDS: Final = Counter(
    "kbert_engine_busy_seconds_total", "Time the engine computed.", _PIPELINE
)
BATCH_SPLITS: Final = Counter(
    "kbert_batch_splits_total", "Batches split because the engine failed on them.", _PIPELINE
)
PROJECTED: Final = Counter("kbert_projected_total", "Signals applied to Redis.", ["projection"])
PROJECTION_REPEATS: Final = Counter(
    "kbert_projection_repeats_total", "Signals whose id stood before, skipped.", ["projection"]
)
PROJECTION_FENCE_SKIPS: Final = Counter(
    "kbert_projection_fence_skips_total", "Signals read again that the fence calls applied.", ["projection"]
)
PROJECTION_REJECTED: Final = Counter(
    "kbert_projection_rejected_total", "Records of the signals topic that are no signal.", ["projection"]
)
PROJECTION_REWINDS: Final = Counter(
    "kbert_projection_rewinds_total", "Rewinds after Redis had lost data.", ["projection"]
)


class LagGauge:
    """The lag of the partitions that a reader has; those it has not are gone from the scrape."""

    def __init__(self, pipeline: str, service: str) -> None:
        self._labels = (pipeline, service)
        self._shown: set[tuple[str, int]] = set()

    def show(self, lag: Mapping[tuple[str, int], int]) -> None:
        """Records without an outcome, by topic and partition."""
        for topic, partition in self._shown - lag.keys():
            LAG.remove(*self._labels, topic, partition)
        for (topic, partition), records in lag.items():
            LAG.labels(*self._labels, topic, partition).set(records)
        self._shown = set(lag)
