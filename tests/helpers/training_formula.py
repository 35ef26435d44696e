"""Weights and inputs made from formulas, for which numbers of the authors' training are stored.

The numbers in `data/training-parity` belong to exactly these; see `weights` and `waves`.
"""

import json
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PARITY = Path(__file__).parents[1] / "data" / "training-parity"


@cache
def numbers() -> dict[str, dict[str, Any]]:
    """Return the authors' scalars, gradient norms and shapes of state dicts, by entry."""
    return json.loads((PARITY / "training.json").read_text())


def array(name: str) -> np.ndarray:
    """Return one of the authors' arrays."""
    with np.load(PARITY / "training.npz") as arrays:
        return arrays[name]


def shapes(network: nn.Module) -> list[tuple[str, list[int]]]:
    """Return names and shapes of a network's state dict, in its order."""
    return [(key, list(value.shape)) for key, value in network.state_dict().items()]


def normal(key: str, shape: list[int]) -> np.ndarray:
    """Return normal numbers seeded by a key."""
    seed = zlib.crc32(f"vidrestore:{key}".encode())
    return np.random.RandomState(seed).standard_normal(shape).astype(np.float32)


def load_discriminator_weights(network: nn.Module, name: str) -> None:
    """Give a discriminator the formula weights of entry `name`."""
    state = network.state_dict()
    for key, value in state.items():
        if not key.endswith(".kernel"):
            factor = 0.25 if key.endswith("bias") else 1.0
            value.copy_(torch.from_numpy(factor * normal(f"{name}:{key}", list(value.shape))))


def load_identity_weights(network: nn.Module) -> None:
    """Give the identity network its formula weights."""
    slopes = set(numbers()["ir_se50"]["prelu_keys"])
    for key, value in network.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        r = normal(f"ir_se50:{key}", list(value.shape))
        if key.endswith("running_var"):
            r = 1 + 0.2 * np.abs(r)
        elif key.endswith(("running_mean", "bias")):
            r = 0.1 * r
        elif r.ndim > 1:
            r = r * np.sqrt(1 / np.prod(r.shape[1:]))
        elif key in slopes:
            r = 0.25 + 0.05 * r
        else:
            r = 1 + 0.1 * r
        value.copy_(torch.from_numpy(r.astype(np.float32)))


def waves(size: int, batch: int, shift: int = 0) -> Tensor:
    """Return the sine pattern (B, 3, S, S) float32 in [-1, 1]."""
    b, c = np.arange(batch)[:, None, None, None], np.arange(3)[:, None, None]
    u, v = np.arange(size) / size, np.arange(size)[:, None] / size
    wave = 0.6 * np.sin(2 * np.pi * ((c + 1) * u + (b + 1 + shift) * v))
    chirp = 0.4 * np.sin(2 * np.pi * (7 + c) * u * v + b + shift)
    return torch.from_numpy((wave + chirp).astype(np.float32))


def gradient_norms(network: nn.Module) -> dict[str, float]:
    """Return the Euclidean norm of each parameter's gradient."""
    return {
        key: float(p.grad.norm()) for key, p in network.named_parameters() if p.grad is not None
    }
