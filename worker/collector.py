"""Python's garbage collector, set for a process that makes many objects and few cycles."""

import gc

_NEW_OBJECTS = 50_000


def calm_collector() -> None:
    """Look for cycles after 50,000 new objects instead of 700; what is loaded by now is never looked at.

    Every message is a dozen objects without a cycle, and looking for cycles among those in flight took a
    quarter of the worker's time around the engine.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 100)
