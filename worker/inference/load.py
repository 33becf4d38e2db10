"""One call from a name to a model that classifies."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from schemas.signals import ModelInfo
from worker.inference.checkpoint import Checkpoint, load_checkpoint, resolve
from worker.inference.config import HeadSet, KbertConfig
from worker.inference.devices import (
    calm_openmp,
    check_graphs_device,
    choose_device,
    choose_dtype,
    choose_threads,
)
from worker.inference.engine import HeadOutputs
from worker.inference.errors import CheckpointError, DeviceError, EngineOutOfMemory
from worker.inference.heads import decode_crypto, decode_traffic
from worker.inference.tokenising import EncodedText, Tokeniser, load_tokeniser

if TYPE_CHECKING:
    import torch

    from worker.inference.kernels import Kernels
    from worker.inference.torch_engine import TorchEngine

BUNDLED: Final = Path(__file__).parent.parent / "bundled"
_SORT_WINDOW: Final = 4096


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint, ready: tokeniser, engine and decoder."""

    info: ModelInfo
    head_set: HeadSet
    tokeniser: Tokeniser
    engine: "TorchEngine"
    max_length: int
    """Tokens, special tokens included."""
    kbert: KbertConfig
    unpinned: Mapping[str, str] = field(default_factory=dict)
    """Hub ids of which the newest commit was taken, and the setting that pins each."""

    @property
    def default_batch_tokens(self) -> int:
        """The ``max_batch_tokens`` that suits the device."""
        return max(self.engine.default_batch_tokens, self.max_length)

    def decode(self, outputs: HeadOutputs) -> list[dict[str, Any]]:
        """Fields of the signal that the heads give, one dict a text: see :mod:`worker.inference.heads`."""
        if self.head_set == "traffic":
            return decode_traffic(outputs, self.kbert.temperature)
        return decode_crypto(outputs, self.kbert.thresholds(), self.kbert.temperature)

    def classify(self, texts: Sequence[str], max_batch_tokens: int = 4096) -> list[dict[str, Any]]:
        """Classify texts, blocking, in order; the fields of :meth:`decode` and ``truncated`` for each.

        Raises:
            TokeniseError: The tokeniser gave up on a text.
            EngineOutOfMemory: A batch did not fit; lower ``max_batch_tokens``.
        """
        results: list[dict[str, Any]] = []
        for start in range(0, len(texts), _SORT_WINDOW):
            encoded = self.tokeniser.encode(texts[start : start + _SORT_WINDOW])
            window: list[dict[str, Any]] = [{}] * len(encoded)
            for numbers in _batches(encoded, max_batch_tokens):
                batch = [encoded[number] for number in numbers]
                for number, text, fields in zip(
                    numbers, batch, self.decode(self.engine.infer(batch)), strict=True
                ):
                    window[number] = {**fields, "truncated": text.truncated}
            results += window
        return results


