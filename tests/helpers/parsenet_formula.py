"""A small ParseNet whose weights are those of a formula, for which facexlib's output is stored."""

import math
import zlib

import numpy as np
import torch
from torch import Tensor

SHAPE = {
    "in_size": 64, "out_size": 64, "min_feat_size": 16, "base_ch": 8, "parsing_ch": 19,
    "res_depth": 2, "relu_type": "LeakyReLU", "norm_type": "bn", "ch_range": [8, 16],
}  # fmt: skip
"""The arguments of facexlib's ParseNet (0.3.0): two halvings, two blocks in the body."""


def weights(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Return normal numbers seeded by each key, scaled so that every weight matters."""
    state = {}
    for key, shape in shapes.items():
        a = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros((), dtype=torch.int64)
            continue
        if key.endswith("running_var"):
            a = 1 + 0.2 * np.abs(a)
        elif key.endswith("norm.weight"):
            a = 1 + 0.1 * a
        elif len(shape) == 4:
            a = a / math.sqrt(math.prod(shape[1:]))
        else:
            a = 0.1 * a
        state[key] = torch.from_numpy(np.asarray(a, np.float32))
    return state


def shapes() -> dict[str, list[int]]:
    """Return the state dict of the small network: key -> shape."""
    found: dict[str, list[int]] = {}

    def conv(name: str, given: int, made: int, *, norm: bool) -> None:
        found[f"{name}.conv2d.weight"] = [made, given, 3, 3]
        if not norm:
            found[f"{name}.conv2d.bias"] = [made]
            return
        for own in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.norm.norm.{own}"] = [made]
        found[f"{name}.norm.norm.num_batches_tracked"] = []

    def block(name: str, given: int, made: int, *, shortcut: bool) -> None:
        if shortcut:
            conv(f"{name}.shortcut_func", given, made, norm=False)
        conv(f"{name}.conv1", given, made, norm=True)
        conv(f"{name}.conv2", made, made, norm=True)

    conv("encoder.0", 3, 8, norm=False)
    for name, given, made in (("encoder.1", 8, 16), ("encoder.2", 16, 16)):
        block(name, given, made, shortcut=True)
    for name in ("body.0", "body.1"):
        block(name, 16, 16, shortcut=False)
    for name, given, made in (("decoder.0", 16, 16), ("decoder.1", 16, 8)):
        block(name, given, made, shortcut=True)
    conv("out_img_conv", 8, 3, norm=False)
    conv("out_mask_conv", 8, 19, norm=False)
    return found


def picture() -> Tensor:
    """Return a sine pattern (1, 3, 64, 64) float32 in [-1, 1]."""
    u, v = np.arange(64) / 64, np.arange(64)[:, None] / 64
    c = np.arange(3)[:, None, None]
    wave = 0.6 * np.sin(2 * np.pi * ((c + 1) * u + v)) + 0.4 * np.sin(2 * np.pi * (7 + c) * u * v)
    return torch.from_numpy(wave[None].astype(np.float32))
