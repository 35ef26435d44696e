"""The state of a training on disk, with which a killed training goes on."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vidrestore.common.errors import UsageError, WeightsError
from vidrestore.common.files import no_ordinary_file, written_atomically
from vidrestore.models.weight_file import check_sums

_logger = logging.getLogger("vidrestore")


def write(path: Path, key: str, **parts: Mapping[str, Any]) -> None:
    """Write a state.

    Args:
        path: The file; its folder exists.
        key: Hash of the arguments of the training.
        **parts: Name -> tensors, numbers and texts, also in dicts and lists.

    Raises:
        OSError: The file cannot be written.
    """
    with written_atomically(path) as part, part.open("wb") as file:
        try:
            torch.save({"key": key, **parts}, file)
        except RuntimeError as error:
            # torch ends its archive also after a failure, and then fails once more.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from error
            raise


def read(path: Path, key: str, device: torch.device) -> dict[str, Any] | None:
    """Read a state.

    Args:
        path: The file.
        key: Hash of the arguments of the training.
        device: The device on which its tensors are placed.

    Returns:
        The parts by name; None where there is no file, it is damaged, or of other arguments.

    Raises:
        UsageError: It is a folder, a pipe or a device.
        OSError: The file cannot be read.
    """
    if not path.exists():
        return None
    if (fault := no_ordinary_file(path)) is not None:
        raise UsageError(f"the state of a training {path} {fault}; remove it")
    try:
        check_sums(path)
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        is_of_this = state["key"] == key
    except (WeightsError, RuntimeError, pickle.UnpicklingError, EOFError, LookupError,
            TypeError, ValueError) as error:  # fmt: skip
        _logger.info("%s is damaged, and the training begins anew: %s", path, error)
        return None
    if not is_of_this:
        _logger.info("%s is of another training; this one begins anew", path)
        return None
    return state
