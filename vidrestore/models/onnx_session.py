"""Opening the ONNX networks that people own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidrestore.common.errors import WeightsError
from vidrestore.common.system import usable_cores

if TYPE_CHECKING:
    import torch

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def import_onnxruntime() -> Any:
    """The package onnxruntime, which must be imported nowhere else.

    Its builds of 2026 have Microsoft's telemetry: on import they put an identifier of the machine
    and a store of events below the home, unless a variable that they read then forbids it.

    Raises:
        ImportError: It is not installed, or damaged.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def open_network(path: Path, device: torch.device) -> Any:
    """An onnxruntime session on the device where it can, else on the CPU.

    WeightsError for a file that onnxruntime cannot load.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # an error is raised, and told as one sentence where it matters
    options.intra_op_num_threads = usable_cores()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers(device))
    except Exception as error:  # onnxruntime has no base class for its errors
        raise WeightsError(
            f"{path} cannot be loaded as an ONNX network: {first_line(error)}"
        ) from error


def inputs_of(session: Any, path: Path) -> tuple[Any, list[Any]]:
    """The first input of a session, which is the picture, and the others; WeightsError for none."""
    inputs = session.get_inputs()
    if not inputs:
        raise WeightsError(f"the network in {path} takes no input, so it can be shown no picture")
    return inputs[0], list(inputs[1:])


def tried(
    session: Any, path: Path, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None
) -> list[Any]:
    """What a session gives at its first run, which shows whether the network can be run at all.

    WeightsError where it cannot, MemoryError where there is too little memory for it.
    """
    try:
        found: list[Any] = session.run(outputs, dict(feeds))
    except Exception as error:  # onnxruntime has no base class for its errors
        if "allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        raise WeightsError(f"the network in {path} cannot be run: {first_line(error)}") from error
    return found


def first_line(error: Exception) -> str:
    """Of what onnxruntime says, which may be many lines; where it says nothing, the kind."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def can_use_cuda() -> bool:
    """The installed onnxruntime is built for it."""
    return "CUDAExecutionProvider" in import_onnxruntime().get_available_providers()


def type_of(value: Any, path: Path) -> Any:
    """numpy's type for an input of a session; WeightsError where that cannot be fed."""
    if value.type not in _TYPES:
        raise WeightsError(
            f"the input {value.name} of {path} is {value.type}; only {', '.join(_TYPES)} can be fed"
        )
    return _TYPES[value.type]


def providers(device: torch.device) -> list[Any]:
    """What onnxruntime is to run a network with there; of these it takes the first that works."""
    if device.type == "cuda" and can_use_cuda():
        cuda = ("CUDAExecutionProvider", {"device_id": device.index or 0})
        return [cuda, "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]
