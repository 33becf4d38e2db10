"""Learning from finished models: what they say of a text is mixed into its classes, or is its target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from worker.training.examples import Example, Target
from worker.training.heads import CRYPTO_HEADS
from worker.training.losses import soft_target
from worker.training.predictions import Floats, Predictions

if TYPE_CHECKING:
    from worker.inference.load import Model

SHARE: Final = 0.5
"""How much of a class's target comes from the teacher where the text has a label of its own."""
_KINDS: Final = {head.name: head for head in CRYPTO_HEADS}


def mixed(name: str, own: Target, said: Sequence[float], share: float, smoothing: float) -> Target:
    """A target of the head ``name``, to ``share`` the teacher's opinion; what is unknown is its alone.

    A score that is known stays: on texts that have nothing to do with the market the bundled model said 0.17
    to 0.27 too much relevance, and half of that would be passed on.
    """
    head = _KINDS[name]
    if head.kind == "score":
        share = 0.0
    soft = soft_target(head, own, smoothing) if isinstance(own, int) else own
    return tuple(t if np.isnan(o) else (1 - share) * o + share * t for o, t in zip(soft, said, strict=True))


@dataclass(frozen=True)
class ModelTeacher:
    """One or more crypto models, whose probabilities and scores are averaged."""

    models: "Sequence[Model]"
    share: float = SHARE

    @classmethod
    def load(cls, refs: Sequence[str], *, offline: bool = False) -> "ModelTeacher":
        """From checkpoint folders or Hub ids (``owner/name[@revision]``); ``offline``: from the Hub's cache.

        Raises CheckpointError where one cannot be used.
        """
        from worker.inference.load import load_model

        return cls([load_model(ref, head_set="crypto", precision="auto", offline=offline) for ref in refs])

    def opinions(self, texts: Sequence[str]) -> Mapping[str, Floats]:
        """For each crypto head what the teachers say of the texts [N, size]."""
        import torch

        threads = torch.get_num_threads()
        said = [Predictions.of_signals(model.classify(texts)) for model in self.models]
        torch.set_num_threads(threads)  # the engine chose those of its last batch for this thread
        return {
            "head_senti": np.mean([p.sentiment for p in said], 0),
            "head_act": np.mean([p.action for p in said], 0),
            "head_emo": np.mean([p.emotions for p in said], 0),
            "head_reg": np.mean([p.scores for p in said], 0),
        }

    def teach(self, examples: Sequence[Example], smoothing: float) -> list[Example]:
        """The examples with the teachers' opinion in the targets of all four crypto heads."""
        opinions = self.opinions([example.text for example in examples])
        taught = []
        for i, example in enumerate(examples):
            targets = dict(example.targets)
            for name, said in opinions.items():
                opinion = tuple(map(float, said[i]))
                own = targets.get(name)
                targets[name] = opinion if own is None else mixed(name, own, opinion, self.share, smoothing)
            taught.append(Example(example.text, targets))
        return taught
