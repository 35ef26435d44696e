"""The choice of the devices that networks run on, and the bound of their memory.

A device that can compute at all is only a candidate: `vidrestore.models.admission` decides at the
opening of a network whether the device runs it.
"""

from __future__ import annotations

import logging
import math
import shutil
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from vidrestore.common.errors import UsageError
from vidrestore.common.quoting import first_line
from vidrestore.common.system import machine_memory, usable_cores
from vidrestore.models.gpen.memory import batch_that_fits, room_bytes
from vidrestore.models.gpen.network import GPENConfig
from vidrestore.models.restorers.adaptive import SIZES_PX
from vidrestore.models.restorers.gpen import FORMATS

if TYPE_CHECKING:
    from vidrestore.common.settings import Restore

_log = logging.getLogger("vidrestore")

GB = 1_000_000_000
CUDA = torch.device("cuda")
# In the order of preference. A ROCm device is a CUDA device to torch.
_KINDS = ("cuda", "mps", "xpu")


def choose_devices(
    how: Restore, on_notice: Callable[[str], None] = lambda message: None
) -> tuple[torch.device, ...]:
    """Choose the devices that networks may run on, and bound the resources that torch takes.

    The device "auto" stands for the first device of each kind that can be used: CUDA, MPS, XPU and
    the processor. The function bounds torch's threads to the cores that this process may use, and
    torch's memory on a CUDA device to `how.max_vram_gb`.

    Args:
        how: The settings; `device` and `max_vram_gb` matter.
        on_notice: Receives a notice where a device or an NVIDIA driver is there but cannot be used,
            and where the bound of the memory has no effect.

    Returns:
        The devices, the preferred one first; one device where the settings name it.

    Raises:
        UsageError: The device that the settings name does not exist or cannot be used, or a bound
            of CUDA memory is set together with a device that is no CUDA device.
    """
    _bound_threads()
    if how.device != "auto":
        return (_named_device(how),)
    devices, problems = [], []
    for kind in _KINDS:
        device = torch.device(kind)
        problem = _problem(device)
        if problem is None:
            devices.append(device)
        elif (kind == "cuda" and _has_nvidia()) or (kind != "cuda" and _is_there(kind)):
            problems.append(problem)
    runs_on = devices[0] if devices else "the processor"
    for problem in problems:
        on_notice(f"{problem}; networks run on {runs_on}")
    if CUDA in devices:
        _bound_memory(CUDA, how.max_vram_gb)
    elif how.max_vram_gb is not None:
        on_notice(
            f"--max-vram {how.max_vram_gb:g} has no effect, since networks do not run on a CUDA "
            "device"
        )
    return (*devices, torch.device("cpu"))


def _named_device(how: Restore) -> torch.device:
    """Return the device that the settings name; UsageError where it cannot be used."""
    device = torch.device(how.device)
    if device.type != "cuda" and how.max_vram_gb is not None:
        uses = "uses none" if device.type == "cpu" else "is none"
        raise UsageError(
            f"--max-vram {how.max_vram_gb:g} bounds the memory of a CUDA device, and --device "
            f"{how.device} {uses}; leave out one of them"
        )
    if device.type == "cpu":
        return device
    if (problem := _problem(device)) is not None:
        raise UsageError(f"{problem}; use --device cpu or --device auto")
    if device.type == "cuda":
        _bound_memory(device, how.max_vram_gb)
    return device


def choose_device(
    how: Restore, on_notice: Callable[[str], None] = lambda message: None
) -> torch.device:
    """Choose the preferred device of networks; see `choose_devices`.

    Args:
        how: The settings; `device` and `max_vram_gb` matter.
        on_notice: Receives the notices.

    Returns:
        The device.

    Raises:
        UsageError: See `choose_devices`.
    """
    return choose_devices(how, on_notice)[0]


def picture_device(how: Restore) -> torch.device:
    """Choose the device on which the stages around the network compute.

    They use float64 and operations that other devices than CUDA lack or were not tried on, so with
    those the processor runs them, and only the network's windows and results are copied.

    Args:
        how: The settings; `device` and `max_vram_gb` matter.

    Returns:
        The preferred device of networks where it is a CUDA device, else the processor.

    Raises:
        UsageError: See `choose_devices`.
    """
    device = choose_device(how)
    return device if device.type == "cuda" else torch.device("cpu")


def why_not(name: str) -> str | None:
    """Explain why networks cannot run on a device.

    Args:
        name: Name of the device, such as "cuda", "cuda:1", "mps" or "xpu".

    Returns:
        The reason, a sentence without its period; None where networks can run there.
    """
    return _problem(torch.device(name))


