"""Any face-restoration network that people own as an ONNX file."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from vidrestore.errors import WeightsError
from vidrestore.onnxfile import open_network, type_of
from vidrestore.weightfile import sha256_of


class Onnx:
    """GPEN, GFPGAN, RestoreFormer, CodeFormer and their kin, through onnxruntime.

    The graph takes (1 or N, 3, S, S) RGB in [-1, 1] and gives the same first. A second input of one
    number is CodeFormer's fidelity weight, set to `fidelity`.
    """

    reach_frames = 0

    def __init__(self, path: Path, *, device: torch.device, fidelity: float) -> None:
        self._path = path
        self._session = open_network(path, device)
        image, *others = self._session.get_inputs()
        self.size: int | None = self._side(image)
        self.name = f"{path.name} (onnxruntime, {self._session.get_providers()[0]})"
        self.template = "gpen" if "gpen" in path.name.lower() else "ffhq"
        self._image, self._dtype = image.name, type_of(image, path)
        self._one_by_one = isinstance(image.shape[0], int)
        self._others = {o.name: self._weight(o, fidelity) for o in others}
        self._fidelity = fidelity
        self.is_cheap = self._session.get_providers()[0] != "CPUExecutionProvider"

    @cached_property
    def weights_sha256(self) -> str:
        return sha256_of(self._path)

    @property
    def cache_key(self) -> str:
        run = f"fidelity {self._fidelity}, template {self.template}"
        run += f", onnxruntime {onnxruntime.__version__}"
        return f"{self.name}, weights {self.weights_sha256}, {run}"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """(B, 1, 3, S, S) -> (B, 3, S, S), RGB in [0, 1]."""
        image = (windows[:, 0] * 2 - 1).cpu().numpy().astype(self._dtype)
        parts = np.split(image, len(image)) if self._one_by_one else [image]
        results = [self._session.run(None, {self._image: p, **self._others})[0] for p in parts]
        restored = torch.from_numpy(np.concatenate(results).astype(np.float32))
        return restored.mul_(0.5).add_(0.5).clamp_(0, 1).to(windows.device)

    def _side(self, image: Any) -> int:
        shape = image.shape
        side = shape[-1] if len(shape) == 4 else None
        batch = shape[0] if shape else None
        if isinstance(batch, int) and batch != 1:
            side = None
        if isinstance(side, int) and shape[1:] == [3, side, side] and side & (side - 1) == 0:
            return side
        raise WeightsError(
            f"the network in {self._path} takes {shape}; a face restorer takes (1 or N, 3, S, S) "
            "with S a power of two"
        )

    def _weight(self, value: Any, fidelity: float) -> Any:
        numbers = [n for n in value.shape if isinstance(n, int)]
        if int(np.prod(numbers)) != 1 or len(numbers) != len(value.shape):
            raise WeightsError(
                f"the network in {self._path} wants a second input {value.name} of shape "
                f"{value.shape}; only a single number, CodeFormer's weight, is known"
            )
        return np.full(value.shape, fidelity, type_of(value, self._path))
