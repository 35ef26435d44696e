"""The networks of a training: the GPEN that is adapted, and those that judge what it restores."""

from __future__ import annotations

from pathlib import Path

import torch

from vidrestore.common.checksums import FileHashes
from vidrestore.common.events import OnEvent, notify
from vidrestore.common.settings import RESTORERS, Settings
from vidrestore.models import weights
from vidrestore.models.factory import weight_finder
from vidrestore.models.gpen.checkpoint import load_checkpoint, load_gpen
from vidrestore.models.gpen.network import GPEN, GPENConfig
from vidrestore.models.recognizer import Recognition
from vidrestore.personal.discriminator import load_discriminator
from vidrestore.personal.identity import judge_of, load_identity
from vidrestore.personal.objectives import Judges

_IDENTITY = "ir-se50"


def base_name(base: str) -> str:
    """Return the name of the network to adapt.

    Args:
        base: The setting `train.base`.

    Returns:
        The name of a restorer, or the name of the file without its suffix.
    """
    return base if base in RESTORERS else Path(base).stem


def base_config(base: str) -> GPENConfig:
    """Return the shape of the network to adapt. The weights of a named one need not be here.

    Args:
        base: The setting `train.base`.

    Returns:
        The shape.

    Raises:
        WeightsError: The setting names a file that holds no GPEN.
    """
    if base not in RESTORERS:
        return load_checkpoint(base)[0]
    size_px = _named_size_px(base)
    if size_px == 256:
        return GPENConfig(size_px, channel_multiplier=1, narrow=0.5)
    return GPENConfig(size_px)


def open_base(settings: Settings, on_event: OnEvent | None, hashes: FileHashes) -> GPEN:
    """Open the network to adapt; missing weights are downloaded if allowed.

    Args:
        settings: The settings; `train.base` and `weights` matter.
        on_event: Receives the progress of a download and notices; None: none are sent.
        hashes: Hashes of the files that this run has read already.

    Returns:
        The network, on the CPU.

    Raises:
        WeightsError: The weights are missing, damaged or not those of a GPEN.
    """
    base = settings.train.base
    if base in RESTORERS:
        path = weight_finder(settings, on_event, hashes)(base)
        return load_gpen(path, _named_size_px(base))
    weights.sha256_of_own(Path(base), hashes)
    return load_gpen(base)


def judges_here(size_px: int, settings: Settings) -> tuple[bool, bool]:
    """Tell which of the networks that judge are in the folders of weights.

    Args:
        size_px: Side of the network to adapt, in pixels.
        settings: The settings; `weights` matters.

    Returns:
        Whether there is a discriminator of this size, and whether there is the identity network.
    """
    folders = weights.search_folders(settings.weights.folder, settings.weights.also)
    name = _discriminator_name(size_px)
    has_discriminator = name in weights.load_table() and weights.is_present(name, folders)
    return has_discriminator, weights.is_present(_IDENTITY, folders)


def open_judges(
    size_px: int,
    settings: Settings,
    recognizer: Recognition | None,
    device: torch.device,
    on_event: OnEvent | None,
    hashes: FileHashes,
) -> Judges:
    """Open the networks that judge. None is downloaded; a notice names each one that is missing.

    Args:
        size_px: Side of the network to adapt, in pixels.
        settings: The settings; `weights` matters.
        recognizer: The recognizer of the InsightFace pack; None: it is not here.
        device: The device that trains.
        on_event: Receives notices; None: none are sent.
        hashes: Hashes of the files that this run has read already.

    Returns:
        The judges: the discriminator on the CPU, the identity network on the device.

    Raises:
        WeightsError: A file is damaged or holds another network.
    """
    has_discriminator, has_identity = judges_here(size_px, settings)
    find = weight_finder(settings, on_event, hashes)
    discriminator = embed = None
    if has_discriminator:
        discriminator = load_discriminator(find(_discriminator_name(size_px)))
    else:
        notify(on_event, _missing(_discriminator_name(size_px), "judges how real a face looks"))
    if has_identity:
        embed = load_identity(find(_IDENTITY)).to(device).embed
    else:
        notify(on_event, _missing(_IDENTITY, "judges likeness at each step"))
    compare = None if recognizer is None else judge_of(recognizer)
    if compare is None and embed is None:
        notify(
            on_event,
            "there is neither a recognizer of an InsightFace pack nor model_ir_se50.pth, so "
            "likeness is not judged, and fine detail alone decides whether the network is better",
        )
    return Judges(discriminator, embed, compare)


def _missing(name: str, does: str) -> str:
    """Return the notice about a network that judges and is not here."""
    if name not in weights.load_table():
        return f"there is no {name}, the network that {does}, so training does without it"
    return (
        f"training does without {name}, the network that {does}; vidrestore weights fetch {name} "
        "brings it, for non-commercial use"
    )


def _discriminator_name(size_px: int) -> str:
    return f"gpen-{size_px}-d"


def _named_size_px(base: str) -> int:
    return int(base.removeprefix("gpen-"))
