"""Tensors on their way between the memory of the processor and that of a CUDA device.

Through page-locked memory, which the device reads and writes itself; torch keeps such memory for
the next tensor, and does not hand it out again before a copy from it has ended.
"""

from __future__ import annotations

import torch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Does not wait for the copy: what the same stream does next comes after it."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """Waits until it is there; the tensor itself where it is there already."""
    if tensor.device.type != "cuda":
        return tensor.cpu()
    host = torch.empty_like(tensor, device="cpu", pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return host
