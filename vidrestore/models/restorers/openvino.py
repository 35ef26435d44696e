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
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from vidrestore.common.errors import system_reason
from vidrestore.common.files import held, written_atomically
from vidrestore.common.system import usable_cores
from vidrestore.models.gpen.checkpoint import export_onnx
from vidrestore.models.gpen.network import GPEN

_KEY_DIGITS = 12


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


@dataclass(frozen=True, slots=True)
class Measured:
    """A compiled network, and how near its result is to float32."""

    size: int
    """Side S of its faces, in pixels."""
    psnr_db: float
    sha256: str
    """Of what OpenVINO compiled."""
    openvino: str
    """The version that compiled it."""
    made_from: str
    """A hash of the weights, the number format and the processor."""


class OpenVinoCache:
    """What is kept of one weight file in `folder`: what OpenVINO made of it, and a note on it.

    Its name tells the content of the weights, the number format and the processor. The note tells
    these too, and holds the hash of what was written, what was measured of it and the version of
    OpenVINO, with a sum over all of these, so that nothing is used but what was measured, whatever
    the files are called.
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
            measured = _read_note(self._note.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
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
        sha256 = hashlib.sha256(content).hexdigest()
        fields = asdict(Measured(size, psnr_db, sha256, self._version, self._made_from))
        self._note.unlink(missing_ok=True)
        self._write(self._blob, content)
        self._write(self._note, json.dumps(fields | {"sum": _sum_of(fields)}).encode())

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


def _read_note(text: str) -> Measured:
    fields = json.loads(text)
    if fields.pop("sum") != _sum_of(fields):
        raise ValueError("its sum is another")
    return Measured(**fields)


def _sum_of(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


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
