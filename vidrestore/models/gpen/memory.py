"""Estimates of the CUDA memory that a prepared GPEN takes, and of the batch that fits into it.

The sizes of maps follow from their shapes. The need of the convolutions is estimated generously.
"""

import torch
from torch import device as Device

from vidrestore.models.gpen.inference import Workspace
from vidrestore.models.gpen.network import GPEN, GPENConfig

# Pictures of a face in float32: the window, its two copies on the way in, the result, its copy.
PICTURES = 5
LIBRARIES_BYTES = 250_000_000  # working memory of cuDNN and cuBLAS
SPARE = 0.05  # of the total, lost to fragmentation


def bytes_needed(config: GPENConfig, dtype: torch.dtype, batch: int) -> int:
    """Return the memory for weights, maps and pictures.

    Args:
        config: Shape of the network.
        dtype: Type of convolutions and activations.
        batch: Number of faces in a batch.

    Returns:
        Bytes on the device.
    """
    largest = config.channels(config.size) * config.size**2 * _item_bytes(dtype)
    picture = 3 * config.size**2
    maps = Workspace(config, 1, dtype, Device("meta")).byte_count
    face_bytes = maps + largest + 4 * PICTURES * picture
    # The decoder's largest layers take one face at a time: a result, its interleaved phases, the
    # encoder features, and the level's RGB image in three formats.
    call_bytes = 3 * largest + 10 * picture
    fixed = weight_bytes(config, dtype) + call_bytes + LIBRARIES_BYTES
    return int((fixed + batch * face_bytes) * (1 + SPARE))


def weight_bytes(config: GPENConfig, dtype: torch.dtype) -> int:
    """Return the size of the weights of a prepared GPEN, rounded up a little.

    Args:
        config: Shape of the network.
        dtype: Type of convolutions and activations.

    Returns:
        Bytes on the device.
    """
    with Device("meta"):
        gpen = GPEN(
            config.size, config.style_dim, config.n_mlp, config.channel_multiplier, config.narrow
        )
    count = 0.0
    for name, parameter in gpen.named_parameters():
        if "modulation" in name or ".style." in name or "final_linear" in name:
            count += 8 * parameter.numel()
        elif parameter.dim() == 5:  # float32 where styles modulate weights; and their energy
            count += 4 * parameter.numel() * (1 + 1 / 9)
        else:
            count += parameter.numel() * _item_bytes(dtype)
    return int(count)


def batch_that_fits(free_bytes: float, config: GPENConfig, dtype: torch.dtype, most: int) -> int:
    """Return the largest batch that fits into some memory.

    Args:
        free_bytes: Memory in bytes.
        config: Shape of the network.
        dtype: Type of convolutions and activations.
        most: Largest batch to consider.

    Returns:
        Number of faces from 0 to `most`; 0 where not even one fits.
    """
    fitting = (n for n in range(most, 0, -1) if bytes_needed(config, dtype, n) <= free_bytes)
    return next(fitting, 0)


def free_bytes(device: torch.device) -> int:
    """Return the memory that torch can still allocate on a CUDA device.

    Args:
        device: The CUDA device.

    Returns:
        Bytes.
    """
    return room_bytes(device) - torch.cuda.memory_allocated(device.index or 0)


def room_bytes(device: torch.device) -> int:
    """Return the memory of a CUDA device that this process can use, including what it uses now.

    The limits are the memory that other processes leave free, and the share that
    torch.cuda.set_per_process_memory_fraction grants.

    Args:
        device: The CUDA device.

    Returns:
        Bytes.
    """
    index = device.index or 0
    free, total = torch.cuda.mem_get_info(index)
    share = torch.cuda.get_per_process_memory_fraction(index) * total
    return min(free + torch.cuda.memory_reserved(index), int(share))


def _item_bytes(dtype: torch.dtype) -> int:
    return torch.empty(0, dtype=dtype).element_size()
