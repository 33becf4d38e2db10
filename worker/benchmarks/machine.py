"""What a figure was measured on."""

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def describe_machine(device: "torch.device", threads: int) -> dict[str, Any]:
    """Processor or GPU, cores, and the versions that matter."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "name": name,
        "cores": os.cpu_count(),
        "threads": threads,
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.platform(),
    }


def describe_host() -> dict[str, Any]:
    """What figures that need no torch were measured on."""
    return {
        "name": _processor(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
