"""What goes in: one chat message or news item."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from schemas.times import UtcDatetime

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=512)]


class RawMessage(BaseModel):
    """A message on ``raw.crypto`` or ``raw.traffic``.

    Either ``text`` (chat) or ``title`` with an optional ``body`` (news) is given.
    A payload that is plain UTF-8 text is read as ``{"text": payload}``. Fields
    that are not named here are ignored.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: Identifier | None = Field(
        default=None,
        coerce_numbers_to_str=True,
        description="Identity of the message, kept on its signal: unique within its source. "
        "Where absent: `topic:partition:offset:timestamp` of the record (ms since the epoch).",
    )
    source: str = Field(
        default="unknown", max_length=200, description="Where it was found: a room, board or newswire."
    )
    kind: Literal["chat", "news"] | None = Field(
        default=None,
        description="Where absent: a source of that name, else news if there is a title, else chat.",
    )
    text: str | None = None
    title: str | None = None
    body: str | None = None
    author: str | None = Field(
        default=None,
        max_length=1000,
        coerce_numbers_to_str=True,
        description="Only a keyed hash of it leaves the worker.",
    )
    url: str | None = Field(default=None, max_length=4000)
    published_at: UtcDatetime | None = Field(
        default=None,
        description="Event time. Where absent: the record's timestamp, of a replayed record the one that its "
        "header `kbert.timestamp` keeps. Without a zone: UTC.",
    )

    @model_validator(mode="after")
    def _has_text(self) -> "RawMessage":
        if self.text is None and self.title is None and self.body is None:
            raise ValueError("one of text, title or body is required")
        return self
