"""CUDA graphs for small batches: one launch for all kernels of a forward pass instead of some 150.

Not measured on a GPU, and off unless `model.cuda_graphs` is set. A graph replays fixed addresses and shapes,
so a small batch is filled up with texts of nobody until its shape is one of few, and its layout is copied to
where the graph reads it.
"""

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

import structlog
import torch

_ROWS: Final = (32, 64, 128, 256, 512, 1024, 2048)
_LENGTHS: Final = (16, 32, 64, 128, 256, 512)
MOST_TOKENS: Final = _ROWS[-1]
"""From here on the products take longer than their launches."""
MOST_GRAPHS: Final = 64
"""Each keeps its activations; batches of further shapes run without one."""
_WARM_UP: Final = 2

_capturing = threading.Lock()
_log = structlog.get_logger(__name__)

Compute = Callable[[], torch.Tensor]
Capture = Callable[[Compute], Compute]
"""Makes of a computation on tensors that stay where they are one that computes anew what they hold then."""


def filler(lengths: Sequence[int], positions: int) -> list[int] | None:
    """Lengths of the texts that fill a batch up to one of few shapes; None for a batch that needs no graph.

    With them the batch has a number of rows from a short list, a power of two of texts, and no text longer
    than :func:`longest` says, nor than the encoder has positions.
    """
    tokens, bound = sum(lengths), longest(lengths)
    if bound is None:
        return None
    # A position beyond the table ends CUDA for the process.
    most = min(bound, positions)
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
        capture: See :data:`Capture`; a :class:`CudaCapture` but in tests.
    """

    def __init__(self, capture: Capture) -> None:
        self._capture = capture
        self._made: dict[Hashable, tuple[list[torch.Tensor], Compute]] = {}
        self._refused: set[Hashable] = set()

    def __len__(self) -> int:
        return len(self._made)

    def run(
        self,
        shape: Hashable,
        inputs: Sequence[torch.Tensor],
        compute: Callable[[Sequence[torch.Tensor]], torch.Tensor],
    ) -> torch.Tensor:
        """``compute(inputs)`` by the graph of this shape, which is captured where there is none yet.

        ``compute`` has to be the same for all inputs of a shape, and the inputs have to be of the same sizes.
        A shape that cannot be captured runs without a graph from then on, which the log says.
        """
        if shape not in self._made and (shape in self._refused or not self._make(shape, inputs, compute)):
            return compute(inputs)
        own, replay = self._made[shape]
        for place, tensor in zip(own, inputs, strict=True):
            place.copy_(tensor)
        # The next replay writes to the same place.
        return replay().clone()

    def _make(
        self,
        shape: Hashable,
        inputs: Sequence[torch.Tensor],
        compute: Callable[[Sequence[torch.Tensor]], torch.Tensor],
    ) -> bool:
        if len(self._made) >= MOST_GRAPHS:
            return False
        own = [tensor.clone() for tensor in inputs]
        try:
            replay = self._capture(lambda: compute(own))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._refused.add(shape)
            _log.warning("engine.graph_refused", shape=shape, error=str(error))
            return False
        self._made[shape] = (own, replay)
        return True


class CudaCapture:
    """Captures on one device, in one stream and one pool of memory for all graphs of an engine.

    ``torch.cuda.graph`` would do, but it empties the caches of memory at each capture, which happens between
    batches, and knows one capture in a process. The mode is that of one thread: the next batch is laid out
    in another thread meanwhile, whose pinned memory would break a capture in the global mode.
    """

    def __init__(self, device: torch.device) -> None:
        cuda: Any = torch.cuda
        self._device = device
        self._stream = cuda.Stream(device)
        self._pool = cuda.graph_pool_handle()

    def __call__(self, compute: Compute) -> Compute:
        """Capture a computation, which runs a few times before, so that its kernels are chosen and loaded."""
        graph = torch.cuda.CUDAGraph()
        with _capturing, torch.cuda.device(self._device):
            outside = torch.cuda.current_stream()
            self._stream.wait_stream(outside)
            with torch.cuda.stream(self._stream):
                for _ in range(_WARM_UP):
                    compute()
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    output = compute()
                finally:
                    graph.capture_end()
            outside.wait_stream(self._stream)

        def replay() -> torch.Tensor:
            graph.replay()
            return output

        return replay
