"""Conversion of GPEN weights from any supported file to a plain state dict."""

from __future__ import annotations

import hashlib
import io
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vidrestore.common.errors import UsageError, WeightsError, system_reason
from vidrestore.common.files import check_new, output_file
from vidrestore.models.gpen.checkpoint import load_checkpoint
from vidrestore.models.weight_file import check_kind
from vidrestore.models.weights import record

_log = logging.getLogger("vidrestore")

SUFFIXES = (".safetensors", ".pth", ".pt")


@dataclass(frozen=True, slots=True)
class Converted:
    """A converted weight file and its content."""

    path: Path
    """The file that was written."""
    size_px: int
    """Side of the network's faces in pixels."""
    entries: int
    """Number of tensors in the file, the fixed blur kernels included."""
    parameters: int
    """Number of trained values in the file, the fixed blur kernels excluded."""


def convert_weights(
    source: Path, target: Path | None = None, *, overwrite: bool = False
) -> Converted:
    """Write the weights of a GPEN as a float32 state dict.

    The target appears only when it is whole.

    Args:
        source: The weight file, in a format of `load_checkpoint`.
        target: The file to write, .safetensors, .pth or .pt. None (default) stands for `source`
            with the suffix .safetensors.
        overwrite: Whether an existing target is replaced. Default False.

    Returns:
        The file that was written, and its content.

    Raises:
        WeightsError: The file cannot be read, or its weights are not those of a GPEN. Of an .onnx
            file the message tells whether it runs through onnxruntime instead.
        UsageError: The target has another suffix, is a folder, exists already, or is the source.
        OutputError: The target cannot be written.
    """
    target = target or source.with_suffix(".safetensors")
    _check_target(source, target, overwrite=overwrite)
    state, size_px = _read(source)
    content = _as_bytes(state, target.suffix.lower())
    with output_file(target, is_last=True) as part:
        part.write_bytes(content)
    # The new note replaces an older one for this path, and reveals damage already at the first use.
    record(target, hashlib.sha256(content).hexdigest())
    parameters = sum(v.numel() for k, v in state.items() if not k.endswith(".kernel"))
    return Converted(target, size_px, len(state), parameters)


def _check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(f"the output {target} must end in one of {', '.join(SUFFIXES)}")
    check_new(target, overwrite=overwrite, inputs=(source,))


def _read(source: Path) -> tuple[dict[str, Tensor], int]:
    """Return the state dict and the side of the faces in pixels."""
    try:
        config, state = load_checkpoint(source)
    except OSError as error:
        raise WeightsError(f"{source} cannot be read: {system_reason(error)}") from error
    except WeightsError as error:
        if source.suffix.lower() != ".onnx" or not _is_whole(source):
            raise
        raise WeightsError(f"{error}; {_onnxruntime_verdict(source)}") from error
    return state, config.size


def _is_whole(source: Path) -> bool:
    """Return whether the file has the format that its suffix names."""
    try:
        check_kind(source, source.name)
    except WeightsError as error:
        _log.info("%s cannot be run as it is: %s", source, error)
        return False
    return True


def _onnxruntime_verdict(source: Path) -> str:
    """Return a clause that tells whether onnxruntime can run the file."""
    from vidrestore.models.restorers.onnx import Onnx

    try:
        Onnx(source, device=torch.device("cpu"), fidelity=1.0)
    except WeightsError as error:
        _log.info("onnxruntime does not run %s: %s", source, error)
        return f"nor does it run through onnxruntime: {error}"
    return f"or run the file itself through onnxruntime, with --restorer {source}"


def _as_bytes(state: dict[str, Tensor], suffix: str) -> bytes:
    """Return the content of a file with this state dict."""
    # Copies, because entries of a file may share their memory, which safetensors rejects.
    copies = {
        key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()
    }
    if suffix == ".safetensors":
        from safetensors.torch import save

        return save(copies, metadata={"format": "pt"})
    buffer = io.BytesIO()
    torch.save(copies, buffer)
    return buffer.getvalue()
