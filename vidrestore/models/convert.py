"""GPEN weights from any file that holds them, written anew as a state dict."""

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
    """The file that was written, and what it holds."""

    path: Path
    size_px: int
    """Side of the faces of the network."""
    entries: int
    parameters: int
    """Fixed blur kernels not counted."""


def convert_weights(
    source: Path, target: Path | None = None, *, overwrite: bool = False
) -> Converted:
    """Write the GPEN in `source` as a float32 state dict, .safetensors or .pth by suffix.

    `target` is `source` with the suffix .safetensors where none is given; it appears only when it
    is whole. Raises WeightsError where the weights are not those of the exact network, and says
    whether the file can be run as it is; UsageError for a target that cannot be.
    """
    target = target or source.with_suffix(".safetensors")
    _check_target(source, target, overwrite=overwrite)
    state, size_px = _read(source)
    content = _as_bytes(state, target.suffix.lower())
    with output_file(target) as part:
        part.write_bytes(content)
    # So that damage shows even at its first use, and no older note stands against it.
    record(target, hashlib.sha256(content).hexdigest())
    parameters = sum(v.numel() for k, v in state.items() if not k.endswith(".kernel"))
    return Converted(target, size_px, len(state), parameters)


def _check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(f"the output {target} must end in {', '.join(SUFFIXES)}")
    check_new(target, overwrite=overwrite, inputs=(source,))


def _read(source: Path) -> tuple[dict[str, Tensor], int]:
    try:
        config, state = load_checkpoint(source)
    except OSError as error:
        raise WeightsError(f"{source} cannot be read: {system_reason(error)}") from error
    except WeightsError as error:
        if source.suffix.lower() != ".onnx" or not _is_whole(source):
            raise
        raise WeightsError(f"{error}; {_as_it_is(source)}") from error
    return state, config.size


def _is_whole(source: Path) -> bool:
    """False for what nothing can run."""
    try:
        check_kind(source, source.name)
    except WeightsError as error:
        _log.info("%s cannot be run as it is: %s", source, error)
        return False
    return True


def _as_it_is(source: Path) -> str:
    """What onnxruntime says to a file whose weights do not fit."""
    from vidrestore.models.restorers.onnx import Onnx

    try:
        Onnx(source, device=torch.device("cpu"), fidelity=1.0)
    except WeightsError as error:
        _log.info("onnxruntime does not run %s: %s", source, error)
        return f"nor does it run through onnxruntime: {error}"
    return f"it runs as it is, through onnxruntime: --restorer {source}"


def _as_bytes(state: dict[str, Tensor], suffix: str) -> bytes:
    # Copies, because entries of a file may share their memory, which .safetensors refuses.
    own = {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    if suffix == ".safetensors":
        from safetensors.torch import save

        return save(own, metadata={"format": "pt"})
    buffer = io.BytesIO()
    torch.save(own, buffer)
    return buffer.getvalue()
