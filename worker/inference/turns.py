"""Engines of several pipelines on one device, one batch at a time, each in its turn."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from worker.inference.engine import Engine, Filler, HeadOutputs
from worker.inference.tokenising import EncodedText

Prepared = TypeVar("Prepared")


class Turns:
    """A lock that is given in the order of asking.

    ``threading.Lock`` gives no order: a thread that asks again at once may keep it for ever. With this one,
    two engine threads that both have work alternate, a batch each, whatever their load.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = 0
        self._serving = 0

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Wait for the turn and hold it."""
        with self._changed:
            ticket = self._next
            self._next += 1
            self._changed.wait_for(lambda: self._serving == ticket)
        try:
            yield
        finally:
            with self._changed:
                self._serving += 1
                self._changed.notify_all()


class EngineInTurn(Generic[Prepared]):
    """An engine that runs a batch when it is its turn."""

    def __init__(self, engine: Engine[Prepared], turns: Turns) -> None:
        self._engine = engine
        self._turns = turns

    @property
    def description(self) -> str:
        """That of the engine."""
        return self._engine.description

    @property
    def default_batch_tokens(self) -> int:
        """That of the engine."""
        return self._engine.default_batch_tokens

    def prepare(self, batch: Sequence[EncodedText]) -> Prepared:
        """Lay out a batch; needs no turn."""
        return self._engine.prepare(batch)

    def filler(self, prepared: Prepared) -> Filler:
        """That of the engine."""
        return self._engine.filler(prepared)

    def run(self, prepared: Prepared) -> HeadOutputs:
        """Wait for the turn, then compute."""
        with self._turns.mine():
            return self._engine.run(prepared)

    def infer(self, batch: Sequence[EncodedText]) -> HeadOutputs:
        """``run(prepare(batch))``; an empty batch gives arrays of no rows."""
        if not batch:
            return self._engine.infer(batch)
        return self.run(self.prepare(batch))
