"""GPEN compiled by OpenVINO: the fastest form on Intel processors (extra: openvino)."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from vidrestore.common.checksums import fields_from_json, with_checksum
from vidrestore.common.errors import system_reason
from vidrestore.common.files import held, remove_tree, written_atomically
from vidrestore.common.system import usable_cores
from vidrestore.models.gpen.checkpoint import export_onnx
from vidrestore.models.gpen.network import GPEN

_KEY_DIGITS = 12
# A network that gives the very same is infinitely near, which JSON has no number for.
_MOST_DB = 999.0
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class UnusableError(Exception):
    """A cached network cannot be used, or OpenVINO cannot run a network; the text is the reason."""


def is_installed() -> bool:
    """Return whether the package openvino is installed, without importing it."""
    return importlib.util.find_spec("openvino") is not None


def import_openvino() -> Any:
    """Import openvino without its telemetry. No other code may import it.

    On import, the package reports to Intel and counts its users in ~/intel, unless the package
    openvino_telemetry is missing. The function makes it look missing, which OpenVINO supports.

    Returns:
        The package.

    Raises:
        ImportError: The package is not installed or is damaged.
    """
    cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)
    import openvino

    return openvino


class Measured(BaseModel):
    """The note on a compiled network."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    size: int = Field(ge=8, le=1 << 14)
    """Side S of its faces in pixels."""
    psnr_db: float = Field(ge=-_MOST_DB, le=_MOST_DB)
    """PSNR of its result for the built-in picture to that in float32, in decibels."""
    sha256: _Sha256
    """SHA-256 of the compiled network's file, 64 hexadecimal digits."""
    openvino: str = Field(max_length=1000)
    """Version of OpenVINO that compiled the network."""
    inputs_sha256: _Sha256
    """SHA-256 of a text that names the weights, the number format and the processor."""


class OpenVinoCache:
    """The compiled network of one weight file in a folder, and a note on it.

    The files' names contain a hash of the weights, the number format and the processor. The note
    repeats the hash and holds the fields of `Measured` with a checksum of them, so that only a
    network that was measured is used, even where files were renamed.

    Args:
        folder: The folder of the cache; it may not exist yet.
        stem: First part of the files' names.
        weights_sha256: SHA-256 of the weight file.
        number_format: Number format of the network.
    """

    def __init__(self, folder: Path, stem: str, weights_sha256: str, number_format: str) -> None:
        self.folder = folder
        key = f"{weights_sha256} {number_format} {_processor()}"
        self._inputs_sha256 = hashlib.sha256(key.encode()).hexdigest()
        name = f"{stem}.{self._inputs_sha256[:_KEY_DIGITS]}"
        self._blob = folder / f"{name}.blob"
        self._note = folder / f"{name}.json"

    def load(self) -> tuple[Measured, bytes] | None:
        """Read the note and the compiled network; None where the cache has none.

        Raises:
            UnusableError: They are damaged, or belong to another network, number format, processor
                or version of OpenVINO.
        """
        try:
            fields = fields_from_json(self._note.read_text(encoding="utf-8"))
            measured = Measured.model_validate(fields)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:  # pydantic's are ValueErrors
            raise UnusableError(f"the note {self._note} is damaged") from error
        if measured.openvino != self._version:
            raise UnusableError(
                f"OpenVINO {measured.openvino} compiled it, and {self._version} is installed"
            )
        if measured.inputs_sha256 != self._inputs_sha256:
            raise UnusableError(f"{self._blob} belongs to another network or processor")
        try:
            content = self._blob.read_bytes()
        except OSError as error:
            raise UnusableError(f"{self._blob} cannot be read: {system_reason(error)}") from error
        if hashlib.sha256(content).hexdigest() != measured.sha256:
            raise UnusableError(f"{self._blob} has changed since it was written")
        return measured, content

    def keep(self, content: bytes, size: int, psnr_db: float) -> None:
        """Write the compiled network and its note, each whole or not at all.

        Args:
            content: Content of the compiled network's file.
            size: Side S of its faces in pixels.
            psnr_db: PSNR of its result to that in float32, in decibels.

        Raises:
            OSError: The folder cannot be written.
        """
        measured = Measured(
            size=size,
            psnr_db=min(max(psnr_db, -_MOST_DB), _MOST_DB),
            sha256=hashlib.sha256(content).hexdigest(),
            openvino=self._version,
            inputs_sha256=self._inputs_sha256,
        )
        note = json.dumps(with_checksum(measured.model_dump()))
        self._note.unlink(missing_ok=True)
        self._write(self._blob, content)
        self._write(self._note, note.encode())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock on the folder, and remove the temporary files that killed runs left."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with held(self.folder / ".openvino.lock", wait=True):
            for left_behind in self.folder.glob("*.part"):
                if left_behind.is_dir() and not left_behind.is_symlink():
                    remove_tree(left_behind)
                else:
                    left_behind.unlink(missing_ok=True)
            yield

    @cached_property
    def _version(self) -> str:
        return str(import_openvino().get_version())

    def _write(self, path: Path, content: bytes) -> None:
        with written_atomically(path) as unfinished:
            unfinished.write_bytes(content)


