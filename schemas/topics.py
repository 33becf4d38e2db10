"""Topic names, record headers and the schema versions they carry."""

from typing import Final

RAW_CRYPTO: Final = "raw.crypto"
RAW_TRAFFIC: Final = "raw.traffic"
SIGNALS_CRYPTO: Final = "signals.crypto"
SIGNALS_TRAFFIC: Final = "signals.traffic"
DEAD_LETTER: Final = "dead-letter"

SCHEMA_HEADER: Final = "schema"
"""Record header that names the schema and version of the value."""

ID_HEADER: Final = "kbert.id"
"""Record header of a replayed raw message that has no id of its own."""

TIMESTAMP_HEADER: Final = "kbert.timestamp"
"""Record header of a replayed raw message: timestamp of the record that it was first, ms since the epoch."""

CRYPTO_SIGNAL_V1: Final = "crypto-signal/1"
TRAFFIC_SIGNAL_V1: Final = "traffic-signal/1"
