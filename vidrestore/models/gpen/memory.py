"""How much memory of a CUDA device a prepared GPEN takes, and how many faces at once go into some.

The maps are known from the shapes; what convolutions need beside them is a guess on the safe side.
"""

import torch
from torch import device as Device

from vidrestore.models.gpen.inference import Workspace
from vidrestore.models.gpen.network import GPEN, GPENConfig

PICTURES = 5  # of a face, float32: the window, twice on its way in, the result, its copy
LIBRARIES_BYTES = 250_000_000  # what cuDNN and cuBLAS work in
SPARE = 0.05  # of the whole: what splinters


def bytes_needed(config: GPENConfig, dtype: torch.dtype, batch: int) -> int:
    """Of weights, maps and pictures for `batch` faces at once."""
    largest = config.channels(config.size) * config.size**2 * _item_bytes(dtype)
    picture = 3 * config.size**2
    maps = Workspace(config, 1, dtype, Device("meta")).byte_count
    of_a_face = maps + largest + 4 * PICTURES * picture
    # The decoder's largest layers take one face at a time: a result, its phases put in order,
    # what stands beside it, and the level's RGB in three formats.
    of_a_call = 3 * largest + 10 * picture
    fixed = weight_bytes(config, dtype) + of_a_call + LIBRARIES_BYTES
    return int((fixed + batch * of_a_face) * (1 + SPARE))


def weight_bytes(config: GPENConfig, dtype: torch.dtype) -> int:
    """Of the weights as they are kept, or a little more."""
    with Device("meta"):
        gpen = GPEN(
            config.size, config.style_dim, config.n_mlp, config.channel_multiplier, config.narrow
        )
    count = 0.0
    for name, parameter in gpen.named_parameters():
        if "modulation" in name or ".style." in name or "final_linear" in name:
            count += 8 * parameter.numel()
        elif parameter.dim() == 5:  # float32 where styles go into weights; and their energy
            count += 4 * parameter.numel() * (1 + 1 / 9)
        else:
            count += parameter.numel() * _item_bytes(dtype)
    return int(count)


def batch_that_fits(free_bytes: float, config: GPENConfig, dtype: torch.dtype, most: int) -> int:
    """How many faces at once have room in `free_bytes`, at most `most`; 0 where not even one."""
    fitting = (n for n in range(most, 0, -1) if bytes_needed(config, dtype, n) <= free_bytes)
    return next(fitting, 0)


def free_bytes(device: torch.device) -> int:
    """What torch may still take on a CUDA device."""
    return room_bytes(device) - torch.cuda.memory_allocated(device.index or 0)


def room_bytes(device: torch.device) -> int:
    """What torch could take if it used nothing yet: of what others leave, and of its own share."""
    index = device.index or 0
    free, total = torch.cuda.mem_get_info(index)
    share = torch.cuda.get_per_process_memory_fraction(index) * total
    return min(free + torch.cuda.memory_reserved(index), int(share))


def _item_bytes(dtype: torch.dtype) -> int:
    return torch.empty(0, dtype=dtype).element_size()
