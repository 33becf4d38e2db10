"""What a training batch is made of."""

from collections.abc import Mapping
from dataclasses import dataclass

Target = int | tuple[float, ...]


@dataclass(frozen=True)
class Example:
    """A text with the targets of the heads that know about it; other heads learn nothing from it.

    A target is a class index, or one float for each output of the head: probabilities of classes, labels of
    several, or scores.
    """

    text: str
    targets: Mapping[str, Target]
