"""Sessions of onnxruntime for the ONNX networks of the user."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidrestore.common.errors import WeightsError
from vidrestore.common.quoting import first_line
from vidrestore.common.system import usable_cores
from vidrestore.models.admission import Exact, FloatArray, Form, first_admitted
from vidrestore.models.weight_file import check_is_one_file

if TYPE_CHECKING:
    import torch

# The execution providers for each kind of device, the preferred one first.
_PROVIDERS = {
    "cuda": ("CUDA", "MIGraphX", "ROCM", "Dml"),
    "mps": ("CoreML",),
    "xpu": ("OpenVINO", "Dml"),
}
# What follows the name of a provider in messages, and its options, the fastest number format first.
_OPTIONS: dict[str, tuple[tuple[str, dict[str, str]], ...]] = {
    "CUDA": ((" with TensorFloat-32", {}), (" in float32", {"use_tf32": "0"})),
    "OpenVINO": (
        (" in float16", {"device_type": "GPU", "precision": "FP16"}),
        (" in float32", {"device_type": "GPU", "precision": "FP32"}),
    ),
}
# Of a picture, or of all pictures of a batch: 16 of 1024 x 1024 pixels.
_MOST_VALUES = 3 * 4096**2
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def import_onnxruntime() -> Any:
    """Import onnxruntime without its telemetry. No other code may import it.

    The builds of 2026 have Microsoft's telemetry. On import they write an identifier of the machine
    and a store of events to the home folder, unless an environment variable forbids it.

    Returns:
        The package.

    Raises:
        ImportError: The package is not installed or is damaged.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime


