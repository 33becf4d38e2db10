"""Which device, precision and cores: what is asked for, or the best that is there."""

import ctypes
import functools
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, get_args

from worker.inference.errors import DeviceError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16", "int8", "fp16", "fp8"]

_AMPERE: Final = (8, 0)
_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUPS: Final = Path("/proc/self/cgroup")
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
"""Names of options in malloc.h."""
_KEPT_BYTES: Final = 256 << 20
_MAPPED_BYTES: Final = 32 << 20
"""The most that every glibc takes; what a part of a batch needs is smaller."""


def calm_openmp() -> None:
    """Make OpenMP's threads sleep while they wait, unless the environment says how; before torch's import.

    By default they spin. On cores that tokenising, the event loop or a neighbour use as well, each then
    waits for the other's time slice: 28 messages/s instead of 107 on two busy cores.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def keep_freed_memory() -> None:
    """Let the C library keep what one batch frees for the next, unless the environment says how.

    glibc by itself gives the end of a thread's heap back and maps it anew page by page: 25,000 to 70,000
    page faults for 256 messages of BERT-base size in int8, 202 messages/s (median of three) instead of 208.
    """
    told = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
    if not sys.platform.startswith("linux") or any(name in os.environ for name in told):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # not glibc
        return
    # The first alone would stop glibc from raising the second by itself: 117 messages/s, a million faults.
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def choose_device(asked: str) -> "torch.device":
    """``auto`` is CUDA where it answers, else the CPU.

    Raises:
        DeviceError: The device is not there, or its name is unknown.
    """
    import torch

    if asked == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise DeviceError(
            f"Setting `model.device`: {asked!r} is unknown; use auto, cpu, cuda or cuda:N."
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(
            f"Setting `model.device`: {asked!r} is not supported; use auto, cpu, cuda or cuda:N."
        )
    found = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= found:
        raise DeviceError(
            f"Setting `model.device`: {asked!r} is not there ({found} CUDA devices found); use auto or cpu."
        )
    return device


def choose_dtype(asked: str, device: "torch.device") -> "torch.dtype":
    """``auto`` is bf16 where the hardware is faster in it (fp16 on CUDA before Ampere), else fp32.

    int8 is a precision of linear layers on a CPU, fp8 on CUDA; all else is then computed in that of ``auto``.

    Raises:
        DeviceError: The name is unknown, or the device does not have the precision.
    """
    import torch

    if asked not in get_args(Precision):
        raise DeviceError(
            f"Setting `model.precision`: {asked!r} is unknown; use {', '.join(get_args(Precision))}."
        )
    if asked == "fp16" and device.type == "cpu":
        raise DeviceError(
            "Setting `model.precision`: fp16 is slow and coarse on a CPU; use auto, bf16 or fp32."
        )
    if asked == "int8" and device.type != "cpu":
        raise DeviceError("Setting `model.precision`: int8 runs on a CPU only; use auto, bf16, fp16 or fp32.")
    if asked == "fp8" and not multiplies_fp8(device):
        raise DeviceError(
            "Setting `model.precision`: fp8 needs a GPU of compute capability 8.9 (Ada, Hopper) or more; "
            "use auto."
        )
    if asked in ("auto", "int8", "fp8"):
        asked = _best_on_cuda(device) if device.type == "cuda" else _best_on_cpu()
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[asked]


def choose_threads(asked: int | None) -> int:
    """Cores for one product; None is all that this process may use: its affinity, its cgroups' quotas.

    Raises:
        DeviceError: Fewer than one.
    """
    if asked is not None:
        if asked < 1:
            raise DeviceError(f"Setting `model.threads`: {asked} is too few; use 1 or more, or leave it out.")
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # In a container limited to 2 of 64 cores the affinity says 64, and 64 threads on 2 cores crawl.
    return min([cores, *_quotas()])


def _best_on_cuda(device: "torch.device") -> Precision:
    import torch

    return "bf16" if torch.cuda.get_device_capability(device) >= _AMPERE else "fp16"


def _best_on_cpu() -> Precision:
    return "bf16" if bf16_pays() else "fp32"


def check_graphs_device(device: "torch.device", *, asked: bool) -> None:
    """Raise DeviceError where CUDA graphs are asked for and the device is no GPU."""
    if asked and device.type != "cuda":
        raise DeviceError("Setting `model.cuda_graphs`: it needs a GPU; switch it off.")


def multiplies_bf16() -> bool:
    """Whether the CPU has instructions for it; elsewhere it is emulated and slower than fp32."""
    import torch

    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def multiplies_fp8(device: "torch.device") -> bool:
    """Whether the device has products of FP8 numbers."""
    import torch

    from worker.inference.fp8 import LEAST_CAPABILITY

    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= LEAST_CAPABILITY


@functools.cache
def bf16_pays() -> bool:
    """Whether this CPU multiplies faster in bf16 than in fp32; measured once, in some 30 ms.

    To have the instructions is not enough: on a Sapphire Rapids whose guest sees no AMX one core did 100
    GFLOP/s in bf16 and 195 in fp32; on a Zen 5 of the same flags bf16 does twice as much as fp32.
    """
    import torch

    return multiplies_bf16() and _product_seconds(torch.bfloat16) < _product_seconds(torch.float32)


def _product_seconds(dtype: "torch.dtype") -> float:
    """Of one product as in a layer of BERT-base, the fastest of a few."""
    import torch

    rows, weight = torch.ones(512, 768, dtype=dtype), torch.ones(768, 768, dtype=dtype)
    taken = []
    with torch.inference_mode():
        for _ in range(6):
            began = time.perf_counter()
            torch.nn.functional.linear(rows, weight)
            taken.append(time.perf_counter() - began)
    return min(taken)


def _quotas() -> Iterator[int]:
    """Cores that each cgroup of this process may use, from its own up to the root; where it has a limit."""
    try:
        lines = _OWN_CGROUPS.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        lines = ["0::/"]
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, inner = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 1 has a tree for each controller; what lies above a container's root is not seen in it.
        trees = (_CGROUPS / controllers, _CGROUPS / "cpu") if controllers else (_CGROUPS,)
        parts = [part for part in inner.split("/") if part not in ("", "..")]
        for tree in trees:
            for depth in range(len(parts), -1, -1):
                yield from _limit(tree.joinpath(*parts[:depth]))


def _limit(group: Path) -> Iterator[int]:
    """The quota of one cgroup in whole cores, rounded up; nothing where it has none."""
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((group / file).read_text("ascii") for file in files).split()
            if quota not in ("max", "-1"):
                yield max(1, math.ceil(int(quota) / int(period)))
        except (OSError, ValueError, ZeroDivisionError):
            continue
