"""An engine that computes nothing, to measure everything around it."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from worker.inference.config import HeadSet
from worker.inference.engine import Filler, HeadOutputs
from worker.inference.tokenising import EncodedText

_OUTPUTS: Final[dict[HeadSet, dict[str, int]]] = {
    "crypto": {"logits_senti": 5, "logits_act": 6, "logits_emo": 7, "pred_reg": 3},
    "traffic": {"logits": 2},
}


class NullEngine:
    """Answers zeros at once."""

    description = "null"
    default_batch_tokens = 16_384

    def __init__(self, head_set: HeadSet = "crypto") -> None:
        self._sizes = _OUTPUTS[head_set]

    def prepare(self, batch: Sequence[EncodedText]) -> int:
        """Count the texts."""
        return len(batch)

    def filler(self, prepared: int) -> Filler:
        """None."""
        return Filler()

    def run(self, prepared: int) -> HeadOutputs:
        """Zeros ``[prepared, size]`` for each head."""
        return {name: np.zeros((prepared, size), dtype=np.float32) for name, size in self._sizes.items()}

    def infer(self, batch: Sequence[EncodedText]) -> HeadOutputs:
        """``run(prepare(batch))``."""
        return self.run(self.prepare(batch))