def open_network(path: Path) -> Any:
    """Open an ONNX network on the processor.

    Args:
        path: The .onnx file.

    Returns:
        An onnxruntime.InferenceSession.

    Raises:
        WeightsError: onnxruntime cannot load the file, or a part of it lies in another file.
    """
    try:
        session = _session(path, ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no base class for its errors
        raise WeightsError(
            f"{path} cannot be loaded as an ONNX network: {first_line(error)}"
        ) from error
    check_is_one_file(path)
    return session


def _session(path: Path, wanted: list[Any]) -> Any:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal errors only: others are raised, and become one sentence
    options.intra_op_num_threads = usable_cores()
    return onnxruntime.InferenceSession(str(path), options, providers=wanted)


def on_a_device(
    session: Any,
    path: Path,
    feeds: Mapping[str, Any],
    outputs: Sequence[str],
    *,
    device: torch.device,
    is_auto: bool,
    on_notice: Callable[[str], None],
) -> Any:
    """Move a network to a device where a provider gives what the processor gives.

    Args:
        session: The network on the processor, as `open_network` returned it.
        path: The .onnx file.
        feeds: The inputs for a built-in picture, by the name of the input.
        outputs: The names of the outputs to compare. Each counts by its own range, and all count
            the same.
        device: The preferred device.
        is_auto: Whether the user left the choice of the device open. Then a provider of another
            kind may be used, since torch and onnxruntime may support different devices.
        on_notice: Receives a notice of each provider that is passed over.

    Returns:
        The network on the device; `session` where no provider is admitted.
    """
    scales: list[float] = []

    def result(opened: Any) -> FloatArray:
        found = [np.asarray(v, np.float32).ravel() for v in opened.run([*outputs], dict(feeds))]
        if not scales:  # the processor runs first
            mean = sum(map(len, found)) / len(found)
            scales.extend((float(np.ptp(v)) or 1.0) * math.sqrt(len(v) / mean) for v in found)
        return np.concatenate([v / np.float32(k) for v, k in zip(found, scales, strict=True)])

    def exact() -> Exact:
        return Exact.measured(lambda: result(session), span=1.0)

    forms = [
        Form(f"{provider}{suffix}", partial(_started, path, provider, options), result)
        for provider, suffix, options in _accelerators(device, is_auto)
    ]
    admitted = first_admitted(
        path.name, forms, exact, otherwise="the processor runs it", on_notice=on_notice
    )
    return session if admitted is None else admitted[1]


def _accelerators(device: torch.device, is_auto: bool) -> list[tuple[str, str, dict[str, str]]]:
    """List provider, what its name is followed by, and options, in the order to try."""
    kinds = [device.type] if not is_auto else [device.type, *_PROVIDERS]
    names = dict.fromkeys(name for kind in kinds for name in _PROVIDERS.get(kind, ()))
    available = import_onnxruntime().get_available_providers() if names else []
    found = []
    for name in names:
        if (provider := f"{name}ExecutionProvider") in available:
            for suffix, options in _OPTIONS.get(name, (("", {}),)):
                number = {"device_id": str(device.index)} if device.index is not None else {}
                found.append((provider, suffix, options | (number if name == "CUDA" else {})))
    return found


def _started(path: Path, provider: str, options: dict[str, str]) -> Any:
    """Open a network with a provider; RuntimeError where onnxruntime uses another instead."""
    session = _session(path, [(provider, options), "CPUExecutionProvider"])
    if session.get_providers()[0] != provider:
        raise RuntimeError("onnxruntime is built for it and cannot start it here")
    return session


def processor_options(threads: int) -> Any:
    """Return the options of a session for a small network that runs beside other stages.

    Threads of onnxruntime do not wait for work in busy loops, which would take processor time from
    other threads of this process.

    Args:
        threads: The number of threads for one run.

    Returns:
        An onnxruntime.SessionOptions.
    """
    options = import_onnxruntime().SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def processor_session(network: bytes, threads: int) -> Any:
    """Open a small ONNX network on the processor, see `processor_options`.

    Args:
        network: The content of an .onnx file.
        threads: The number of threads for one run.

    Returns:
        An onnxruntime.InferenceSession.

    Raises:
        Exception: An error of onnxruntime, which has no base class for its errors.
    """
    # With its fallback, onnxruntime would print an error to stdout and try the same again.
    return import_onnxruntime().InferenceSession(
        network,
        processor_options(threads),
        providers=["CPUExecutionProvider"],
        enable_fallback=0,
    )


def inputs_of(session: Any, path: Path) -> tuple[Any, list[Any]]:
    """Return the inputs of a session, that of the picture apart from the others.

    Args:
        session: An onnxruntime.InferenceSession.
        path: The .onnx file, for the message.

    Returns:
        The first input of four dimensions, else the first; and a list of the others.

    Raises:
        WeightsError: The network takes no input, or one that is too large for any use.
    """
    inputs = list(session.get_inputs())
    if not inputs:
        raise WeightsError(f"the network in {path} takes no input; use one that takes a picture")
    pictures = [i for i, each in enumerate(inputs) if len(each.shape) == 4]
    picture = inputs.pop(pictures[0] if pictures else 0)
    if math.prod(n for n in picture.shape if isinstance(n, int) and n > 0) > _MOST_VALUES:
        raise WeightsError(
            f"the network in {path} takes {picture.shape}; use one for smaller or fewer pictures, "
            f"of {_MOST_VALUES} values at most"
        )
    return picture, inputs


def first_run(
    session: Any, path: Path, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None
) -> list[Any]:
    """Run a session for the first time, which shows whether the network can run at all.

    Args:
        session: An onnxruntime.InferenceSession.
        path: The .onnx file, for the message.
        feeds: Arrays by the name of the input.
        outputs: Names of the outputs to compute; None (default) for all.

    Returns:
        The outputs' values.

    Raises:
        WeightsError: The network cannot run.
        MemoryError: There is too little memory for it.
    """
    try:
        results: list[Any] = session.run(outputs, dict(feeds))
    except Exception as error:  # onnxruntime has no base class for its errors
        if "allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        raise WeightsError(f"the network in {path} cannot be run: {first_line(error)}") from error
    return results


def can_use_devices() -> bool:
    """Return whether the installed onnxruntime is built for a device besides the processor."""
    available = import_onnxruntime().get_available_providers()
    names = (name for of_kind in _PROVIDERS.values() for name in of_kind)
    return any(f"{name}ExecutionProvider" in available for name in names)


def type_of(value: Any, path: Path) -> Any:
    """Return the numpy type of an input of a session.

    Args:
        value: The input, as `inputs_of` returns it.
        path: The .onnx file, for the message.

    Returns:
        numpy.float32, numpy.float16 or numpy.float64.

    Raises:
        WeightsError: The input has another type.
    """
    if value.type not in _TYPES:
        raise WeightsError(
            f"the input {value.name} of {path} is {value.type}; use a network whose inputs are one "
            f"of {', '.join(_TYPES)}"
        )
    return _TYPES[value.type]
