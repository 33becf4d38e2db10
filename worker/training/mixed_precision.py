"""bf16 for the encoder in training: always on a GPU, on a CPU only where its products are faster in it."""

import torch

from worker.inference.devices import bf16_pays


def autocast(device: torch.device) -> torch.autocast:
    """Context for the encoder's forward pass."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu" or bf16_pays())
