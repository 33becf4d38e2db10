"""What runs batches: the protocol that the pipeline knows. It imports no model library."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from worker.inference.tokenising import EncodedText

HeadOutputs = dict[str, npt.NDArray[np.float32]]
"""Name of the head → ``[n, size]``, in the order of the batch. Crypto: ``logits_senti``, ``logits_act``,
``logits_emo``, ``pred_reg``; traffic: ``logits``."""

Prepared = TypeVar("Prepared")


@dataclass(frozen=True, slots=True)
class Filler:
    """Tokens of a prepared batch that are computed and belong to no text."""

    rows: int = 0
    """Through every layer: what rounds the packed row up."""
    attention: int = 0
    """In attention alone: padding of its tiles, and places of tiles without a sequence."""


class Engine(Protocol[Prepared]):
    """``prepare`` may run in any thread, also while ``run`` runs; ``run`` only in the engine's thread."""

    @property
    def description(self) -> str:
        """Library, device, precision and threads, for a log line."""
        ...

    @property
    def default_batch_tokens(self) -> int:
        """A batch of so many tokens keeps the device busy; a larger one only takes longer."""
        ...

    def prepare(self, batch: Sequence[EncodedText]) -> Prepared:
        """Lay out a batch (at least one text) for :meth:`run`."""
        ...

    def filler(self, prepared: Prepared) -> Filler:
        """What the layout of a batch costs beyond its texts."""
        ...

    def run(self, prepared: Prepared) -> HeadOutputs:
        """Compute a prepared batch.

        Raises:
            EngineOutOfMemory: It did not fit; a smaller one may.
        """
        ...

    def infer(self, batch: Sequence[EncodedText]) -> HeadOutputs:
        """``run(prepare(batch))``; an empty batch gives arrays of no rows."""
        ...
