"""Opening the ONNX networks that people own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidrestore.errors import WeightsError
from vidrestore.processors import usable_cores

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def open_network(path: Path, device: torch.device) -> Any:
    """An onnxruntime session on the device where it can, else on the CPU.

    WeightsError for a file that onnxruntime cannot load.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = usable_cores()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers(device))
    except Exception as error:  # onnxruntime has no base class for its errors
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path} cannot be loaded as an ONNX network: {first}") from error


def can_use_cuda() -> bool:
    """The installed onnxruntime is built for it."""
    import onnxruntime

    return "CUDAExecutionProvider" in onnxruntime.get_available_providers()


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
