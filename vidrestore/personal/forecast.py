"""The forecast of a training: the network it begins with, the batch, and what it will take.

Everything follows from shapes and from the machine as a whole. What other programs use at the
moment does not count, so that the same command gives the same batch, and thus the same network.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from vidrestore.common.counting import counted
from vidrestore.common.errors import UsageError
from vidrestore.common.events import OnEvent, notify
from vidrestore.common.settings import Settings, Train
from vidrestore.common.timecode import duration_text
from vidrestore.models.devices import GB, choose_device, memory_of
from vidrestore.personal.estimate import (
    TrainingEstimate,
    batch_that_fits,
    estimate_training,
    measured_speed,
)
from vidrestore.personal.networks import base_config, base_name, judges_here

# The share of a memory that a training may take.
_ROOM = 0.9
# Bytes for each pixel: a crop that is learned from is kept in 8 bits; a crop that is set apart also
# as a pair of pictures in float32.
_BYTES_LEARNED, _BYTES_APART, _APART_SHARE = 3, 27, 0.2


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a training will take."""

    base: str
    """The name of the network before training."""
    size_px: int
    """Side of the network in pixels."""
    device: str
    """The device that trains."""
    batch: int
    """Number of pairs of each step."""
    steps: int
    """Number of steps, at most."""
    has_discriminator: bool
    """Whether there is a discriminator of this size."""
    has_identity: bool
    """Whether there is the identity network."""
    memory_bytes: int
    """Memory at the peak, in bytes; on the device, or without a GPU that of the computer."""
    room_bytes: int
    """Memory that the training may take, in bytes."""
    crop_bytes: int
    """Memory of the computer for the crops, in bytes, where there are as many as the settings
    allow. It is a part of `memory_bytes` without a GPU."""
    state_bytes: int
    """Size of the file with the state, in bytes."""
    seconds: float
    """Time of all steps at the measured speed of the device, in seconds, at most the time that the
    settings allow. Training may end before all steps are done."""

    def sentence(self) -> str:
        """Return the forecast as a sentence for users."""
        return (
            f"training {self.base} ({self.size_px} px) on {self.device} takes up to "
            f"{self.memory_bytes / GB:.1f} GB of memory with "
            f"{self.batch} faces in each step, {self.state_bytes / GB:.1f} GB on the disk until it "
            f"ends, and about {duration_text(self.seconds)} for {self.steps:,} steps"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for `--json`."""
        return asdict(self)


def forecast(settings: Settings, on_event: OnEvent | None = None) -> Forecast:
    """Forecast what a training will take. The weights need not be here.

    Args:
        settings: The settings; `train`, `restore` (for the device) and `weights` matter.
        on_event: Receives notices. Default: none are sent.

    Returns:
        The forecast.

    Raises:
        UsageError: A single face does not fit into the memory, or the device cannot be used.
        WeightsError: `train.base` is a file that holds no GPEN.
    """
    device = choose_device(settings.restore, lambda message: notify(on_event, message))
    train, config = settings.train, base_config(settings.train.base)
    discriminator, identity = judges_here(config.size, settings)
    crops = _crop_bytes(train, config.size)
    own = crops if device.type == "cpu" else 0
    room = int(_ROOM * memory_of(device, settings.restore))
    batch = batch_that_fits(
        room - own, config, train, discriminator=discriminator, identity=identity
    )
    if batch == 0:
        least = estimate_training(
            config, train.model_copy(update={"batch": 1}), discriminator=discriminator,
            identity=identity,
        )  # fmt: skip
        raise UsageError(
            f"training {base_name(train.base)} takes {(least.memory_bytes + own) / GB:.1f} GB of "
            f"memory for one face at a time, and {room / GB:.1f} GB of that of {device} may be "
            "used; choose a smaller network with --base, such as gpen-512, or fewer crops with "
            "--set train.crops"
        )
    if batch < train.batch:
        notify(
            on_event,
            f"each step has {counted(batch, 'face')} instead of {train.batch}, since more do not "
            f"fit into the memory of {device}",
        )
    estimate = estimate_training(
        config, train.model_copy(update={"batch": batch}), discriminator=discriminator,
        identity=identity,
    )  # fmt: skip
    return Forecast(
        base=base_name(train.base),
        size_px=config.size,
        device=str(device),
        batch=batch,
        steps=train.steps,
        has_discriminator=discriminator,
        has_identity=identity,
        memory_bytes=estimate.memory_bytes + own,
        room_bytes=room,
        crop_bytes=crops,
        state_bytes=estimate.state_bytes,
        seconds=_seconds(estimate, train, device),
    )


def _crop_bytes(train: Train, size_px: int) -> int:
    apart = round(_APART_SHARE * train.crops)
    return size_px**2 * (_BYTES_LEARNED * (train.crops - apart) + _BYTES_APART * apart)


def _seconds(estimate: TrainingEstimate, train: Train, device: torch.device) -> float:
    whole = estimate.seconds(train.steps, measured_speed(device))
    return whole if train.minutes is None else min(whole, 60 * train.minutes)
