"""The engine on torch: CPU or one CUDA device, one precision."""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from worker.inference.architecture import HEADS
from worker.inference.attention import Attention, VarlenAttention, attends_by_varlen, make_attention
from worker.inference.config import EncoderShape, HeadSet, Pooling
from worker.inference.devices import keep_freed_memory
from worker.inference.encoder import Encoder
from worker.inference.engine import Filler, HeadOutputs
from worker.inference.errors import DeviceError, EngineOutOfMemory
from worker.inference.graphs import Graphs, filler, longest
from worker.inference.kernels import FloatKernels, Kernels
from worker.inference.lanes import Lanes, set_threads
from worker.inference.packing import Packing, pack, share, split
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
_LANE_TOKENS: Final = 48
"""With fewer tokens for each lane, one core computes the batch alone."""
_TOGETHER_TOKENS: Final = 256
"""From so many on all cores share a part that is alone, such as one long text. Sharing a smaller one costs
more than it saves, because cores that wait sleep: 25 tokens took the bundled model 18.9 ms on two cores of a
Xeon and 8.2 on one; 390 tokens 41 and 39, and at BERT-base size 106 and 157."""
_TOGETHER_PRODUCT: Final = 48 * 384 * 384
"""The same for products in floats, which pay sooner: tokens times the square of the hidden size. In fp32 20
tokens took the bundled model 14.7 ms on two cores and 11.8 on one, 40 tokens 17.0 and 15.2, 80 tokens 21.2
and 23.2; at BERT-base size two were ahead from the first."""
_CPU_BATCH_TOKENS: Final = (1024, 16384)
_CUDA_BATCH_TOKENS: Final = 16384
_OUT_OF_MEMORY: Final = ("out of memory", "not enough memory", "can't allocate memory")


