"""An engine in the precision that is asked for, or in the fastest that keeps the answers.

On a CPU ``auto`` times one layer of the model in each precision that the processor has instructions for. bf16
or int8 is taken only when its answers on the sample messages that ship are those of fp32: what a checkpoint
loses depends on its weights, so nothing but a look at its own answers can tell. Where int8 loses too much,
the feed-forward of some layers, which loses most, stays in floats.
"""

import gzip
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch

from worker.inference.attention import TiledAttention
from worker.inference.config import EncoderShape, HeadSet
from worker.inference.devices import bf16_pays, choose_dtype, multiplies_bf16
from worker.inference.encoder import Encoder, feed_forward_name
from worker.inference.engine import HeadOutputs
from worker.inference.errors import DeviceError
from worker.inference.fp8 import Fp8Kernels
from worker.inference.int8 import int8_runs
from worker.inference.kernels import FloatKernels, Int8Kernels, Kernels, ObservingKernels, Ranges
from worker.inference.packing import pack
from worker.inference.tokenising import EncodedText
from worker.inference.torch_engine import TorchEngine

SAME_LABELS: Final = 0.99
"""Share of fp32's labels that a precision has to keep before ``auto`` takes it."""
MOST_CHANGE: Final = 0.01
"""Mean absolute change of a score, likewise."""
WORTH: Final = 1.1
"""A coarser precision has to be so many times as fast; less may be the noise of a busy machine."""
_SAMPLES: Final = Path(__file__).parent.parent / "bundled" / "samples"
_OBSERVED_TOKENS: Final = 8192
_CHECKED_TOKENS: Final = 16384
_TIMED: Final = (44, 23)
"""Sequences and tokens of each, a batch of chat; the vocabulary is cut down to it."""
_TIMED_RUNS: Final = 4
_LEFT: Final = (0.0, 0.25, 0.5)
"""Shares of the layers whose feed-forward ``auto`` leaves in floats, in turn until the answers hold. Those in
the middle: there int8 changed the bundled model's scores by 0.0008 a layer, in the last two by 0.0003 and
0.0002, since pooling averages over what comes late."""
_GRAPH_BATCHES: Final = (1, 3, 12, 40)


class MakeEngine(Protocol):
    """All of an engine but its precision."""

    def __call__(self, dtype: torch.dtype, kernels: Kernels | None) -> TorchEngine:
        """Make it."""
        ...


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near two engines' answers are."""

    same_labels: float
    """Share of equal argmax labels over all heads with a softmax."""
    change: float
    """Mean absolute difference of scores: probabilities, and graded outputs as they are."""

    @property
    def holds(self) -> bool:
        """Whether one may stand for the other."""
        return self.same_labels >= SAME_LABELS and self.change < MOST_CHANGE

    def __str__(self) -> str:
        """For a log line."""
        return f"{self.same_labels:.1%} of the labels of the samples, scores change by {self.change:.4f}"


def engine_of(
    asked: str,
    make: MakeEngine,
    samples: Callable[[], Sequence[EncodedText]],
    state: Mapping[str, torch.Tensor],
    shape: EncoderShape,
    *,
    device: torch.device,
    threads: int,
) -> TorchEngine:
    """Make an engine.

    Args:
        asked: The setting ``model.precision``.
        make: Makes one.
        samples: Texts as the engine will see them; asked for only where another precision than fp32 is
            considered.
        state: Checked float32 parameters.
        shape: Sizes of the encoder.
        device: Where to compute.
        threads: Cores for one product, on a CPU.

    Raises:
        DeviceError: The precision is unknown, or the device does not have it.
    """
    dtype = choose_dtype(asked, device)
    if asked == "fp8":
        return make(dtype, Fp8Kernels(shape.activation, dtype, device))
    if device.type != "cpu" or asked not in ("auto", "int8"):
        return make(dtype, None)
    if asked == "int8":
        if not int8_runs():
            raise DeviceError(
                "Setting `model.precision`: int8 needs an x86 CPU with VNNI or AMX; use auto, bf16 or fp32."
            )
        return make(dtype, Int8Kernels(shape.activation, dtype, _observed(make, samples(), shape, dtype)))
    speeds = layer_speeds(state, shape, threads)
    told = ["tokens/s of one layer: " + ", ".join(f"{name} {speed:.0f}" for name, speed in speeds.items())]
    chosen, dtype, fastest = make(torch.float32, None), torch.float32, speeds["fp32"]
    if max(speeds.values()) > WORTH * fastest:
        seen = samples()
        unseen = _first(seen[1::2], _CHECKED_TOKENS)
        exact = chosen.infer(unseen)

        def holds(coarse: TorchEngine, name: str) -> bool:
            agreement = compare(exact, coarse.infer(unseen))
            told.append(f"{name} keeps {agreement}")
            return agreement.holds

        if speeds.get("bf16", 0.0) > WORTH * fastest and holds(half := make(torch.bfloat16, None), "bf16"):
            chosen, dtype, fastest = half, torch.bfloat16, speeds["bf16"]
        if speeds.get("int8", 0.0) > WORTH * fastest:
            ranges = _observed(make, seen[::2], shape, dtype)
            for count in sorted({round(shape.layers * share) for share in _LEFT}):
                if _mixed_speed(speeds["int8"], fastest, count / shape.layers) <= WORTH * fastest:
                    break
                left = _middle(shape.layers, count)
                names = frozenset(map(feed_forward_name, left))
                coarse = make(dtype, Int8Kernels(shape.activation, dtype, ranges, names))
                if holds(coarse, _int8_but(left)):
                    chosen = coarse
                    break
    chosen.description += f" ({'; '.join(told)})"
    return chosen


