"""Dividing labelled texts into what is learned from, what chooses the best epoch, and what judges."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress

from worker.training.datasets import LabelledText
from worker.training.splits import Part, near_duplicate_groups, split


@dataclass(frozen=True)
class Parts:
    """Rows by the part that they fall into."""

    train: list[LabelledText]
    validation: list[LabelledText]
    test: list[LabelledText]


def divide(rows: Sequence[LabelledText], leave_out: Sequence[str] = ()) -> Parts:
    """Split by hash. With ``leave_out``, the test part is those registers, whole, and nothing else; what a
    run without it judges on is not learned from either, nor what is close to a row of those registers."""
    parts: dict[Part, list[LabelledText]] = {"train": [], "validation": [], "test": []}
    left_out = _close_to([row.file in leave_out for row in rows], rows) if leave_out else [False] * len(rows)
    for row, part, close in zip(rows, split([row.text for row in rows]), left_out, strict=True):
        if row.file in leave_out:
            parts["test"].append(row)
        elif not (leave_out and part == "test") and not close:
            parts[part].append(row)
    return Parts(parts["train"], parts["validation"], parts["test"])


def _close_to(chosen: Sequence[bool], rows: Sequence[LabelledText]) -> list[bool]:
    """For each row whether it is a near-duplicate of a chosen one."""
    groups = near_duplicate_groups([row.text for row in rows])
    taken = set(compress(groups, chosen))
    return [group in taken for group in groups]


def add_extra(parts: Parts, extra: Sequence[LabelledText], leave_out: Sequence[str] = ()) -> Parts:
    """The parts with the extra texts in the train part, without those that a held-back text is close to.

    Texts of the registers ``leave_out`` go to the test part, and what is close to them is in no other.
    """
    if not extra:
        return parts
    left_out = [row for row in extra if row.file in leave_out]
    if left_out:
        known = [*parts.train, *parts.validation]
        close = _close_to([True] * len(left_out) + [False] * len(known), [*left_out, *known])[len(left_out) :]
        kept = [row for row, near in zip(known, close, strict=True) if not near]
        learned = len(parts.train) - sum(close[: len(parts.train)])
        parts = Parts(kept[:learned], kept[learned:], parts.test + left_out)
        extra = [row for row in extra if row.file not in leave_out]
    held = [*parts.validation, *parts.test]
    close = _close_to([True] * len(held) + [False] * len(extra), [*held, *extra])[len(held) :]
    fresh = [row for row, near in zip(extra, close, strict=True) if not near]
    return Parts(parts.train + fresh, parts.validation, parts.test)
