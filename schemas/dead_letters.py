"""What could not be read or classified.

The value and key of a dead letter are the original bytes, untouched; the
original headers are kept, and the headers below are added.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class DeadLetterReason(StrEnum):
    """Why a message has no signal."""

    NOT_UTF8 = "not_utf8"
    INVALID_JSON = "invalid_json"
    INVALID_MESSAGE = "invalid_message"
    EMPTY_TEXT = "empty_text"
    EMPTY_PAYLOAD = "empty_payload"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    TOKENISE_FAILED = "tokenise_failed"
    INFERENCE_FAILED = "inference_failed"
    SIGNAL_REJECTED = "signal_rejected"


class DeadLetterHeaders(BaseModel):
    """Headers of a record on ``dead-letter``, all UTF-8 text, each under its alias."""

    model_config = ConfigDict(populate_by_name=True, frozen=True)

    reason: DeadLetterReason = Field(alias="kbert.reason")
    detail: str = Field(alias="kbert.detail", description="One sentence for a person.")
    topic: str = Field(alias="kbert.topic")
    partition: int = Field(alias="kbert.partition")
    offset: int = Field(alias="kbert.offset")
    timestamp: int = Field(
        alias="kbert.timestamp",
        description="Timestamp of the original, ms since the epoch, -1 where absent; kept by each replay.",
    )
    failed_at: str = Field(alias="kbert.failed_at", description="RFC 3339, UTC.")
    original_bytes: int | None = Field(
        default=None,
        alias="kbert.original_bytes",
        description="Length of the original value, only where the broker refused the letter as too large: "
        "its value is cut, or its key or headers are left out.",
    )
