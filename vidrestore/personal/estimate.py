"""What a training will take: memory from the shapes of all tensors, and time from its arithmetic.

The steps run on tensors that have shapes but no memory. Each operation is counted, and so is each
tensor from when it is made until nothing refers to it any more.
"""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from vidrestore.common.settings import Train
from vidrestore.models.gpen.network import GPEN, GPENConfig
from vidrestore.personal import objectives
from vidrestore.personal.discriminator import Discriminator
from vidrestore.personal.identity import IrSe50
from vidrestore.personal.objectives import Judges
from vidrestore.personal.optimizers import optimizers

# Averaged weights, and those of the best look. The discriminator has neither.
_AVERAGED_COPIES = 2
LIBRARIES_BYTES = 300_000_000
"""Memory of the interpreter and its libraries, in bytes."""
SPARE = 1.15
"""Factor of all other memory, for the working memory of convolutions."""
# The training step whose speed is measured: a small network of the same kind.
_PROBE = GPENConfig(64, style_dim=64, n_mlp=2, narrow=0.25)
_PROBE_BATCH, _PROBE_STEPS = 2, 4


@dataclass(frozen=True, slots=True)
class TrainingEstimate:
    """What a training takes."""

    memory_bytes: int
    """The memory for networks, gradients, optimizers and maps at the peak, in bytes; on the device,
    which is the computer's own without a GPU."""
    state_bytes: int
    """The size of the file with the state, in bytes."""
    step_operations: float
    """The mean number of floating-point operations of a step."""

    def seconds(self, steps: int, operations_per_second: float) -> float:
        """Return the time of a training.

        Args:
            steps: Number of steps.
            operations_per_second: Speed of the device, such as `measured_speed` returns it.

        Returns:
            Seconds, without the looks at crops that are set apart.
        """
        return steps * self.step_operations / operations_per_second


@cache
def estimate_training(
    config: GPENConfig, settings: Train, *, discriminator: bool, identity: bool
) -> TrainingEstimate:
    """Estimate what a training takes, by shapes alone.

    Args:
        config: Shape of the network.
        settings: How to train.
        discriminator: Whether there is a discriminator.
        identity: Whether there is the identity network.

    Returns:
        The estimate.
    """
    meta = torch.device("meta")
    with meta:
        gpen = _network(config)
        judge = (
            Discriminator(config.size, config.channel_multiplier, config.narrow)
            if discriminator
            else None
        )
        embedder = IrSe50() if identity else None
        truth = torch.zeros(settings.batch, 3, config.size, config.size)
    judges = Judges(judge, None if embedder is None else embedder.embed)
    learners = [each for own in optimizers(gpen, judge, settings).values() for each in own]
    _make_gradients(gpen, judge)
    for learner in learners:
        learner.step()
    steps = _steps(gpen, judges, learners, truth, settings)
    peak, operations = 0, 0.0
    for step, every in steps:
        _make_gradients(gpen, judge)
        with _Count() as count:
            step()
        peak = max(peak, count.most_bytes)
        operations += count.operations / every
    gpen_bytes, judge_bytes, identity_bytes = (
        sum(4 * each.numel() for each in network.parameters()) if network is not None else 0
        for network in (gpen, judge, embedder)
    )
    learner_bytes = sum(
        each.nbytes for learner in learners for each in _tensors(learner.state_dict()["state"])
    )
    kept = gpen_bytes + judge_bytes + learner_bytes + _AVERAGED_COPIES * gpen_bytes
    used = kept + gpen_bytes + judge_bytes + identity_bytes  # with the gradients
    return TrainingEstimate(
        memory_bytes=int((used + peak) * SPARE) + LIBRARIES_BYTES,
        state_bytes=kept,
        step_operations=operations,
    )