def _middle(layers: int, count: int) -> range:
    """So many of the layers, by number."""
    first = (layers - count) // 2
    return range(first, first + count)


def _mixed_speed(int8: float, floats: float, left: float) -> float:
    """Tokens/s where that share of the layers keeps its feed-forward, two thirds of its work, in floats."""
    return 1 / ((1 - left * 2 / 3) / int8 + left * 2 / 3 / floats)


def check_graphs(engine: TorchEngine, samples: Sequence[EncodedText]) -> None:
    """Run small batches of the samples with and without graphs, twice, so that captured graphs are replayed.

    Raises:
        DeviceError: The answers differ, or no graph could be captured.
    """
    for count in _GRAPH_BATCHES:
        for batch in (samples[:count], samples[count : 2 * count]):
            found = compare(engine.infer(batch, by_graph=False), engine.infer(batch))
            if not found.change < MOST_CHANGE:
                raise DeviceError(
                    f"Setting `model.cuda_graphs`: graphs change scores of {count} texts by "
                    f"{found.change:.4f} on average on this GPU; switch it off."
                )
    if not engine.captured:
        raise DeviceError(
            "Setting `model.cuda_graphs`: no graph could be captured (the log says why); switch it off."
        )


def compare(exact: HeadOutputs, coarse: HeadOutputs) -> Agreement:
    """How near the outputs of two engines for the same texts are."""
    same: list[npt.NDArray[Any]] = []
    changes: list[npt.NDArray[Any]] = []
    for name, values in exact.items():
        left, right = (torch.from_numpy(array).double() for array in (values, coarse[name]))
        if name == "logits_emo":
            left, right = left.sigmoid(), right.sigmoid()
        elif name == "pred_reg":
            left, right = left.clamp(0, 1), right.clamp(0, 1)
        else:
            left, right = left.softmax(-1), right.softmax(-1)
            same.append((left.argmax(-1) == right.argmax(-1)).numpy())
        changes.append((left - right).abs().flatten().numpy())
    return Agreement(float(np.concatenate(same).mean()), float(np.concatenate(changes).mean()))


def sample_texts(head_set: HeadSet, separator: str) -> list[str]:
    """The sample messages that ship, as the pipeline of the head set would hand them to the tokeniser."""
    with gzip.open(_SAMPLES / f"{head_set}.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    if head_set == "traffic":
        return [
            f"{row['title']} {separator} {row['body']}" for row in rows if "title" in row and "body" in row
        ]
    return [row["text"] for row in rows if "text" in row]


def layer_speeds(state: Mapping[str, torch.Tensor], shape: EncoderShape, threads: int) -> dict[str, float]:
    """Tokens a second through the model's first layer, by precision; those that pay on this processor."""
    count, length = _TIMED
    packing = pack([length] * count)
    ids = torch.arange(packing.rows) % min(shape.vocab_size, packing.rows)
    words = "bert.embeddings.word_embeddings.weight"
    few = {**state, words: state[words][: packing.rows]}
    single = replace(shape, layers=1)
    cpu = torch.device("cpu")
    positions = torch.from_numpy(packing.positions) % shape.positions
    attention = TiledAttention(packing, shape.heads, torch.from_numpy)

    def encoder(kernels: Kernels, dtype: torch.dtype) -> Callable[[], torch.Tensor]:
        made = Encoder(few, single, kernels, dtype=dtype, device=cpu, first_rows_only=False)
        return lambda: made(ids, positions, torch.from_numpy(packing.starts), attention)

    runs: dict[str, Callable[[], torch.Tensor]] = {}
    with torch.inference_mode(), _threads(threads):
        outer = torch.bfloat16 if bf16_pays() else torch.float32
        runs["fp32"] = encoder(FloatKernels(shape.activation, torch.float32, cpu), torch.float32)
        if multiplies_bf16():
            half = torch.bfloat16
            runs["bf16"] = encoder(FloatKernels(shape.activation, half, cpu), half)
        if int8_runs():
            observing = ObservingKernels(shape.activation, outer)
            encoder(observing, outer)()
            runs["int8"] = encoder(Int8Kernels(shape.activation, outer, observing.ranges), outer)
        taken: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(_TIMED_RUNS):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                taken[name].append(time.perf_counter() - start)
    # The fastest of each: a neighbour can only slow a run down.
    return {name: packing.tokens / min(seconds) for name, seconds in taken.items()}


def _int8_but(left: range) -> str:
    layers = ", ".join(map(str, left))
    return f"int8, the feed-forward of layers {layers} apart," if left else "int8"


def _observed(
    make: MakeEngine, samples: Sequence[EncodedText], shape: EncoderShape, dtype: torch.dtype
) -> Ranges:
    observing = ObservingKernels(shape.activation, dtype)
    make(dtype, observing).infer(_first(samples, _OBSERVED_TOKENS))
    return observing.ranges


def _first(texts: Sequence[EncodedText], tokens: int) -> Sequence[EncodedText]:
    ends = np.cumsum([len(text) for text in texts])
    return texts[: max(1, int(np.searchsorted(ends, tokens)))]


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
