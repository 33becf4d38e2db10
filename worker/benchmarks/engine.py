"""``kbert bench engine``: the engine alone, beside plain transformers and the machine's matrix product."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from worker.benchmarks.machine import describe_machine
from worker.benchmarks.transformers_peer import TransformersPeer
from worker.inference.architecture import expected_sizes
from worker.inference.config import EncoderShape
from worker.inference.devices import calm_openmp, choose_device, choose_dtype, choose_threads
from worker.inference.tokenising import EncodedText

if TYPE_CHECKING:
    import torch

    from worker.inference.torch_engine import TorchEngine

BERT_BASE: Final = EncoderShape(
    vocab_size=32_000,
    hidden_size=768,
    layers=12,
    heads=12,
    intermediate_size=3072,
    positions=512,
    token_types=2,
)
_SEED: Final = 20_250_101
_PRODUCT: Final = {"cpu": 2048, "cuda": 8192}

Report = Callable[[str], None]
Contestant = Callable[[Sequence[EncodedText]], None]


def bench_engine(
    *,
    messages: int = 256,
    repeats: int = 3,
    precision: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    max_batch_tokens: int | None = None,
    peers: bool = True,
    report: Report | None = None,
) -> dict[str, Any]:
    """Measure the engine at BERT-base size with random weights, on random tokens of chat lengths.

    Lengths are log-normal with a mean of about 23 tokens, 4 to 128. Tokenising is left out on all sides;
    collating is in. Every repeat runs every contestant once, so that a busy neighbour slows all alike; the
    figures are medians over the repeats.

    Args:
        messages: Texts a repeat.
        repeats: Interleaved repeats.
        precision: Of our engine: ``auto``, ``fp32``, ``bf16``, ``fp16``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU cores for one product; None is all that the process may use.
        max_batch_tokens: Of our engine; None is its default.
        peers: Whether to run the peers, which take most of the time.
        report: Called with a line for a person before each measurement.

    Returns:
        ``ours`` messages/s; ``ours_tokens_per_s``; ``peers`` name → messages/s; ``ratios`` name → ours
        over it; ``useful_gflops`` operations that real tokens need over our time; ``matrix_gflops`` of one
        large product in our precision in the same run; ``machine``; ``precision``; ``lengths``;
        ``bundled`` the bundled model's own rates, or None.
    """
    calm_openmp()
    import torch

    where, cores = choose_device(device), choose_threads(threads)
    dtype = choose_dtype(precision, where)
    torch.set_num_threads(cores)
    tell = report or (lambda _: None)
    machine = describe_machine(where, cores)
    texts = chat_texts(messages, BERT_BASE.vocab_size)
    tokens = sum(map(len, texts))
    tell("making weights of BERT-base size")
    state = random_state(BERT_BASE)
    engine = base_engine(state, BERT_BASE, dtype, where, cores)
    budget = max_batch_tokens or engine.default_batch_tokens
    contestants: dict[str, Contestant] = {"ours": lambda part: run_in_arrival_order(engine, part, budget)}
    if peers:
        contestants |= _peers(state, where)
    bundled = _bundled(precision, device, threads)
    if bundled is not None:
        contestants["bundled"] = bundled[1]
    for run in contestants.values():
        run(texts[:32])
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    products: list[float] = []
    for repeat in range(repeats):
        for name, run in contestants.items():
            tell(f"repeat {repeat + 1} of {repeats}: {name}")
            seconds[name].append(_seconds(partial(run, texts)))
        products.append(_matrix_gflops(dtype, where))
    rates = {name: messages / statistics.median(taken) for name, taken in seconds.items()}
    ours = rates.pop("ours")
    own = rates.pop("bundled", None)
    operations = useful_operations(BERT_BASE, [len(text) for text in texts])
    return {
        "ours": round(ours, 2),
        "ours_tokens_per_s": round(ours * tokens / messages, 1),
        "peers": {name: round(rate, 2) for name, rate in rates.items()},
        "ratios": {name: round(ours / rate, 2) for name, rate in rates.items()},
        "useful_gflops": round(operations * ours / messages / 1e9, 1),
        "matrix_gflops": round(statistics.median(products), 1),
        "precision": str(dtype).removeprefix("torch."),
        "max_batch_tokens": budget,
        "machine": machine,
        "lengths": {"messages": messages, "mean": round(tokens / messages, 1), "repeats": repeats},
        "bundled": None
        if bundled is None or own is None
        else {"name": bundled[0], "messages_per_s": round(own, 1)},
    }


def chat_texts(count: int, vocab_size: int) -> list[EncodedText]:
    """Random tokens of chat lengths, the same each time."""
    drawn = np.random.default_rng(_SEED)
    lengths = np.clip(drawn.lognormal(np.log(23.5) - 0.18, 0.6, count).round(), 4, 128).astype(int)
    return [
        EncodedText(drawn.integers(5, vocab_size, length).astype(np.int32), False)
        for length in lengths.tolist()
    ]


def useful_operations(shape: EncoderShape, lengths: Sequence[int]) -> float:
    """Multiplications and additions that these sequences need for the first token's last hidden state.

    Padding counts for nothing, and neither does what the last layer need not compute.
    """
    sizes = np.asarray(lengths, dtype=np.float64)
    tokens, count, squares = sizes.sum(), len(sizes), (sizes**2).sum()
    hidden, inner = shape.hidden_size, shape.intermediate_size
    per_token = 2 * (4 * hidden * hidden + 2 * hidden * inner)
    all_rows = tokens * per_token + 4 * squares * hidden
    keys_values = 2 * 2 * hidden * hidden
    last = tokens * keys_values + count * (per_token - keys_values) + 4 * tokens * hidden
    return float((shape.layers - 1) * all_rows + last)


def run_in_arrival_order(engine: "TorchEngine", texts: Sequence[EncodedText], budget: int) -> None:
    """Batches as the batcher makes them: in arrival order, up to a budget of tokens."""
    batch: list[EncodedText] = []
    filled = 0
    for text in texts:
        if batch and filled + len(text) > budget:
            engine.infer(batch)
            batch, filled = [], 0
        batch.append(text)
        filled += len(text)
    engine.infer(batch)


def _peers(state: "dict[str, torch.Tensor]", device: "torch.device") -> dict[str, Contestant]:
    import torch

    found: dict[str, Contestant] = {}
    for label, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        peer = TransformersPeer(state, BERT_BASE, dtype, device)
        for order, in_order in (("arrival order", True), ("sorted in windows of 256", False)):
            name = f"transformers {label}, {order}, batch 32 padded"
            found[name] = partial(peer.classify, in_order=in_order)
    return found


def _bundled(precision: str, device: str, threads: int | None) -> tuple[str, Contestant] | None:
    """The model that ships, on the same lengths; ids beyond its vocabulary wrap round."""
    from worker.inference.load import BUNDLED, load_model

    if not (BUNDLED / "crypto" / "config.json").is_file():
        return None
    model = load_model(precision=precision, device=device, threads=threads)

    def run(texts: Sequence[EncodedText]) -> None:
        known = [EncodedText(text.ids % model.tokeniser.vocab_size, False) for text in texts]
        run_in_arrival_order(model.engine, known, model.default_batch_tokens)

    return model.info.name, run


def base_engine(
    state: "dict[str, torch.Tensor]",
    shape: EncoderShape,
    dtype: "torch.dtype",
    device: "torch.device",
    threads: int,
) -> "TorchEngine":
    """Our engine with the crypto heads on the first token, as the published checkpoints have them."""
    from worker.inference.torch_engine import TorchEngine

    return TorchEngine(
        state, shape, head_set="crypto", pooling="cls", dtype=dtype, device=device, threads=threads
    )


def random_state(shape: EncoderShape) -> "dict[str, torch.Tensor]":
    """Weights of a crypto checkpoint, drawn as BERT's are before training."""
    import torch

    generator = torch.Generator().manual_seed(_SEED)
    state = {
        name: torch.empty(size).normal_(0.0, 0.02, generator=generator)
        for name, size in expected_sizes(shape, "crypto").items()
    }
    for name, tensor in state.items():
        if name.endswith("LayerNorm.weight"):
            tensor.add_(1.0)
    return state


def _matrix_gflops(dtype: "torch.dtype", device: "torch.device") -> float:
    """The faster of torch's product and the engine's own kernel, on one large square product."""
    import torch

    from worker.inference.linears import make_linear

    size = _PRODUCT[device.type]
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    linear = make_linear(right, torch.zeros(size, device=device, dtype=dtype), "gelu")

    def settled(product: Callable[[], torch.Tensor]) -> Callable[[], None]:
        def run() -> None:
            product()[0, 0].item()

        return run

    best = 0.0
    with torch.inference_mode():
        for run in (settled(lambda: left @ right.T), settled(lambda: linear(left))):
            run()
            taken = statistics.median(_seconds(run) for _ in range(5))
            best = max(best, 2 * size**3 / taken / 1e9)
    return best


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
