"""Losses of the heads. All take logits [N, size] of the rows that have a target, in float32."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from worker.training.examples import Example
from worker.training.heads import HeadSpec

if TYPE_CHECKING:
    from torch import Tensor


def soft_target(head: HeadSpec, label: int, smoothing: float) -> tuple[float, ...]:
    """Probabilities of the classes for a known class, softened by ``smoothing``.

    An ordinal head gives it to the direct neighbours, where annotators disagree; others half of it to all.
    """
    if head.kind == "ordinal":
        near = [i for i in (label - 1, label + 1) if 0 <= i < head.size]
        soft = [smoothing / len(near) if i in near else 0.0 for i in range(head.size)]
        soft[label] = 1 - smoothing
    else:
        soft = [smoothing / 2 / head.size] * head.size
        soft[label] += 1 - smoothing / 2
    return tuple(soft)


def class_weights(examples: Sequence[Example], head: HeadSpec, power: float = 0.5) -> "Tensor":
    """Weights [size] by class frequency to the power of -``power``, mean 1 over the examples.

    A target of several classes counts for each by its share.
    """
    import torch

    targets = [target for e in examples if (target := e.targets.get(head.name)) is not None]
    labels = torch.tensor([target for target in targets if isinstance(target, int)], dtype=torch.long)
    counts = torch.bincount(labels, minlength=head.size).float()
    if shared := [target for target in targets if not isinstance(target, int)]:
        counts += torch.tensor(shared).sum(0)
    weights = counts.clamp(min=1) ** -power
    normalised: Tensor = weights * counts.sum() / (weights * counts).sum().clamp(min=1e-9)
    return normalised


def head_loss(
    head: HeadSpec, logits: "Tensor", targets: "Tensor", weights: Mapping[str, "Tensor"]
) -> "Tensor":
    """Mean loss of one head over its rows; targets [N, size]."""
    from torch.nn import functional

    loss: Tensor
    if head.kind == "multilabel":
        loss = functional.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=logits.new_tensor(head.positive_weight)
        )
    elif head.kind == "score":
        # Nearly an absolute error, which is what the scores are judged by, but smooth where it is small.
        # NaN marks a score that is not known.
        known = ~targets.isnan()
        loss = functional.smooth_l1_loss(logits[known], targets[known], beta=0.05)
    else:
        per_row = -(targets * functional.log_softmax(logits, -1)).sum(-1)
        balance = (
            (targets * weights[head.name]).sum(-1) if head.name in weights else per_row.new_ones(len(per_row))
        )
        loss = (per_row * balance).sum() / balance.sum()
    return loss
