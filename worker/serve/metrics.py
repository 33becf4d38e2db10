"""Prometheus metrics of the server."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)

REQUESTS: Final = Counter("kbert_http_requests_total", "Answered requests.", ["route", "status"])
REQUEST_SECONDS: Final = Histogram(
    "kbert_http_request_seconds", "Time to the answer's first byte.", ["route"], buckets=_SECONDS
)
STREAMS: Final = Gauge("kbert_streams", "Open streams.", ["kind"])
STREAM_EVENTS: Final = Counter("kbert_stream_events_total", "Events written to streams.", ["kind"])
STREAMS_CUT: Final = Counter("kbert_streams_cut_total", "Streams ended by the server.", ["kind", "reason"])
