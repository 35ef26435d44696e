"""How a graded picture came from another one of the same view, and the same done to a third.

Small pictures of the unit crop, R'G'B' in [0, 1], display values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

GRID_PX = 64
"""Side of the small pictures that are compared."""

# Weight of "one gain for all channels" against what the pictures say, as a variance: where a face
# has no colours of a kind, nothing is known of what becomes of them.
_RIDGE = 1e-4

Grade = npt.NDArray[np.float64]
"""(3, 4): graded = grade @ (red, green, blue, 1)."""


def grade_between(picture: torch.Tensor, graded: torch.Tensor) -> Grade:
    """What leads from (3, W, W) `picture` to `graded` of the same size, by least squares.

    A gain that the channels share is found first, and is what directions without any variance get.
    """
    p, q = (_small(each) for each in (picture, graded))
    p_mean, q_mean = p.mean(axis=0), q.mean(axis=0)
    spread = (p - p_mean).T @ (p - p_mean) / len(p)
    both = (p - p_mean).T @ (q - q_mean) / len(p)
    ridge = _RIDGE * np.eye(3)
    gain = (np.trace(both) + _RIDGE) / (np.trace(spread) + _RIDGE)
    linear = np.linalg.solve(spread + ridge, both + gain * ridge).T
    return np.column_stack([linear, q_mean - linear @ p_mean])


def graded(picture: torch.Tensor, grade: Grade) -> torch.Tensor:
    """(3, h, w) in [0, 1]."""
    matrix = torch.as_tensor(grade, dtype=picture.dtype, device=picture.device)
    shown = torch.einsum("ij,jhw->ihw", matrix[:, :3], picture) + matrix[:, 3, None, None]
    return shown.clamp(0, 1)


def _small(picture: torch.Tensor) -> npt.NDArray[Any]:
    """(n, 3) its colours, without detail that only one of two pictures has."""
    return F.adaptive_avg_pool2d(picture, GRID_PX).flatten(1).T.double().cpu().numpy()
