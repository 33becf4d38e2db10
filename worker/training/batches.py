"""Cutting examples into batches of like length."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.training.examples import Example
from worker.training.heads import HeadSpec
from worker.training.losses import soft_target

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

POOL = 40
"""Batches whose rows are sorted together: enough for little padding, few enough to keep batches mixed."""


@dataclass(frozen=True)
class Batch:
    """Token ids and mask [N, L]; for each head the rows [n] that have a target, and the targets [n, size]."""

    ids: "Tensor"
    mask: "Tensor"
    targets: Mapping[str, tuple["Tensor", "Tensor"]]


def encode(tokenizer: "Tokenizer", texts: Sequence[str], prefix: str, max_length: int) -> list[list[int]]:
    """Token ids of each text with the special tokens of the tokenizer, cut to ``max_length``."""
    end = tokenizer.encode("").ids[-1:]
    encodings = tokenizer.encode_batch([prefix + text for text in texts])
    return [e.ids if len(e.ids) <= max_length else e.ids[: max_length - 1] + end for e in encodings]


def plan(lengths: Sequence[int], size: int, rng: random.Random) -> list[list[int]]:
    """Batches of indices in random order, each of rows of like length."""
    order = list(range(len(lengths)))
    rng.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), size * POOL):
        pool = sorted(order[start : start + size * POOL], key=lambda i: lengths[i])
        batches += [pool[i : i + size] for i in range(0, len(pool), size)]
    rng.shuffle(batches)
    return batches


def pad(rows: Sequence[Sequence[int]], pad_id: int) -> tuple["Tensor", "Tensor"]:
    """Ids and mask [N, longest]."""
    import torch

    longest = max(len(row) for row in rows)
    ids = torch.tensor([[*row, *[pad_id] * (longest - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def collate(
    examples: Sequence[Example],
    rows: Sequence[Sequence[int]],
    heads: Sequence[HeadSpec],
    pad_id: int,
    smoothing: float,
) -> Batch:
    """One batch of the examples, whose token ids are ``rows``; known classes become soft targets."""
    import torch

    ids, mask = pad(rows, pad_id)
    targets = {}
    for head in heads:
        known = [i for i, example in enumerate(examples) if head.name in example.targets]
        if known:
            values = (examples[i].targets[head.name] for i in known)
            soft = [soft_target(head, v, smoothing) if isinstance(v, int) else v for v in values]
            targets[head.name] = (torch.tensor(known), torch.tensor(soft))
    return Batch(ids, mask, targets)
