"""Averaged weights: the mean of the weights over the last steps of training."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


class AveragedWeights(Generic[Network]):
    """An exponential mean of a network's weights (Karras et al. 2018, arXiv:1710.10196, section 5).

    Args:
        network: The network that is trained. The mean begins with its weights.
        half_life_images: Images after which the share of a weight has halved. The GPEN authors
            take 10,000.
    """

    def __init__(self, network: Network, half_life_images: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        """The network with the averaged weights, in evaluation mode."""
        self._half_life_images = half_life_images

    @torch.no_grad()
    def update(self, network: nn.Module, images: int) -> None:
        """Add the weights after a step to the mean.

        Args:
            network: The network that is trained.
            images: Number of images of the step.
        """
        kept = 0.5 ** (images / self._half_life_images)
        values = zip(self.network.parameters(), network.parameters(), strict=True)
        for mean, value in values:
            mean.lerp_(value, 1 - kept)
