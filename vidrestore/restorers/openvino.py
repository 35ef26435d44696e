"""GPEN compiled by OpenVINO: the fastest form on Intel processors (extra: openvino)."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidrestore.gpen import GPEN, export_onnx
from vidrestore.processors import usable_cores

_KEY_DIGITS = 12


def is_installed() -> bool:
    return importlib.util.find_spec("openvino") is not None


class Kept:
    """What is kept of one weight file in `folder`, under its name, size and time of change.

    The exported graph, what OpenVINO made of it, and how near its result is to float32.
    """

    def __init__(self, weights: Path, folder: Path) -> None:
        found = weights.stat()
        key = hashlib.sha256(f"{weights.name} {found.st_size} {found.st_mtime_ns}".encode())
        self.folder = folder
        self.graph = folder / f"{weights.stem}.{key.hexdigest()[:_KEY_DIGITS]}.onnx"

    def measured(self, number_format: str) -> tuple[int, float] | None:
        """(side S, PSNR to float32 in decibel) where that was measured before, else None."""
        if not self.graph.is_file():
            return None
        try:
            noted = json.loads(self._note(number_format).read_text(encoding="utf-8"))
            return int(noted["size"]), float(noted["psnr_db"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def note(self, number_format: str, size: int, psnr_db: float) -> None:
        content = json.dumps({"size": size, "psnr_db": psnr_db})
        self._note(number_format).write_text(content, encoding="utf-8")

    def export(self, gpen: GPEN) -> None:
        """Write the graph as ONNX, once; a half-written file never has the final name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.graph.is_file():
            return
        unfinished = self.graph.with_suffix(f".{os.getpid()}.part")
        try:
            export_onnx(gpen, unfinished)
            unfinished.replace(self.graph)
        finally:
            unfinished.unlink(missing_ok=True)

    def _note(self, number_format: str) -> Path:
        return self.graph.with_suffix(f".{number_format}.json")


class CompiledGPEN:
    """Called as `InferenceGPEN` is: (B, 3, S, S) in [-1, 1] -> the same, float32, not clamped.

    Faces run one after another: on a CPU a batch gains nothing and costs memory.
    """

    def __init__(self, kept: Kept, size: int, *, bfloat16: bool) -> None:
        import openvino

        core: Any = openvino.Core()
        core.set_property({"CACHE_DIR": str(kept.folder)})
        model = core.read_model(kept.graph)
        model.reshape([1, 3, size, size])
        hint = {
            "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": usable_cores(),
        }
        self._request = core.compile_model(model, "CPU", hint).create_infer_request()

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        results = []
        for face in image:
            outputs = self._request.infer([np.ascontiguousarray(face[None].cpu().numpy())])
            results.append(torch.from_numpy(np.array(outputs[0], dtype=np.float32)))
        return torch.cat(results)
