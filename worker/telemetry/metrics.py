"""Prometheus metrics of the worker; one process, one registry."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_POWERS: Final = tuple(2.0**n for n in range(0, 18))

RECORDS: Final = Counter("kbert_records_total", "Records read.")
SIGNALS: Final = Counter("kbert_signals_total", "Signals acknowledged by the broker.")
DEAD_LETTERS: Final = Counter("kbert_dead_letters_total", "Messages that became dead letters.", ["reason"])
GIVEN_UP: Final = Counter("kbert_given_up_total", "Records dropped because their partition was revoked.")
COMMITS: Final = Counter("kbert_commits_total", "Offset commits.", ["outcome"])
TRANSACTIONS: Final = Counter("kbert_transactions_total", "Transactions in exactly-once mode.", ["outcome"])
REBALANCES: Final = Counter("kbert_rebalances_total", "Revocations of partitions.")
QUEUE_TOKENS: Final = Gauge("kbert_queue_tokens", "Tokens waiting for the engine.")
QUEUE_MESSAGES: Final = Gauge("kbert_queue_messages", "Messages waiting for the engine.")
STALLED_SECONDS: Final = Gauge(
    "kbert_stalled_seconds", "Time without progress while work may be there.", ["part"]
)
BATCH_TOKENS: Final = Histogram("kbert_batch_tokens", "Tokens of a batch.", buckets=_POWERS)
BATCH_MESSAGES: Final = Histogram("kbert_batch_messages", "Messages of a batch.", buckets=_POWERS)
QUEUE_SECONDS: Final = Histogram("kbert_queue_seconds", "Wait of a batch's oldest message.", buckets=_SECONDS)
ENGINE_SECONDS: Final = Histogram("kbert_engine_seconds", "Engine time of a batch.", buckets=_SECONDS)
BATCH_SPLITS: Final = Counter("kbert_batch_splits_total", "Batches split because the engine failed on them.")
PROJECTED: Final = Counter("kbert_projected_total", "Signals applied to Redis.", ["projection"])
PROJECTION_REPEATS: Final = Counter(
    "kbert_projection_repeats_total", "Signals skipped as repeats.", ["projection"]
)
PROJECTION_REWINDS: Final = Counter(
    "kbert_projection_rewinds_total", "Rewinds after Redis had lost data.", ["projection"]
)
