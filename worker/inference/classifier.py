"""What a pipeline needs of a model, whatever runs behind it."""

from collections.abc import Sequence
from typing import Any, Protocol

from schemas.signals import ModelInfo
from worker.inference.engine import Engine, HeadOutputs
from worker.inference.tokenising import EncodedText


class TextEncoder(Protocol):
    """Texts to token ids; called from another thread than the loop's."""

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """One encoded text for each, in order.

        Raises:
            TokeniseError: it gave up on one of them.
        """
        ...


class Classifier(Protocol):
    """Tokeniser, engine and decoder of one checkpoint."""

    @property
    def info(self) -> ModelInfo:
        """Name and revision that every signal carries."""
        ...

    @property
    def tokeniser(self) -> TextEncoder:
        """From text to token ids."""
        ...

    @property
    def engine(self) -> Engine[Any]:
        """From token ids to the outputs of the heads."""
        ...

    @property
    def max_length(self) -> int:
        """Tokens of the longest text, special tokens included."""
        ...

    @property
    def default_batch_tokens(self) -> int:
        """The ``max_batch_tokens`` that suits the device."""
        ...

    def decode(self, outputs: HeadOutputs) -> list[dict[str, Any]]:
        """Fields of the signal that the heads give, one dict a text."""
        ...
