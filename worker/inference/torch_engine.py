"""The engine on torch: CPU or one CUDA device, one precision."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from worker.inference.architecture import HEADS
from worker.inference.attention import Attention, make_attention
from worker.inference.config import EncoderShape, HeadSet, Pooling
from worker.inference.encoder import Encoder
from worker.inference.engine import Filler, HeadOutputs
from worker.inference.errors import EngineOutOfMemory
from worker.inference.kernels import FloatKernels, Kernels
from worker.inference.packing import Packing, pack, split
from worker.inference.tokenising import EncodedText

OUTPUT_NAMES: Final = {
    "head_senti": "logits_senti",
    "head_act": "logits_act",
    "head_emo": "logits_emo",
    "head_reg": "pred_reg",
    "classifier": "logits",
}
"""Parameter prefix of a head → name of its output, as the published models call them."""

_CPU_PART_BYTES: Final = (12 << 20, 28 << 20)
_CUDA_PART_TOKENS: Final = 1 << 17
_CPU_BATCH_TOKENS: Final = (1024, 16384)
_CUDA_BATCH_TOKENS: Final = 16384
_OUT_OF_MEMORY: Final = ("out of memory", "not enough memory", "can't allocate memory")


@dataclass(frozen=True, slots=True)
class _Part:
    numbers: npt.NDArray[np.int64]
    packing: Packing
    ids: torch.Tensor
    positions: torch.Tensor
    starts: torch.Tensor
    owners: torch.Tensor
    attention: Attention


@dataclass(frozen=True, slots=True)
class PreparedBatch:
    """A batch laid out for the device."""

    size: int
    """Texts."""
    tokens: int
    parts: tuple[_Part, ...]
    ready: Any
    """CUDA event after the copies; None on a CPU."""


class TorchEngine:
    """Encoder, pooling and heads.

    Args:
        state: Checked float32 parameters.
        shape: Sizes of the encoder.
        head_set: Which heads to compute.
        pooling: What the heads read; traffic reads it through the pooler.
        dtype: Precision of the encoder; pooling and heads are float32.
        device: Where to compute.
        threads: Cores for one product, on a CPU.
        kernels: Of the encoder's linear layers; None computes them in ``dtype``.
    """

    def __init__(
        self,
        state: Mapping[str, torch.Tensor],
        shape: EncoderShape,
        *,
        head_set: HeadSet,
        pooling: Pooling,
        dtype: torch.dtype,
        device: torch.device,
        threads: int,
        kernels: Kernels | None = None,
    ) -> None:
        self._heads = shape.heads
        self._mean = pooling == "mean"
        self._dtype, self._device, self._threads = dtype, device, threads
        self._bound_to: int | None = None
        with torch.inference_mode(), _memory_errors():
            kernels = kernels or FloatKernels(shape.activation, dtype, device)
            self._encoder = Encoder(
                state, shape, kernels, dtype=dtype, device=device, first_rows_only=not self._mean
            )
            self._pooler = None
            if head_set == "traffic":
                dense = "bert.pooler.dense"
                self._pooler = (state[f"{dense}.weight"].to(device), state[f"{dense}.bias"].to(device))
            names = HEADS[head_set]
            self._head_weight = torch.cat([state[f"{name}.weight"] for name in names]).to(device)
            self._head_bias = torch.cat([state[f"{name}.bias"] for name in names]).to(device)
        self._columns = _columns(names)
        self._part_tokens = _part_tokens(shape, dtype, device, threads)
        self.default_batch_tokens = _CUDA_BATCH_TOKENS
        self.precision = kernels.precision
        self.description = f"torch {torch.__version__} on {device} in {self.precision}"
        if device.type == "cpu":
            least, most = _CPU_BATCH_TOKENS
            # int8 on two cores: 5,080 tokens/s in batches of 1,024, 5,952 of 2,048, 6,084 of 4,096.
            self.default_batch_tokens = min(most, max(least, 1024 * threads))
            self.description += f", {threads} threads"
        cuda: Any = torch.cuda
        self._copies = cuda.Stream(device) if device.type == "cuda" else None

    def prepare(self, batch: Sequence[EncodedText]) -> PreparedBatch:
        """Lay out a batch of at least one text; runs in any thread."""
        with torch.inference_mode(), _memory_errors():
            lengths = [len(text.ids) for text in batch]
            with nullcontext() if self._copies is None else torch.cuda.stream(self._copies):
                parts = tuple(self._part(batch, numbers) for numbers in split(lengths, self._part_tokens))
                ready = None if self._copies is None else self._copies.record_event()
            return PreparedBatch(len(batch), sum(lengths), parts, ready)

    def filler(self, prepared: PreparedBatch) -> Filler:
        """Rows that round a part up, and padding in the tiles of attention."""
        packings = [part.packing for part in prepared.parts]
        return Filler(
            rows=sum(packing.rows - packing.tokens for packing in packings),
            attention=sum(len(packing.gather) - packing.tokens for packing in packings),
        )

    def run(self, prepared: PreparedBatch) -> HeadOutputs:
        """Compute a batch; always in the same thread.

        Raises:
            EngineOutOfMemory: It did not fit; a smaller one may.
            FloatingPointError: An output is no number.
        """
        self._bind()
        with torch.inference_mode(), _memory_errors():
            if prepared.ready is not None:
                torch.cuda.current_stream(self._device).wait_event(prepared.ready)
            computed = [self._heads_of(part) for part in prepared.parts]
            outputs = np.empty((prepared.size, len(self._head_bias)), dtype=np.float32)
            for part, values in zip(prepared.parts, computed, strict=True):
                outputs[part.numbers] = values.cpu().numpy()
        if not np.isfinite(outputs).all():
            raise FloatingPointError("The heads gave NaN or infinity; fp32 has a wider range than fp16.")
        return {name: outputs[:, columns] for name, columns in self._columns.items()}

    def infer(self, batch: Sequence[EncodedText]) -> HeadOutputs:
        """Prepare and run; an empty batch gives arrays of no rows."""
        if not batch:
            nothing = np.empty((0, len(self._head_bias)), dtype=np.float32)
            return {name: nothing[:, columns] for name, columns in self._columns.items()}
        return self.run(self.prepare(batch))

    def _bind(self) -> None:
        """OpenMP's thread count belongs to the thread that calls it."""
        if self._bound_to != threading.get_ident():
            torch.set_num_threads(self._threads)
            self._bound_to = threading.get_ident()

    def _part(self, batch: Sequence[EncodedText], numbers: npt.NDArray[np.int64]) -> _Part:
        packing = pack([len(batch[number].ids) for number in numbers])
        ids = np.zeros(packing.rows, dtype=np.int64)
        np.concatenate([batch[numbers[at]].ids for at in packing.order], out=ids[: packing.tokens])
        return _Part(
            numbers=numbers,
            packing=packing,
            ids=self._place(ids),
            positions=self._place(packing.positions),
            starts=self._place(packing.starts),
            owners=self._place(packing.owners),
            attention=make_attention(packing, self._heads, self._dtype, self._place, self._device.type),
        )

    def _place(self, array: npt.NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _heads_of(self, part: _Part) -> torch.Tensor:
        """``[n, all heads side by side]``, float32."""
        hidden = self._encoder(part.ids, part.positions, part.starts, part.attention).to(torch.float32)
        if self._mean:
            hidden = _mean_rows(hidden[: part.packing.tokens], part.owners, len(part.numbers))
        if self._pooler is not None:
            hidden = torch.tanh(torch.nn.functional.linear(hidden, *self._pooler))
        return torch.nn.functional.linear(hidden, self._head_weight, self._head_bias)


def _mean_rows(hidden: torch.Tensor, owners: torch.Tensor, count: int) -> torch.Tensor:
    sums = hidden.new_zeros(count, hidden.shape[1]).index_add_(0, owners, hidden)
    return sums / torch.bincount(owners, minlength=count)[:, None]


def _part_tokens(shape: EncoderShape, dtype: torch.dtype, device: torch.device, threads: int) -> int:
    """Tokens that go through all layers together.

    On a CPU the activations of a part stay in cache. Those over 32 MiB would also be mapped and zeroed anew
    by the C library each time: fp32, 4096 tokens: 335 GFLOP/s instead of 430.
    """
    if device.type != "cpu":
        return _CUDA_PART_TOKENS
    least, most = _CPU_PART_BYTES
    widest = max(shape.intermediate_size, 3 * shape.hidden_size) * dtype.itemsize
    return max(256, min(most, least * max(1, threads // 4)) // widest)


def _columns(names: Mapping[str, int]) -> dict[str, slice]:
    columns, start = {}, 0
    for name, size in names.items():
        columns[OUTPUT_NAMES[name]] = slice(start, start + size)
        start += size
    return columns


@contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise EngineOutOfMemory(str(error)) from error
    except RuntimeError as error:
        if any(sign in str(error).lower() for sign in _OUT_OF_MEMORY):
            raise EngineOutOfMemory(str(error)) from error
        raise