def memory_of(device: torch.device, how: Restore) -> float:
    """Return all memory that networks may use on a device.

    The answer does not depend on what other programs use, so that it is equal in each run.

    Args:
        device: The device.
        how: The settings; `max_vram_gb` matters.

    Returns:
        Bytes; those of the computer for a device that is no CUDA device.
    """
    if device.type != "cuda":
        return machine_memory()
    return min(_total_bytes(device), math.inf if how.max_vram_gb is None else how.max_vram_gb * GB)


def has_room(tier: str, how: Restore, device: torch.device) -> bool:
    """Return whether a GPEN has room for one face in the memory of a device.

    The answer does not depend on what other programs use of the device, so that it is equal in each
    run.

    Args:
        tier: Name of the GPEN, such as "gpen-1024".
        how: The settings; `max_vram_gb` and `number_format` matter.
        device: The device.

    Returns:
        Whether the network and one face fit into all of the device's memory and into the bound;
        True for a device that is no CUDA device.
    """
    if device.type != "cuda":
        return True
    return bool(_fitting(how, memory_of(device, how), (int(tier.removeprefix("gpen-")),)))


def what_fits(how: Restore, device: torch.device) -> str:
    """Name the choices of the user where a network does not fit into the memory.

    Args:
        how: The settings; `max_vram_gb` and `number_format` matter.
        device: The device whose memory does not suffice.

    Returns:
        Options of the command line, joined by "or", for the end of a message.
    """
    if device.type != "cuda":
        smaller = "a smaller one such as --restorer gpen-512"
        return smaller if device.type == "cpu" else f"{smaller} or --device cpu"
    choices = [f"--restorer {each}" for each in _fitting(how, room_bytes(device), SIZES_PX)[-1:]]
    if how.max_vram_gb is not None and how.max_vram_gb * GB < _total_bytes(device):
        choices.append("a larger --max-vram")
    return " or ".join([*choices, "--device cpu"])


def _fitting(how: Restore, room: float, sizes_px: Sequence[int]) -> list[str]:
    """Return the names of the GPENs of which one face fits into `room` bytes."""
    dtype = FORMATS.get(how.number_format, torch.float16)
    return [f"gpen-{s}" for s in sizes_px if batch_that_fits(room, GPENConfig(s), dtype, 1)]


def _total_bytes(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device.index or 0).total_memory)


def _problem(device: torch.device) -> str | None:
    """Return why networks cannot run there, as a sentence without its period; else None."""
    if device.type != "cuda":
        if not _is_there(device.type):
            return f"there is no device {device}: torch {torch.__version__} finds none"
        if (reason := _first_failure(device)) is None:
            return None
        return f"{device} fails at its first computation ({reason})"
    built_for = torch.version.cuda or getattr(torch.version, "hip", None)
    if built_for is None:
        contrast = ", though nvidia-smi is installed" if _has_nvidia() else ""
        return (
            f"there is no device {device}: torch {torch.__version__} finds no CUDA devices, since "
            f"it is built for processors only{contrast}"
        )
    # Torch warns of an unsuitable driver; the warning becomes part of the message.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        reason = f" ({first_line(caught[-1].message)})" if caught else ""
        if count == 0 and not reason and _has_nvidia():
            reason = f", though nvidia-smi is installed; torch is built for CUDA {built_for}, "
            reason += "and the driver may be too old for it or out of reach"
        return f"there is no device {device}: the number of CUDA devices is {count}{reason}"
    if (failure := _first_failure(device)) is not None:
        return (
            f"{device} fails at its first computation ({failure}); torch {torch.__version__} for "
            f"CUDA {built_for} does not suit the driver or the device"
        )
    return None


def _first_failure(device: torch.device) -> str | None:
    """Compute something small on a device; return the first line of the error, else None."""
    try:
        torch.zeros(1, device=device).add_(1).item()
    except RuntimeError as error:  # kernels for this device are missing, or the driver fails
        _log.info("%s fails: %s", device, str(error))
        return first_line(error)
    return None


def _is_there(kind: str) -> bool:
    """Return whether torch finds a device of Apple ("mps") or Intel ("xpu")."""
    return torch.backends.mps.is_available() if kind == "mps" else torch.xpu.is_available()


def _bound_threads() -> None:
    """Bound torch's threads to the quota of a container, which torch does not know."""
    if torch.get_num_threads() > (cores := usable_cores()):
        torch.set_num_threads(cores)


def _bound_memory(device: torch.device, max_vram_gb: float | None) -> None:
    """Bound the memory that torch takes in this process; None sets no bound."""
    share = 1.0
    if max_vram_gb is not None:
        share = min(max_vram_gb * GB / _total_bytes(device), 1.0)
    torch.cuda.set_per_process_memory_fraction(share, device.index or 0)


def _has_nvidia() -> bool:
    return shutil.which("nvidia-smi") is not None
