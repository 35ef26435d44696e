"""The optimizers of a training: Muon or Adam for the network, Adam for the discriminator.

Muon is Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon). The scale of its steps is
after Liu et al. 2025 (arXiv:2502.16982, section 2.2), so that rates mean the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidrestore.common.settings import Train
from vidrestore.models.gpen.network import GPEN

# The decays of Adam's moments that GPEN's authors take. What Muon leaves to Adam (biases, and the
# layers from and to RGB) has momentum as well.
_FIRST_MOMENT, _SECOND_MOMENT, _FIRST_MOMENT_BESIDE_MUON = 0.0, 0.99, 0.9
_MOMENTUM = 0.95
# The odd polynomial whose repeated application moves all singular values into about [0.7, 1.2].
_POLYNOMIAL = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
# Weights with no more rows or columns than this are no matrices to Muon: they lead from or to RGB.
_COLORS = 3
_LEAST_NORM = 1e-12


class Muon(torch.optim.Optimizer):
    """Gradient descent with momentum, in which the step of each weight is an orthogonal matrix.

    All directions of a step have about the same length. So a network also learns what changes its
    result little, which plain gradients hide. The matrix of a convolution has a row for each output
    channel and a column for each input channel and tap. The root mean square of the step of a
    matrix is about the rate, as it is with Adam without momentum.

    Args:
        groups: For each group, `params`, weights for which `is_matrix` holds, and `lr`, the rate.
        momentum: Share of the mean gradient that stays in each step.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], momentum: float) -> None:
        super().__init__(groups, {"momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Change all weights that have gradients.

        Args:
            closure: Not used.
        """
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["mean"] = torch.zeros_like(weight)
                mean = state["mean"].lerp_(weight.grad, 1 - group["momentum"])
                # Nesterov's form: the mean as it will be if the gradient stays.
                matrix = _matrix(weight.grad.lerp(mean, group["momentum"]))
                step = orthogonalized(matrix) * max(matrix.shape) ** 0.5
                weight.sub_(step.reshape(weight.shape), alpha=group["lr"])


def is_matrix(weight: Tensor) -> bool:
    """Return whether Muon changes a weight: a matrix or kernel between more channels than RGB has.

    Args:
        weight: A weight of a network.

    Returns:
        Whether it is one.
    """
    return weight.dim() > 1 and min(_matrix(weight).shape) > _COLORS


def _matrix(weight: Tensor) -> Tensor:
    """Return a weight as (outputs, inputs x taps)."""
    # The weights of modulated convolutions are (1, O, I, k, k).
    return (weight[0] if weight.dim() == 5 else weight).flatten(1)


def orthogonalized(matrix: Tensor) -> Tensor:
    """Return a matrix with the same singular vectors and singular values of about one.

    The values come into about [0.7, 1.2] by a fixed number of Newton-Schulz iterations; those that
    are a thousandth of the largest or less stay below.

    Args:
        matrix: (m, n) float32.

    Returns:
        (m, n) float32.
    """
    is_high = matrix.shape[0] > matrix.shape[1]
    wide = matrix.T if is_high else matrix
    wide = wide / torch.linalg.matrix_norm(wide).clamp(min=_LEAST_NORM)
    first, third, fifth = _POLYNOMIAL
    for _ in range(_ITERATIONS):
        gram = wide @ wide.T
        factor = torch.addmm(gram, gram, gram, beta=third, alpha=fifth)
        wide = torch.addmm(wide, factor, wide, beta=first)
    return wide.T if is_high else wide


def optimizers(
    gpen: GPEN, discriminator: nn.Module | None, settings: Train
) -> Mapping[str, Sequence[torch.optim.Optimizer]]:
    """Return the optimizers of both networks, their rates and decays scaled for lazy penalties.

    Args:
        gpen: The network that restores.
        discriminator: The discriminator; None: there is none.
        settings: How to train.

    Returns:
        "generator" and, with a discriminator, "discriminator" -> the optimizers, each of other
        weights.
    """
    is_regularized = discriminator is not None and settings.path_weight > 0
    share = settings.path_every / (settings.path_every + 1) if is_regularized else 1.0
    decoder = {id(weight) for weight in gpen.generator.parameters()}
    rated = (
        (settings.decoder_rate * share, list(gpen.generator.parameters())),
        (settings.encoder_rate * share, [w for w in gpen.parameters() if id(w) not in decoder]),
    )
    generator: Sequence[torch.optim.Optimizer]
    if settings.optimizer == "muon":
        generator = (
            Muon(_groups(rated, is_matrix), _MOMENTUM**share),
            _adam(_groups(rated, lambda w: not is_matrix(w)), share, _FIRST_MOMENT_BESIDE_MUON),
        )
    else:
        generator = (_adam(_groups(rated, lambda _: True), share, _FIRST_MOMENT),)
    if discriminator is None:
        return {"generator": generator}
    share = settings.r1_every / (settings.r1_every + 1) if settings.r1_weight else 1.0
    judge = ((settings.discriminator_rate * share, list(discriminator.parameters())),)
    judging = _adam(_groups(judge, lambda _: True), share, _FIRST_MOMENT)
    return {"generator": generator, "discriminator": (judging,)}


def set_rates(learners: Iterable[torch.optim.Optimizer], done_share: float) -> None:
    """Set the learning rates: in the second half of a training they fall evenly to zero.

    So the weights settle. With constant rates they keep moving around the best ones, as far as a
    step is long.

    Args:
        learners: Optimizers of `optimizers`.
        done_share: The share of the training that is done, in [0, 1].
    """
    for learner in learners:
        for group in learner.param_groups:
            group["lr"] = group["initial_lr"] * min(1.0, 2 * (1 - done_share))


def _groups(
    rated: Iterable[tuple[float, list[nn.Parameter]]], is_own: Callable[[Tensor], bool]
) -> list[dict[str, Any]]:
    return [
        {
            "params": [weight for weight in weights if is_own(weight)],
            "lr": rate,
            "initial_lr": rate,
        }
        for rate, weights in rated
    ]


def _adam(groups: list[dict[str, Any]], share: float, first_moment: float) -> torch.optim.Adam:
    """Return Adam whose steps are a share of all steps, the others being those of a penalty."""
    return torch.optim.Adam(groups, betas=(first_moment**share, _SECOND_MOMENT**share))
