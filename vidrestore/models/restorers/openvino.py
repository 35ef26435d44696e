"""GPEN compiled by OpenVINO: the fastest form on Intel processors (extra: openvino)."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
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
from vidrestore.common.files import held, written_atomically
from vidrestore.common.system import usable_cores
from vidrestore.models.gpen.checkpoint import export_onnx
from vidrestore.models.gpen.network import GPEN

_KEY_DIGITS = 12
# A network that gives the very same is infinitely near, which JSON has no number for.
_MOST_DB = 999.0
_Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class UnusableError(Exception):
    """What was kept cannot be used, or OpenVINO cannot run the network; says why."""


def is_installed() -> bool:
    return importlib.util.find_spec("openvino") is not None


def import_openvino() -> Any:
    """The package openvino, which must be imported nowhere else.

    While it is imported it reports that to Intel, and it counts its users in ~/intel, unless
    openvino_telemetry is missing. So that is made to look missing, for which OpenVINO is prepared.

    Raises:
        ImportError: It is not installed, or damaged.
    """
    cast("dict[str, Any]", sys.modules).setdefault("openvino_telemetry", None)
    import openvino

    return openvino


class Measured(BaseModel):
    """A compiled network, and how near its result is to float32."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    size: int = Field(ge=8, le=1 << 14)
    """Side S of its faces, in pixels."""
    psnr_db: float = Field(ge=-_MOST_DB, le=_MOST_DB)
    sha256: _Sha256
    """Of what OpenVINO compiled."""
    openvino: str = Field(max_length=1000)
    """The version that compiled it."""
    made_from: _Sha256
    """A hash of the weights, the number format and the processor."""


class OpenVinoCache:
    """What is kept of one weight file in `folder`: what OpenVINO made of it, and a note on it.

    Its name tells the content of the weights, the number format and the processor. The note tells
    these too, and holds the hash of what was written, what was measured of it and the version of
    OpenVINO, with a checksum over all of these, so that nothing is used but what was measured,
    whatever the files are called.
    """

    def __init__(self, folder: Path, stem: str, weights_sha256: str, number_format: str) -> None:
        self.folder = folder
        key = f"{weights_sha256} {number_format} {_processor()}"
        self._made_from = hashlib.sha256(key.encode()).hexdigest()
        name = f"{stem}.{self._made_from[:_KEY_DIGITS]}"
        self._blob = folder / f"{name}.blob"
        self._note = folder / f"{name}.json"

    def load(self) -> tuple[Measured, bytes] | None:
        """What was measured, and what was compiled; None where nothing is kept.

        Raises UnusableError where that is damaged, or of another network, number format, processor
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
            raise UnusableError(f"it is of OpenVINO {measured.openvino}, not {self._version}")
        if measured.made_from != self._made_from:
            raise UnusableError(f"{self._blob} was made for another network or processor")
        try:
            content = self._blob.read_bytes()
        except OSError as error:
            raise UnusableError(f"{self._blob} cannot be read: {system_reason(error)}") from error
        if hashlib.sha256(content).hexdigest() != measured.sha256:
            raise UnusableError(f"{self._blob} is not as it was written")
        return measured, content

    def keep(self, content: bytes, size: int, psnr_db: float) -> None:
        """Write what was compiled and the note on it, each whole or not at all."""
        measured = Measured(
            size=size,
            psnr_db=min(max(psnr_db, -_MOST_DB), _MOST_DB),
            sha256=hashlib.sha256(content).hexdigest(),
            openvino=self._version,
            made_from=self._made_from,
        )
        note = json.dumps(with_checksum(measured.model_dump()))
        self._note.unlink(missing_ok=True)
        self._write(self._blob, content)
        self._write(self._note, note.encode())

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other run compiles into the folder; what killed ones left is removed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with held(self.folder / ".openvino.lock", wait=True):
            for left_behind in self.folder.glob("*.part"):
                if left_behind.is_dir() and not left_behind.is_symlink():
                    shutil.rmtree(left_behind, ignore_errors=True)
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
    """What OpenVINO compiles for."""
    core = import_openvino().Core()
    names = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")
    return " ".join(str(core.get_property("CPU", name)) for name in names)


class CompiledGPEN:
    """Called as `InferenceGPEN` is: (B, 3, S, S) in [-1, 1] -> the same, float32, not clamped.

    Faces run one after another: on a CPU a batch gains nothing and costs memory.
    """

    def __init__(self, model: Any) -> None:
        """`model` as OpenVINO compiled it."""
        self._model = model
        self._request = model.create_infer_request()

    @classmethod
    def compiled(cls, gpen: GPEN, folder: Path, *, bfloat16: bool) -> CompiledGPEN:
        """Compile `gpen`, whose graph stands in `folder` meanwhile. UnusableError where OpenVINO
        cannot."""
        core = import_openvino().Core()
        size = gpen.config.size
        with tempfile.TemporaryDirectory(
            dir=folder, suffix=".part", ignore_cleanup_errors=True
        ) as place:
            export_onnx(gpen, Path(place) / "gpen.onnx")
            with _errors():
                model = core.read_model(Path(place) / "gpen.onnx")
                model.reshape([1, 3, size, size])
                return cls(core.compile_model(model, "CPU", _hints(bfloat16)))

    @classmethod
    def from_content(cls, content: bytes, *, bfloat16: bool) -> CompiledGPEN:
        """What `content` gave. UnusableError where OpenVINO cannot read that."""
        core = import_openvino().Core()
        with _errors():
            return cls(core.import_model(content, "CPU", _hints(bfloat16)))

    def content(self) -> bytes:
        """From which it can be had again without compiling."""
        with _errors():
            return bytes(self._model.export_model().getvalue())

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
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
    try:
        yield
    except Exception as error:  # OpenVINO has no base class for its errors
        if "allocate memory" in str(error) or isinstance(error, MemoryError):
            raise MemoryError(str(error)) from error
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UnusableError(f"OpenVINO says {first}") from error
