"""Weights and inputs made from formulas, for which outputs of the authors' network are stored.

The numbers in `data/gpen-parity/NAME.npz` belong to exactly these; see `weights` and `inputs`.
"""

import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidrestore.models.gpen.network import GPEN

PARITY = Path(__file__).parents[1] / "data" / "gpen-parity"
SHAPE_KEYS = ("size", "style_dim", "n_mlp", "channel_multiplier", "narrow")


@cache
def manifest() -> dict[str, dict[str, Any]]:
    """Return the configurations by name: size, widths, batch, stride, salt, state dict shapes."""
    return json.loads((PARITY / "manifest.json").read_text())


def shape_arguments(name: str) -> dict[str, Any]:
    """Return the arguments of `GPEN` for configuration `name`."""
    return {key: manifest()[name][key] for key in SHAPE_KEYS}


def weights(shapes: dict[str, list[int]], salt: str) -> dict[str, Tensor]:
    """Return normal numbers seeded by each key, scaled so that every parameter matters."""
    state = {}
    for key, shape in shapes.items():
        if key.endswith(".kernel"):
            continue
        seed = zlib.crc32(f"{salt}:{key}".encode())
        a = np.random.RandomState(seed).standard_normal(shape).astype(np.float32)
        state[key] = torch.from_numpy(_scaled(key, a).astype(np.float32))
    return state


def _scaled(key: str, a: np.ndarray) -> np.ndarray:
    if key.endswith("noise.weight"):
        return 0.5 + 0.25 * a
    if key.endswith("modulation.bias"):
        return 1 + 0.25 * a
    if key.startswith("generator.style."):
        return 100 * a if key.endswith("weight") else 10 * a
    return 0.25 * a if key.endswith("bias") else a


def build(name: str) -> GPEN:
    """Return configuration `name` with its formula weights."""
    entry = manifest()[name]
    gpen = GPEN(**shape_arguments(name))
    kernels = {k: v for k, v in gpen.state_dict().items() if k.endswith(".kernel")}
    state = weights(entry["state_dict"], entry["salt"]) | kernels
    gpen.load_state_dict(state, assign=True)
    return gpen.eval().requires_grad_(False)


def inputs(name: str) -> Tensor:
    """Return the sine pattern (B, 3, S, S) float32 in [-1, 1] of configuration `name`."""
    size, batch = manifest()[name]["size"], manifest()[name]["batch"]
    b, c = np.arange(batch)[:, None, None, None], np.arange(3)[:, None, None]
    u, v = np.arange(size) / size, np.arange(size)[:, None] / size
    wave = 0.6 * np.sin(2 * np.pi * ((c + 1) * u + (b + 1) * v))
    chirp = 0.4 * np.sin(2 * np.pi * (7 + c) * u * v + b)
    return torch.from_numpy((wave + chirp).astype(np.float32))


def expected(name: str) -> dict[str, np.ndarray]:
    """Return the authors' numbers: strided, centre, mean, std."""
    with np.load(PARITY / f"{name}.npz") as arrays:
        return dict(arrays)


def measured(name: str, output: Tensor) -> dict[str, np.ndarray]:
    """Return the same four of `output` (B, 3, S, S)."""
    stride, size = manifest()[name]["stride"], output.shape[-1]
    image = output.float().numpy()
    middle = slice(size // 2 - 32, size // 2 + 32)
    wide = image.astype(np.float64)
    return {
        "strided": image[:, :, ::stride, ::stride],
        "centre": image[:, :, middle, middle],
        "mean": wide.mean((2, 3)),
        "std": wide.std((2, 3)),
    }


def relative_rms(value: Any, reference: Any) -> float:
    """Return |value - reference| / |reference| in the Euclidean norm, in float64."""
    value, reference = (np.asarray(x, dtype=np.float64) for x in (value, reference))
    return float(np.linalg.norm(value - reference) / np.linalg.norm(reference))
