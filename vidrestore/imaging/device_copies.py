"""Copies of pictures between the processor and the device of the networks.

Whole crops stay on the device. What crosses to the processor is small: the pictures in which motion
and appearance are measured, the faces in the size in which they are pasted, and crops that a cache
keeps on the disk.
"""

from __future__ import annotations

import torch


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor to a device, without waiting for the copy.

    Later work in the same stream runs after the copy.

    Args:
        tensor: The tensor, of any shape and type.
        device: The device.

    Returns:
        The copy; the tensor itself where it is there already.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor to the memory of the processor, and wait for the copy.

    Args:
        tensor: The tensor, of any shape and type.

    Returns:
        The copy; the tensor itself where it is there already.
    """
    if tensor.device.type != "cuda":
        return tensor.cpu()
    host = torch.empty_like(tensor, device="cpu", pin_memory=True)
    host.copy_(tensor, non_blocking=True)
    torch.cuda.current_stream(tensor.device).synchronize()
    return host