@dataclass(frozen=True, slots=True)
class _Part:
    numbers: npt.NDArray[np.int64]
    """Of its texts in the batch."""
    tokens: int
    """Of these texts."""
    packing: Packing
    inputs: tuple[torch.Tensor, ...]
    """Token ids, positions, starts, owners and lengths, as :meth:`TorchEngine._computed` takes them."""
    attention: Attention
    layout: tuple[torch.Tensor, ...]
    """Of the attention, where a graph computes the part; else empty."""
    longest: int


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
        graphs: For small batches on CUDA; None launches every kernel by itself.
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
        graphs: Graphs | None = None,
    ) -> None:
        self._graphs = graphs
        self._heads, self._positions = shape.heads, shape.positions
        self._hidden = shape.hidden_size
        self._mean = pooling == "mean"
        self._device, self._threads = device, threads
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
            keep_freed_memory()
            least, most = _CPU_BATCH_TOKENS
            # int8 on two cores: 5,080 tokens/s in batches of 1,024, 5,952 of 2,048, 6,084 of 4,096.
            self.default_batch_tokens = min(most, max(least, 1024 * threads))
            self.description += f", {threads} threads"
        self._varlen = attends_by_varlen(dtype, device, shape.hidden_size // shape.heads)
        if self._varlen:
            # Its first import takes a second, which the first batch would wait.
            importlib.import_module("torch.nn.attention.varlen")
        if graphs is not None:
            if not self._varlen:
                raise DeviceError(
                    "Setting `model.cuda_graphs`: it needs a GPU of compute capability 8.0 or more, and "
                    "bf16, fp16 or fp8; switch it off."
                )
            self.description += ", CUDA graphs"
        # Other products take so long that the cores lose nothing by sharing each.
        laned = self.precision == "int8" and threads > 1
        self._lanes = Lanes(threads, threads) if laned else None
        cuda: Any = torch.cuda
        self._copies = cuda.Stream(device) if device.type == "cuda" else None

    @property
    def captured(self) -> int:
        """Graphs that were captured so far."""
        return len(self._graphs) if self._graphs is not None else 0

    def prepare(self, batch: Sequence[EncodedText], *, by_graph: bool = True) -> PreparedBatch:
        """Lay out a batch of at least one text; runs in any thread.

        ``by_graph`` false launches every kernel by itself, also where the engine has graphs.
        """
        with torch.inference_mode(), _memory_errors():
            lengths = [len(text.ids) for text in batch]
            with nullcontext() if self._copies is None else torch.cuda.stream(self._copies):
                parts = tuple(
                    self._part([batch[number] for number in numbers], numbers, by_graph)
                    for numbers in self._divided(lengths)
                )
                ready = None if self._copies is None else self._copies.record_event()
            return PreparedBatch(len(batch), sum(lengths), parts, ready)

    def filler(self, prepared: PreparedBatch) -> Filler:
        """Rows that round a part up, and padding in the tiles of attention."""
        return Filler(
            rows=sum(part.packing.rows - part.tokens for part in prepared.parts),
            attention=sum(len(part.packing.gather) - part.tokens for part in prepared.parts),
        )

    def run(self, prepared: PreparedBatch) -> HeadOutputs:
        """Compute a batch; always in the same thread.

        Raises:
            EngineOutOfMemory: It did not fit; a smaller one may.
            FloatingPointError: An output is no number.
        """
        set_threads(1 if self._computes_alone(prepared.tokens) else self._threads)
        with torch.inference_mode(), _memory_errors():
            if prepared.ready is not None:
                torch.cuda.current_stream(self._device).wait_event(prepared.ready)
            if self._lanes is not None and len(prepared.parts) > 1:
                computed = self._lanes.map(self._in_lane, prepared.parts)
            else:
                computed = [self._heads_of(part) for part in prepared.parts]
            outputs = np.empty((prepared.size, len(self._head_bias)), dtype=np.float32)
            for part, values in zip(prepared.parts, computed, strict=True):
                outputs[part.numbers] = values.cpu().numpy()[: len(part.numbers)]
        if not np.isfinite(outputs).all():
            raise FloatingPointError("The heads gave NaN or infinity; fp32 has a wider range than fp16.")
        return {name: outputs[:, columns] for name, columns in self._columns.items()}

    def infer(self, batch: Sequence[EncodedText], *, by_graph: bool = True) -> HeadOutputs:
        """Prepare and run; an empty batch gives arrays of no rows."""
        if not batch:
            nothing = np.empty((0, len(self._head_bias)), dtype=np.float32)
            return {name: nothing[:, columns] for name, columns in self._columns.items()}
        return self.run(self.prepare(batch, by_graph=by_graph))

    def _computes_alone(self, tokens: int) -> bool:
        """Whether one core takes a batch of so many tokens."""
        if self._lanes is not None:
            return tokens < _TOGETHER_TOKENS
        return self._device.type == "cpu" and tokens * self._hidden**2 < _TOGETHER_PRODUCT

    def _divided(self, lengths: Sequence[int]) -> list[npt.NDArray[np.int64]]:
        """The texts of each part: as many parts as lanes, or a multiple, where there are lanes."""
        if self._lanes is None or sum(lengths) < _LANE_TOKENS * self._threads:
            return split(lengths, self._part_tokens)
        rounds = -(-sum(lengths) // (self._part_tokens * self._threads))
        return share(lengths, rounds * self._threads)

    def _in_lane(self, part: _Part) -> torch.Tensor:
        with torch.inference_mode():
            return self._heads_of(part)

    def _part(self, texts: Sequence[EncodedText], numbers: npt.NDArray[np.int64], by_graph: bool, /) -> _Part:
        rows = [text.ids for text in texts]
        tokens = sum(map(len, rows))
        by_graph = by_graph and self._graphs is not None
        more = filler([len(row) for row in rows], self._positions) if by_graph else None
        rows += [np.zeros(length, dtype=np.int32) for length in more or ()]
        lengths = [len(row) for row in rows]
        packing = pack(lengths)
        ids = np.zeros(packing.rows, dtype=np.int64)
        np.concatenate([rows[at] for at in packing.order], out=ids[: packing.tokens])
        layout: tuple[torch.Tensor, ...] = ()
        most = 0
        if more is not None:
            layout, most = VarlenAttention.laid_out(packing, self._place), longest(lengths) or 0
            attention: Attention = VarlenAttention(layout, self._heads, packing.tokens, most)
        else:
            attention = make_attention(packing, self._heads, self._place, varlen=self._varlen)
        arrays: list[npt.NDArray[Any]] = [ids, packing.positions, packing.starts, packing.owners]
        arrays.append(np.array(lengths, dtype=np.float32))
        inputs = tuple(self._place(array) for array in arrays)
        return _Part(numbers, tokens, packing, inputs, attention, layout, most)

    def _place(self, array: npt.NDArray[Any]) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _heads_of(self, part: _Part) -> torch.Tensor:
        """``[n, all heads side by side]``, float32; with a graph more rows than texts."""
        if not part.layout or self._graphs is None:
            return self._computed(part.inputs, part.attention, part.packing.tokens)
        rows, count, most = part.packing.rows, len(part.packing.starts), part.longest
        few = len(part.inputs)

        def compute(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
            attention = VarlenAttention(tensors[few:], self._heads, rows, most)
            return self._computed(tensors[:few], attention, rows)

        return self._graphs.run((rows, count, most), (*part.inputs, *part.layout), compute)

    def _computed(self, inputs: Sequence[torch.Tensor], attention: Attention, tokens: int) -> torch.Tensor:
        ids, positions, starts, owners, lengths = inputs
        hidden = self._encoder(ids, positions, starts, attention).to(torch.float32)
        if self._mean:
            sums = hidden.new_zeros(len(starts), hidden.shape[1])
            hidden = sums.index_add_(0, owners, hidden[:tokens]) / lengths[:, None]
        if self._pooler is not None:
            hidden = torch.tanh(torch.nn.functional.linear(hidden, *self._pooler))
        return torch.nn.functional.linear(hidden, self._head_weight, self._head_bias)


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