def load_model(
    ref: str | None = None,
    *,
    head_set: HeadSet | None = "crypto",
    revision: str | None = None,
    tokeniser_revision: str | None = None,
    precision: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    offline: bool = False,
    cuda_graphs: bool = False,
) -> Model:
    """Load a model.

    Args:
        ref: Directory, weight file or Hub id (``owner/name[@revision]``); None is the bundled model of
            ``head_set``.
        head_set: The heads that are needed; None takes what the checkpoint has.
        revision: Hub branch, tag or commit, where ``ref`` has none.
        tokeniser_revision: Likewise, of the encoder whose tokeniser a ``.pt`` file names.
        precision: ``fp32``, ``bf16``, ``int8`` (CPU), ``fp16``, ``fp8`` (CUDA), or ``auto``: the fastest that
            keeps the answers, see :mod:`worker.inference.precision`.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: Cores for one product, on a CPU; None is all that the process may use.
        offline: Reach for the Hub's cache only.
        cuda_graphs: Launch small batches as one graph, on a GPU; refused where it changes the answers.

    Raises:
        CheckpointError: The checkpoint cannot be used; one sentence that names what and the mend.
        DeviceError: Device, precision or threads cannot be had, or the model does not fit; likewise.
    """
    calm_openmp()
    if ref is None:
        ref = str(BUNDLED / (head_set or "crypto"))
    files = resolve(ref, revision=revision, offline=offline)
    cores, where = choose_threads(threads), choose_device(device)
    check_graphs_device(where, asked=cuda_graphs)
    choose_dtype(precision, where)  # an unknown one is named before gigabytes are read
    checkpoint = load_checkpoint(files, tokeniser_revision=tokeniser_revision)
    if head_set not in (None, checkpoint.head_set):
        raise CheckpointError(
            f"Setting `model.ref`: {ref} has the heads of {checkpoint.head_set}, and the {head_set} pipeline "
            "needs its own; choose another checkpoint."
        )
    tokeniser = _tokeniser(checkpoint)
    try:
        engine = _engine(checkpoint, tokeniser, precision, device=where, threads=cores, graphs=cuda_graphs)
    except EngineOutOfMemory as error:
        raise DeviceError(
            f"Setting `model.device`: {checkpoint.info.name} does not fit on {where}; free it, choose "
            "another device, or a smaller `model.precision`."
        ) from error
    return Model(
        info=checkpoint.info,
        head_set=checkpoint.head_set,
        tokeniser=tokeniser,
        engine=engine,
        max_length=checkpoint.max_length,
        kbert=checkpoint.kbert,
        unpinned=checkpoint.unpinned,
    )


def _engine(
    checkpoint: Checkpoint,
    tokeniser: Tokeniser,
    precision: str,
    *,
    device: "torch.device",
    threads: int,
    graphs: bool,
) -> "TorchEngine":
    from worker.inference.graphs import CudaCapture, Graphs
    from worker.inference.precision import check_graphs, engine_of, sample_texts
    from worker.inference.torch_engine import TorchEngine

    def make(dtype: "torch.dtype", kernels: "Kernels | None") -> TorchEngine:
        return TorchEngine(
            checkpoint.state,
            checkpoint.shape,
            head_set=checkpoint.head_set,
            pooling=checkpoint.kbert.pooling,
            dtype=dtype,
            device=device,
            threads=threads,
            kernels=kernels,
            graphs=Graphs(CudaCapture(device)) if graphs else None,
        )

    def samples() -> list[EncodedText]:
        return tokeniser.encode(sample_texts(checkpoint.head_set, tokeniser.separator))

    engine = engine_of(
        precision, make, samples, checkpoint.state, checkpoint.shape, device=device, threads=threads
    )
    if graphs:
        check_graphs(engine, samples())
    return engine


def _tokeniser(checkpoint: Checkpoint) -> Tokeniser:
    tokeniser = load_tokeniser(
        checkpoint.tokeniser_directory, max_length=checkpoint.max_length, prefix=checkpoint.kbert.text_prefix
    )
    if tokeniser.vocab_size > checkpoint.shape.vocab_size:
        raise CheckpointError(
            f"{checkpoint.tokeniser_directory}: the tokeniser's ids need {tokeniser.vocab_size} rows and the "
            f"weights have {checkpoint.shape.vocab_size}; they are not of one model."
        )
    if not tokeniser.reads_korean():
        raise CheckpointError(
            f"{checkpoint.tokeniser_directory}: the tokeniser knows no token for most of a Korean text; put "
            '`"do_lower_case": false` into tokenizer_config.json, since lowercasing takes Hangul apart, or '
            "put the tokenizer.json there that the weights were trained with."
        )
    return tokeniser


def _batches(encoded: Sequence[EncodedText], max_tokens: int) -> list[list[int]]:
    from worker.inference.packing import split

    return [part.tolist() for part in split([len(text) for text in encoded], max_tokens)]
