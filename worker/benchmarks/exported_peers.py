"""ONNX Runtime and OpenVINO on the same weights, exported when the benchmark runs.

ONNX Runtime's threads do not spin while they wait (``session.intra_op.allow_spinning`` is 0), against its
default: a spinning pool would take the cores from whoever is measured next. OpenMP's, torch's on all sides,
sleep too, since ``calm_openmp`` sets ``OMP_WAIT_POLICY=PASSIVE`` for the whole process. OpenVINO's are left
as it makes them. :func:`peer_settings` says what holds.
"""

import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from worker.benchmarks.transformers_peer import TransformersPeer, batches, padded
from worker.inference.tokenising import EncodedText

Contestant = Callable[[Sequence[EncodedText]], None]
Session = Callable[[dict[str, Any]], Any]

ONNX_RUNTIME: Final = ("fp32", "dynamic int8")
OPENVINO: Final = ("fp32", "bf16")
_ORDER: Final = "sorted in windows of 256, batch 32 padded"
_SPINNING: Final = "session.intra_op.allow_spinning"
_LIBRARIES: Final = {"ONNX Runtime": ("onnx", "onnxruntime"), "OpenVINO": ("onnx", "openvino")}


def absent_peers() -> dict[str, str]:
    """Name of each peer that cannot run here → why."""
    absent: dict[str, str] = {}
    for library, kinds in (("ONNX Runtime", ONNX_RUNTIME), ("OpenVINO", OPENVINO)):
        missing = [name for name in _LIBRARIES[library] if find_spec(name) is None]
        if missing:
            why = f"not installed: {', '.join(missing)}; pip install 'kbert-stream[bench]'"
            absent |= {_name(library, kind): why for kind in kinds}
    return absent


def peer_settings(*, spinning: bool) -> dict[str, str | None]:
    """How threads of the peers wait: ONNX Runtime's session entry, and OpenMP's variable (None: not set)."""
    return {_SPINNING: str(int(spinning)), "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY")}


def exported_peers(peer: TransformersPeer, threads: int, *, spinning: bool = False) -> dict[str, Contestant]:
    """Those that are installed, by name, in batches of 32 sorted within windows of 256; see `sessions`."""
    made = sessions(peer, threads, spinning=spinning)
    return {name: _contestant(session) for name, session in made.items()}


def sessions(peer: TransformersPeer, threads: int, *, spinning: bool = False) -> dict[str, Session]:
    """Name of each installed peer → from ``ids`` and ``mask`` ``[texts, longest]`` to all heads side by side.

    Args:
        peer: In fp32 on the CPU; what it computes is exported.
        threads: Cores for one product.
        spinning: Let ONNX Runtime's threads spin while they wait, as by its default.
    """
    absent = absent_peers()
    made: dict[str, Session] = {}
    with tempfile.TemporaryDirectory(prefix="kbert-bench-") as directory:
        exported = Path(directory) / "fp32.onnx"
        if find_spec("onnx") is not None:
            _export(peer, exported)
        if _name("ONNX Runtime", "fp32") not in absent:
            coarse = Path(directory) / "int8.onnx"
            _quantise(exported, coarse)
            for kind, file in zip(ONNX_RUNTIME, (exported, coarse), strict=True):
                made[_name("ONNX Runtime", kind)] = _onnx_runtime(file, threads, spinning)
        if _name("OpenVINO", "fp32") not in absent:
            for kind, hint in zip(OPENVINO, ("f32", "bf16"), strict=True):
                made[_name("OpenVINO", kind)] = _openvino(exported, threads, hint)
    return made


def _name(library: str, kind: str) -> str:
    return f"{library} {kind}, {_ORDER}"


def _export(peer: TransformersPeer, file: Path) -> None:
    import torch

    ids = torch.ones(3, 17, dtype=torch.long)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0  # a full mask would be traced away
    free = {0: "batch", 1: "length"}
    with warnings.catch_warnings():
        # The newer exporter took 45 s for two layers, and its graph cannot be quantised.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            peer.module,
            (ids, mask),
            str(file),
            input_names=["ids", "mask"],
            output_names=["heads"],
            dynamic_axes={"ids": free, "mask": free},
            dynamo=False,
        )


def _quantise(exported: Path, file: Path) -> None:
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)
    try:
        quantize_dynamic(str(exported), str(file), weight_type=QuantType.QInt8)
    finally:
        logging.disable(logging.NOTSET)


def _onnx_runtime(file: Path, threads: int, spinning: bool) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry(_SPINNING, str(int(spinning)))
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)[0]


def _openvino(file: Path, threads: int, hint: str) -> Session:
    import openvino

    compiled = openvino.Core().compile_model(
        str(file), "CPU", {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": hint}
    )
    return lambda inputs: compiled(inputs)[0]


def _contestant(session: Session) -> Contestant:
    def run(texts: Sequence[EncodedText]) -> None:
        for batch in batches(texts, in_order=False):
            ids, mask = padded(batch)
            session({"ids": ids.numpy(), "mask": mask.numpy()})

    return run