def measured_speed(device: torch.device) -> float:
    """Measure how fast a device trains, with a small network of the same kind.

    The fastest of a few steps counts, because other programs slow the others down.

    Args:
        device: The device.

    Returns:
        Floating-point operations per second.
    """
    gpen = _network(_PROBE).to(device)
    settings = Train(batch=_PROBE_BATCH)
    side = _PROBE.size
    truth = torch.zeros(_PROBE_BATCH, 3, side, side, device=device)
    run = objectives.layer_runner(settings)

    def step() -> None:
        restored, _ = objectives.restored_faces(gpen, truth, run)
        objectives.add_generator_gradients(Judges(), truth, restored, settings, run)
        gpen.zero_grad()

    with _Count() as count:
        step()  # also warms up
    fastest = math.inf
    for _ in range(_PROBE_STEPS):
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        fastest = min(fastest, time.perf_counter() - began)
    return float(count.operations / fastest)


def batch_that_fits(
    free_bytes: float, config: GPENConfig, settings: Train, *, discriminator: bool, identity: bool
) -> int:
    """Return the largest batch, at most that of the settings, for which memory suffices.

    Args:
        free_bytes: Memory in bytes.
        config: Shape of the network.
        settings: How to train.
        discriminator: Whether there is a discriminator.
        identity: Whether there is the identity network.

    Returns:
        Number of pairs; 0 where not even one fits.
    """

    def bytes_for(batch: int) -> int:
        own = settings.model_copy(update={"batch": batch})
        return estimate_training(
            config, own, discriminator=discriminator, identity=identity
        ).memory_bytes

    most = settings.batch
    if (whole := bytes_for(most)) <= free_bytes:
        return most
    if most == 1 or (one := bytes_for(1)) > free_bytes:
        return 0
    # The peak is the greatest of several that grow evenly, so it lies below the line between.
    return int(1 + (free_bytes - one) / (whole - one) * (most - 1))


def _network(config: GPENConfig) -> GPEN:
    return GPEN(
        config.size, config.style_dim, config.n_mlp, config.channel_multiplier, config.narrow
    )


_Step = Callable[[], object]


def _steps(
    gpen: GPEN,
    judges: Judges,
    learners: Sequence[torch.optim.Optimizer],
    truth: Tensor,
    settings: Train,
) -> Sequence[tuple[_Step, int]]:
    """Return the parts of a step, and in every how many steps each is computed."""
    run, judge = objectives.layer_runner(settings), judges.discriminator

    def learn() -> object:
        restored, _ = objectives.restored_faces(gpen, truth, run)
        if judge is not None:
            objectives.add_discriminator_gradients(judge, truth, restored, run)
        return objectives.add_generator_gradients(judges, truth, restored, settings, run)

    always: list[tuple[_Step, int]] = [(learn, 1), *((each.step, 1) for each in learners)]
    if judge is None:
        return always
    half = truth[: max(len(truth) // 2, 1)]
    return [
        *always,
        (lambda: objectives.add_r1_gradients(judge, truth, settings, run), settings.r1_every),
        (
            lambda: objectives.add_path_gradients(gpen, half, half, 0.0, settings, run),
            settings.path_every,
        ),
    ]


def _make_gradients(*networks: torch.nn.Module | None) -> None:
    """Give all weights gradients, whose memory then counts for no step."""
    for network in networks:
        if network is not None:
            for parameter in network.parameters():
                parameter.grad = torch.zeros_like(parameter)


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations, and the bytes of tensors that are made within it and still referred to."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most_bytes, self.operations = 0, 0.0
        self._bytes = 0
        self._known: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation, and count the tensors that it makes."""
        kwargs = dict(kwargs or {})
        result = func(*args, **kwargs)
        operations = flop_registry.get(getattr(func, "_overloadpacket", None))
        if operations is not None:
            self.operations += operations(*args, **kwargs, out_val=result)
        given = {each.untyped_storage()._cdata for each in _tensors((args, kwargs))}
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage._cdata not in given and storage not in self._known:
                self._add(storage)
        return result

    def _add(self, storage: Any) -> None:
        count = storage.nbytes()
        self._known[storage] = count
        self._bytes += count
        self.most_bytes = max(self.most_bytes, self._bytes)
        weakref.finalize(storage, self._remove, count)

    def _remove(self, count: int) -> None:
        self._bytes -= count


def _tensors(values: Any) -> list[Tensor]:
    return [each for each in tree_leaves(values) if isinstance(each, Tensor)]
