"""The losses with which GPEN is trained.

GPEN is Yang et al. 2021 (arXiv:2105.06070), SG2 is Karras et al. 2020 (StyleGAN2,
arXiv:1912.04958), R1 is Mescheder et al. 2018 (arXiv:1801.04406).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

PATH_MEAN_RATE = 0.01
"""Share of a batch in the running mean of path lengths (SG2, appendix B)."""


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Compute the logistic loss of the discriminator (GPEN, eq. 1).

    Args:
        real: (B, 1) logits of real faces.
        fake: (B, 1) logits of restored faces.

    Returns:
        The mean of softplus(-real) plus that of softplus(fake), a scalar.
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def adversarial_loss(fake: Tensor) -> Tensor:
    """Compute the logistic loss of the generator in its form that does not saturate.

    Args:
        fake: (B, 1) logits of restored faces.

    Returns:
        The mean of softplus(-fake), a scalar.
    """
    return F.softplus(-fake).mean()


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Compute the squared gradient of the discriminator on real faces (R1, eq. 9).

    Args:
        logits: (B, 1) logits of the images.
        images: (B, 3, S, S) real faces, from which the logits were computed with gradients.

    Returns:
        The mean over images of the gradient's squared norm, a scalar with a graph. The loss takes
        half of it times the weight of R1.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


class PathLength(NamedTuple):
    """The penalty of path lengths, and what its running mean becomes."""

    penalty: Tensor
    """Mean squared distance of the lengths to the mean, a scalar with a graph."""
    mean: Tensor
    """The running mean with this batch, a scalar without a graph."""
    lengths: Tensor
    """(B,) length of each image, without a graph."""


def path_length_penalty(
    images: Tensor, latents: Tensor, noise: Tensor, mean: Tensor | float
) -> PathLength:
    """Compute the regularization of path lengths (SG2, section 3.2).

    A length is the norm of the gradient of sum(images * noise / sqrt(H * W)) by the latent codes of
    an image, as root mean square over its layers.

    Args:
        images: (B, 3, H, W) images of the generator.
        latents: (B, L, D) mapped latent codes, one for each layer, from which the images were
            computed with gradients.
        noise: (B, 3, H, W) standard normal noise.
        mean: Running mean of the lengths so far; 0 at the start.

    Returns:
        The penalty, the new running mean, and the lengths. The penalty is the distance to the new
        mean, through which gradients flow, too.
    """
    projected = (images * noise).sum() / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad(projected, latents, create_graph=True)
    lengths = gradient.square().sum(2).mean(1).sqrt()
    new_mean = mean + PATH_MEAN_RATE * (lengths.mean() - mean)
    penalty = (lengths - new_mean).square().mean()
    return PathLength(penalty, new_mean.detach(), lengths.detach())


def smooth_l1(restored: Tensor, truth: Tensor) -> Tensor:
    """Compute the distance of pixels: squared below one and absolute beyond.

    Args:
        restored: (B, 3, S, S) restored faces, in [-1, 1].
        truth: (B, 3, S, S) clear faces, in [-1, 1].

    Returns:
        The mean of d^2 / 2 where d = |restored - truth| is below 1, and of d - 1 / 2 elsewhere.
    """
    return F.smooth_l1_loss(restored, truth)


def identity_loss(restored: Tensor, truth: Tensor) -> Tensor:
    """Compute the distance of embeddings.

    Args:
        restored: (B, d) unit embeddings of restored faces.
        truth: (B, d) unit embeddings of the clear faces.

    Returns:
        The mean of one minus the cosine, a scalar.
    """
    return 1 - (restored * truth).sum(1).mean()
