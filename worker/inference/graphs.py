"""CUDA graphs for small batches: one launch for all kernels of a forward pass instead of some 150.

Not measured on a GPU, and off unless `model.cuda_graphs` is set. A graph replays fixed addresses and shapes,
so a small batch is filled up with texts of nobody until its shape is one of few, and its layout is copied to
where the graph reads it.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

import torch

_ROWS: Final = (32, 64, 128, 256, 512, 1024, 2048)
_LENGTHS: Final = (16, 32, 64, 128, 256, 512)
MOST_TOKENS: Final = _ROWS[-1]
"""From here on the products take longer than their launches."""
MOST_GRAPHS: Final = 64
"""Each keeps its activations; batches of further shapes run without one."""
_WARM_UP: Final = 2

Compute = Callable[[], torch.Tensor]
Capture = Callable[[Compute], Compute]
"""Makes of a computation on tensors that stay where they are one that computes anew what they hold then."""


def filler(lengths: Sequence[int]) -> list[int] | None:
    """Lengths of the texts that fill a batch up to one of few shapes; None for a batch that needs no graph.

    With them the batch has a number of rows from a short list, a power of two of texts, and no text longer
    than :func:`longest` says.
    """
    tokens, most = sum(lengths), longest(lengths)
    if most is None:
        return None
    texts = 1 << len(lengths).bit_length()
    while True:
        more = texts - len(lengths)
        rows = next((rows for rows in _ROWS if rows >= tokens + more), None)
        if rows is None:
            return None
        if rows - tokens <= more * most:
            each, rest = divmod(rows - tokens, more)
            return [each + 1] * rest + [each] * (more - rest)
        texts *= 2


def longest(lengths: Sequence[int]) -> int | None:
    """What the longest text counts as; None where it is too long for a graph."""
    return next((length for length in _LENGTHS if length >= max(lengths)), None)


class Graphs:
    """The graphs that were captured, by shape. Used by the engine's thread alone.

    Args:
        capture: See :data:`Capture`; ``capture_on_cuda`` but in tests.
    """

    def __init__(self, capture: Capture | None = None) -> None:
        self._capture = capture or capture_on_cuda
        self._made: dict[Hashable, tuple[list[torch.Tensor], Compute]] = {}

    def run(
        self,
        shape: Hashable,
        inputs: Sequence[torch.Tensor],
        compute: Callable[[Sequence[torch.Tensor]], torch.Tensor],
    ) -> torch.Tensor:
        """``compute(inputs)`` by the graph of this shape, which is captured where there is none yet.

        ``compute`` has to be the same for all inputs of a shape, and the inputs have to be of the same sizes.
        """
        if shape not in self._made:
            if len(self._made) >= MOST_GRAPHS:
                return compute(inputs)
            own = [tensor.clone() for tensor in inputs]
            self._made[shape] = (own, self._capture(lambda: compute(own)))
        own, replay = self._made[shape]
        for place, tensor in zip(own, inputs, strict=True):
            place.copy_(tensor)
        # The next replay writes to the same place.
        return replay().clone()


def capture_on_cuda(compute: Compute) -> Compute:
    """Capture the kernels of a computation; it runs a few times before, to choose and load them."""
    cuda: Any = torch.cuda
    warming = cuda.Stream()
    warming.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warming):
        for _ in range(_WARM_UP):
            compute()
    torch.cuda.current_stream().wait_stream(warming)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = compute()

    def replay() -> torch.Tensor:
        graph.replay()
        return output

    return replay
