"""Where networks run, and how much of a CUDA device's memory they may take."""

from __future__ import annotations

import logging
import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from vidrestore.common.errors import UsageError
from vidrestore.common.system import usable_cores
from vidrestore.models.gpen.memory import batch_that_fits, room_bytes
from vidrestore.models.gpen.network import GPENConfig
from vidrestore.models.restorers.adaptive import SIZES_PX
from vidrestore.models.restorers.gpen import FORMATS

if TYPE_CHECKING:
    from vidrestore.common.settings import Restore

_log = logging.getLogger("vidrestore")

GB = 1_000_000_000


def choose_device(
    how: Restore, on_notice: Callable[[str], None] = lambda message: None
) -> torch.device:
    """auto: the first CUDA device where one can be used, else the processor.

    Bounds the threads of torch to the cores that may be used, and what it may take of a CUDA device
    to `how.max_vram_gb`. `on_notice` is told of a
    device that is there and cannot be used, and of a bound that has none to apply to. UsageError
    for a device that was asked for and is not there or cannot be used.
    """
    _bound_threads()
    if how.device == "cpu":
        if how.max_vram_gb is not None:
            raise UsageError(
                f"--max-vram {how.max_vram_gb:g} bounds the memory of a CUDA device, and --device "
                "cpu uses none; leave out one of them"
            )
        return torch.device("cpu")
    name = "cuda" if how.device == "auto" else how.device
    device = torch.device(name)
    problem = _problem(device)
    if problem is None:
        _bound_memory(device, how.max_vram_gb)
        return device
    if how.device != "auto":
        raise UsageError(f"{problem}; use --device cpu or --device auto")
    if _has_nvidia():
        on_notice(f"{problem}; networks run on the processor")
    if how.max_vram_gb is not None:
        on_notice(
            f"--max-vram {how.max_vram_gb:g} has no effect, since networks run on the processor"
        )
    return torch.device("cpu")


def why_not(name: str) -> str | None:
    """Why networks cannot run on a CUDA device; None where they can."""
    return _problem(torch.device(name))


def has_room(tier: str, how: Restore, device: torch.device) -> bool:
    """One face of that GPEN fits into what the device has, or into the bound: the same in each run,
    whatever else is on the device."""
    if device.type == "cpu":
        return True
    room = min(_total_bytes(device), math.inf if how.max_vram_gb is None else how.max_vram_gb * GB)
    return bool(_fitting(how, room, (int(tier.removeprefix("gpen-")),)))


def what_fits(how: Restore, device: torch.device) -> str:
    """In words, what to choose where a network found no room."""
    if device.type == "cpu":
        return "a smaller one such as --restorer gpen-512"
    ways = [f"--restorer {each}" for each in _fitting(how, room_bytes(device), SIZES_PX)[-1:]]
    if how.max_vram_gb is not None and how.max_vram_gb * GB < _total_bytes(device):
        ways.append("a larger --max-vram")
    return " or ".join([*ways, "--device cpu"])


def _fitting(how: Restore, room: float, sizes_px: Sequence[int]) -> list[str]:
    """Names of those GPENs of which one face fits into `room` bytes."""
    dtype = FORMATS.get(how.number_format, torch.float16)
    return [f"gpen-{s}" for s in sizes_px if batch_that_fits(room, GPENConfig(s), dtype, 1)]


def _total_bytes(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device.index or 0).total_memory)


def _problem(device: torch.device) -> str | None:
    """Why networks cannot run there, in a sentence without its end; None where they can."""
    built_for = torch.version.cuda or getattr(torch.version, "hip", None)
    if built_for is None:
        lacks = ", though nvidia-smi is there" if _has_nvidia() else ""
        return (
            f"there is no device {device}: 0 CUDA devices are found by torch {torch.__version__}, "
            f"which is built for processors only{lacks}"
        )
    # A driver that does not suit is told as a warning; here it becomes part of the sentence.
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        reason = f" ({_first_line(told[-1].message)})" if told else ""
        if count == 0 and not reason and _has_nvidia():
            reason = f", though nvidia-smi is there; torch is built for CUDA {built_for}, "
            reason += "and the driver may be too old for it or out of reach"
        return f"there is no device {device}: {count} CUDA devices are found{reason}"
    try:
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError as error:  # kernels for this card are missing, or the driver fails
        _log.info("%s fails: %s", device, str(error))
        return (
            f"{device} fails at its first computation ({_first_line(error)}); torch "
            f"{torch.__version__} for CUDA {built_for} and the driver or card do not go together"
        )
    return None


def _bound_threads() -> None:
    """Torch counts the cores that it may run on, and not the quota that a container gives."""
    if torch.get_num_threads() > (cores := usable_cores()):
        torch.set_num_threads(cores)


def _bound_memory(device: torch.device, max_vram_gb: float | None) -> None:
    """Of what torch takes in this process; None: no bound."""
    share = 1.0
    if max_vram_gb is not None:
        share = min(max_vram_gb * GB / _total_bytes(device), 1.0)
    torch.cuda.set_per_process_memory_fraction(share, device.index or 0)


def _has_nvidia() -> bool:
    return shutil.which("nvidia-smi") is not None


def _first_line(message: object) -> str:
    return (str(message).strip() or type(message).__name__).splitlines()[0].rstrip(".")


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