def _processor() -> str:
    """Return the name and the instruction sets of the processor for which OpenVINO compiles."""
    core = import_openvino().Core()
    names = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
    return " ".join(str(core.get_property("CPU", name)) for name in names)


class CompiledGPEN:
    """A GPEN that OpenVINO compiled, with the interface of `InferenceGPEN`.

    Faces run one after another: on a CPU a batch is not faster and takes more memory.

    Args:
        model: The openvino.CompiledModel.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._request = model.create_infer_request()

    @classmethod
    def compiled(cls, gpen: GPEN, folder: Path, *, bfloat16: bool) -> CompiledGPEN:
        """Compile a network.

        Args:
            gpen: The network.
            folder: Folder for temporary files.
            bfloat16: Whether OpenVINO computes in bfloat16, else in float32.

        Returns:
            The compiled network.

        Raises:
            UnusableError: OpenVINO cannot compile it.
            MemoryError: There is too little memory.
        """
        core = import_openvino().Core()
        size = gpen.config.size
        with tempfile.TemporaryDirectory(
            dir=folder, suffix=".part", ignore_cleanup_errors=True
        ) as temporary:
            export_onnx(gpen, Path(temporary) / "gpen.onnx")
            with _errors():
                model = core.read_model(Path(temporary) / "gpen.onnx")
                model.reshape([1, 3, size, size])
                return cls(core.compile_model(model, "CPU", _hints(bfloat16)))

    @classmethod
    def from_content(cls, content: bytes, *, bfloat16: bool) -> CompiledGPEN:
        """Load a network that was compiled before.

        Args:
            content: What the method `content` returned.
            bfloat16: Whether OpenVINO computes in bfloat16, else in float32.

        Returns:
            The compiled network.

        Raises:
            UnusableError: OpenVINO cannot read it.
            MemoryError: There is too little memory.
        """
        core = import_openvino().Core()
        with _errors():
            return cls(core.import_model(content, "CPU", _hints(bfloat16)))

    def content(self) -> bytes:
        """Return the compiled network as bytes, for `from_content`."""
        with _errors():
            return bytes(self._model.export_model().getvalue())

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Restore faces.

        Args:
            image: (B, 3, S, S) float32 RGB in [-1, 1].

        Returns:
            (B, 3, S, S) float32 RGB on the CPU, nominally in [-1, 1] and not clamped.
        """
        results = []
        for face in image:
            outputs = self._request.infer([np.ascontiguousarray(face[None].cpu().numpy())])
            results.append(torch.from_numpy(np.array(outputs[0], dtype=np.float32)))
        return torch.cat(results)


def _hints(bfloat16: bool) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": usable_cores(),
    }


@contextmanager
def _errors() -> Iterator[None]:
    """Turn OpenVINO's errors into UnusableError or MemoryError."""
    try:
        yield
    except Exception as error:  # OpenVINO has no base class for its errors
        if "allocate memory" in str(error) or isinstance(error, MemoryError):
            raise MemoryError(str(error)) from error
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UnusableError(f"OpenVINO reports {reason}") from error
