"""The columns of exported tables: names, types, and how a contract's model becomes a row.

A column is named by the path of its field in the JSON, ``scores.action_signal.buy``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from schemas.labels import ACTIONS, EMOTIONS, SENTIMENTS
from worker.aggregates.series import METRICS

Kind = Literal["string", "strings", "time", "number", "integer", "flag"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table."""

    name: str
    kind: Kind

    def read(self, record: Mapping[str, Any]) -> Any:
        """Its value in a record, None where the record has none."""
        if self.name in record:
            return record[self.name]
        value: Any = record
        for part in self.name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


def _columns(kind: Kind, *names: str) -> list[Column]:
    return [Column(name, kind) for name in names]


def _scores(field: str, labels: Iterable[str]) -> list[Column]:
    return [Column(f"scores.{field}.{label}", "number") for label in labels]


CRYPTO_COLUMNS: Final = (
    *_columns("string", "id", "source", "kind"),
    *_columns("time", "published_at", "processed_at"),
    Column("coins", "strings"),
    *_columns("string", "sentiment_strength", "action_signal"),
    Column("emotions", "strings"),
    *_columns("number", "certainty", "relevance", "toxicity"),
    *_scores("sentiment_strength", SENTIMENTS),
    *_scores("action_signal", ACTIONS),
    *_scores("emotions", EMOTIONS),
    *_columns("string", "model.name", "model.revision"),
    Column("truncated", "flag"),
    *_columns("string", "author_hash", "text"),
)
"""A CryptoSignal."""

TRAFFIC_COLUMNS: Final = (
    *_columns("string", "id", "source"),
    *_columns("time", "published_at", "processed_at"),
    Column("label", "integer"),
    Column("label_name", "string"),
    Column("probability", "number"),
    *_columns("string", "model.name", "model.revision"),
    Column("truncated", "flag"),
)
"""A TrafficSignal."""

_COUNTS: Final = ("messages", "sentiment.", "action.", "emotion.")


def is_count(name: str) -> bool:
    """Whether that column of a series counts messages, so that its values are integers."""
    return name.startswith(_COUNTS)


def aggregate_columns(metrics: Sequence[str]) -> tuple[Column, ...]:
    """One row a coin and time; of classes a column each, as in a series."""
    names = [name for metric in metrics for name in METRICS[metric]]
    return (
        *_columns("string", "symbol", "window"),
        Column("time", "time"),
        *(Column(name, "integer" if is_count(name) else "number") for name in names),
    )
