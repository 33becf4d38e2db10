"""Dividing labelled texts into what is learned from, what chooses the best epoch, and what judges."""

from collections.abc import Sequence
from dataclasses import dataclass

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
    run without it judges on is not learned from either."""
    parts: dict[Part, list[LabelledText]] = {"train": [], "validation": [], "test": []}
    for row, part in zip(rows, split([row.text for row in rows]), strict=True):
        if row.file in leave_out:
            parts["test"].append(row)
        elif not (leave_out and part == "test"):
            parts[part].append(row)
    return Parts(parts["train"], parts["validation"], parts["test"])


def add_extra(parts: Parts, extra: Sequence[LabelledText], leave_out: Sequence[str] = ()) -> Parts:
    """The parts with the extra texts in the train part, without those that a held-back text is close to.

    Texts of the registers ``leave_out`` go to the test part.
    """
    if not extra:
        return parts
    test = parts.test + [row for row in extra if row.file in leave_out]
    extra = [row for row in extra if row.file not in leave_out]
    held = [*parts.validation, *test]
    groups = near_duplicate_groups([row.text for row in (*held, *extra)])
    taken = set(groups[: len(held)])
    fresh = [row for row, group in zip(extra, groups[len(held) :], strict=True) if group not in taken]
    return Parts(parts.train + fresh, parts.validation, test)
