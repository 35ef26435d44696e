"""What the networks are trained for: gradients of the losses of one step.

The training of GPEN alternates between a step of the discriminator and one of the generator. Their
regularizations are computed in few of the steps, with weights as if in all ("lazy regularization",
Karras et al. 2020, arXiv:1912.04958, appendix B).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vidrestore.common.settings import Train
from vidrestore.models.gpen.network import GPEN, Run, run_layer
from vidrestore.personal import losses
from vidrestore.personal.discriminator import Discriminator


@dataclass(frozen=True, slots=True, eq=False)
class Judges:
    """The networks that judge restored faces; without one, its loss is left out."""

    discriminator: Discriminator | None = None
    """Learns to tell restored faces from real ones."""
    embed: Callable[[Tensor], Tensor] | None = None
    """Maps (B, 3, S, S) faces in [-1, 1] to (B, d) unit embeddings, with gradients; such as
    `IrSe50.embed`."""
    compare: Callable[[Tensor], Tensor] | None = None
    """As `embed`, without gradients, for scores alone; such as `identity.judge_of`. None: `embed`
    scores, too."""

    @property
    def scoring(self) -> Callable[[Tensor], Tensor] | None:
        """Maps faces to the embeddings whose cosines are a score; None: there is no such score."""
        return self.compare or self.embed


def layer_runner(settings: Train) -> Run:
    """Return what runs each layer in training.

    Args:
        settings: How to train.

    Returns:
        `run_layer`, or a function that keeps only inputs and results of layers for the gradients
        (Chen et al. 2016, arXiv:1604.06174).
    """
    if not settings.save_memory:
        return run_layer
    return cast(Run, partial(checkpoint, use_reentrant=False, preserve_rng_state=False))


def restored_faces(gpen: GPEN, degraded: Tensor, run: Run) -> tuple[Tensor, Tensor]:
    """Restore faces, and return the latent codes of which they are functions.

    Args:
        gpen: The network.
        degraded: (B, 3, S, S) float32 RGB in [-1, 1].
        run: Runs each layer.

    Returns:
        The restored faces (B, 3, S, S), not clamped, and the mapped latent codes (B, L, D), one for
        each layer.
    """
    code, features = gpen.encode(degraded, run)
    latents = gpen.generator.style(code)[:, None].expand(-1, 2 * len(features), -1)
    return gpen.generator.synthesize(latents.unbind(1), features, run), latents


def add_discriminator_gradients(
    discriminator: Discriminator, truth: Tensor, restored: Tensor, run: Run
) -> dict[str, Tensor]:
    """Add the gradients of the discriminator's loss to its parameters.

    Args:
        discriminator: The discriminator.
        truth: (B, 3, S, S) clear faces in [-1, 1].
        restored: (B, 3, S, S) restored faces, to which no gradients flow.
        run: Runs each layer.

    Returns:
        The loss, by name, a scalar without a graph.
    """
    fake = discriminator(restored.detach(), run)
    loss = losses.discriminator_loss(discriminator(truth, run), fake)
    loss.backward()  # type: ignore[no-untyped-call]
    return {"discriminator": loss.detach()}


def add_r1_gradients(
    discriminator: Discriminator, truth: Tensor, settings: Train, run: Run
) -> dict[str, Tensor]:
    """Add the gradients of the R1 penalty to the discriminator's parameters.

    Args:
        discriminator: The discriminator.
        truth: (B, 3, S, S) clear faces in [-1, 1].
        settings: How to train.
        run: Runs each layer.

    Returns:
        The penalty without its weight, by name, a scalar without a graph.
    """
    images = truth.detach().clone().requires_grad_()
    penalty = losses.r1_penalty(discriminator(images, run), images)
    weight = settings.r1_weight / 2 * settings.r1_every
    (weight * penalty).backward()  # type: ignore[no-untyped-call]
    return {"r1": penalty.detach()}


def add_generator_gradients(
    judges: Judges, truth: Tensor, restored: Tensor, settings: Train, run: Run
) -> dict[str, Tensor]:
    """Add the gradients of the generator's losses to its parameters.

    Args:
        judges: The networks that judge.
        truth: (B, 3, S, S) clear faces in [-1, 1].
        restored: (B, 3, S, S) faces of `restored_faces`, whose graph is used up.
        settings: How to train.
        run: Runs each layer.

    Returns:
        The losses without their weights, by name, scalars without a graph.
    """
    distance = losses.smooth_l1(restored, truth)
    found, total = {"pixel": distance}, settings.pixel_weight * distance
    if judges.embed is not None:
        with torch.no_grad():
            wanted = judges.embed(truth)
        found["identity"] = losses.identity_loss(judges.embed(restored), wanted)
        total = total + settings.identity_weight * found["identity"]
    if judges.discriminator is None:
        total.backward()  # type: ignore[no-untyped-call]
    else:
        # Until after the gradients, for which checkpointed layers run once more.
        with _frozen(judges.discriminator):
            logits = judges.discriminator(restored, run)
            found["adversarial"] = losses.adversarial_loss(logits)
            total = total + settings.adversarial_weight * found["adversarial"]
            total.backward()  # type: ignore[no-untyped-call]
    return {name: loss.detach() for name, loss in found.items()}


def add_path_gradients(
    gpen: GPEN, degraded: Tensor, noise: Tensor, mean: float, settings: Train, run: Run
) -> tuple[dict[str, Tensor], Tensor]:
    """Add the gradients of the regularization of path lengths to the generator's parameters.

    Args:
        gpen: The network that restores.
        degraded: (B, 3, S, S) bad pictures in [-1, 1].
        noise: (B, 3, S, S) standard normal noise.
        mean: The running mean of path lengths.
        settings: How to train.
        run: Runs each layer.

    Returns:
        The penalty without its weight, by name, and the new running mean; scalars without a graph.
    """
    restored, latents = restored_faces(gpen, degraded, run)
    path = losses.path_length_penalty(restored, latents, noise, mean)
    weight = settings.path_weight * settings.path_every
    (weight * path.penalty).backward()  # type: ignore[no-untyped-call]
    return {"path": path.penalty.detach()}, path.mean


@contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Let no gradients flow to the parameters of a network."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)
