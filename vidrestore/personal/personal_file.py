"""The file of a network that was adapted to a person: a .safetensors with a description.

The tensors are those of a GPEN, so that every reader of its checkpoints takes the file. The
description never holds pictures, names or times, so that the same training gives the same file.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidrestore.common.errors import VidrestoreError, WeightsError
from vidrestore.common.files import check_readable_kind, output_file
from vidrestore.imaging.frame import FloatArray
from vidrestore.models.gpen.network import GPEN
from vidrestore.models.weight_file import check_kind
from vidrestore.personal.request import NETWORK, SUFFIX, check_network_name
from vidrestore.personal.scores import Scores
from vidrestore.personal.trainer import TrainingRecord

# One entry: the order of several entries would differ from file to file.
_ENTRY = "vidrestore"


@dataclass(frozen=True, slots=True, eq=False)
class Description:
    """What is known of a network that was adapted to a person."""

    base: str
    """The name of the network before training, such as "gpen-512"."""
    steps: int
    """The number of steps of training."""
    learned: int
    """The number of crops from which it learned."""
    apart: int
    """The number of crops on which it was judged."""
    before: Scores
    """The scores of the network before training."""
    after: Scores
    """Its own scores, on the same crops."""
    embedding: FloatArray | None
    """(d,) mean embedding of the person, of unit length; None: it was left out."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields for `--json`: all but the numbers of the embedding."""
        fields = _fields(self)
        return fields | {"embedding": self.embedding is not None}


def write_personal_file(
    path: Path,
    network: GPEN,
    record: TrainingRecord,
    *,
    base: str,
    learned: int,
    apart: int,
    embedding: FloatArray | None = None,
) -> Description:
    """Write a network that was adapted to a person, if it is better than before.

    Args:
        path: The .safetensors file.
        network: The network.
        record: What its training did.
        base: Name of the network before training.
        learned: Number of crops from which it learned.
        apart: Number of crops on which it was judged.
        embedding: (d,) mean embedding of the person, of unit length; None leaves it out.

    Returns:
        The description in the file.

    Raises:
        UsageError: The name does not end in .safetensors, or must not be replaced.
        VidrestoreError: The network is not better than before, in identity and detail; there is no
            file then.
        OutputError: The file cannot be written.
    """
    from safetensors.torch import save_file

    check_network_name(path)
    before, after = record.base, record.best.scores
    if not record.is_better:
        raise VidrestoreError(
            f"the network after {record.best.step} steps is not better than {base} on the crops "
            f"that were set apart ({gains(before, after)}), so no file is written; add crops or "
            "steps"
        )
    description = Description(base, record.best.step, learned, apart, before, after, embedding)
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    with output_file(path, NETWORK) as part:
        save_file(tensors, part, {_ENTRY: json.dumps(_fields(description), sort_keys=True)})
    return description


def read_description(path: Path) -> Description | None:
    """Read the description of a network that was adapted to a person.

    Args:
        path: The weight file.

    Returns:
        The description; None where the file is another weight file.

    Raises:
        WeightsError: The file or its description is damaged.
        OSError: The file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    if path.suffix.lower() != SUFFIX:
        return None
    check_readable_kind(path, "the weight file", WeightsError)
    check_kind(path, path.name)
    try:
        with safe_open(path, framework="pt") as file:
            entry = (file.metadata() or {}).get(_ENTRY)
        return None if entry is None else _description(json.loads(entry))
    except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(
            f"the description in {path} is damaged ({error}); make the file again"
        ) from error


def gains(before: Scores, after: Scores) -> str:
    """Describe by how much scores differ.

    Args:
        before: The scores of one network.
        after: The scores of the other.

    Returns:
        Such as "PSNR +1.20 dB, fine detail +0.05, identity +0.02".
    """
    parts = [
        f"PSNR {after.psnr_db - before.psnr_db:+.2f} dB",
        f"fine detail {after.detail - before.detail:+.3f}",
    ]
    if before.identity is not None and after.identity is not None:
        parts.append(f"identity {after.identity - before.identity:+.3f}")
    return ", ".join(parts)


def _fields(description: Description) -> dict[str, Any]:
    own = description.embedding
    return {
        "base": description.base,
        "steps": description.steps,
        "learned": description.learned,
        "apart": description.apart,
        "before": asdict(description.before),
        "after": asdict(description.after),
        "embedding": None if own is None else [float(value) for value in own],
    }


def _description(fields: dict[str, Any]) -> Description:
    """Convert the fields of a file; ValueError, TypeError or KeyError where they are wrong."""
    own = fields["embedding"]
    embedding = None if own is None else np.array(own, np.float32)
    if embedding is not None and (
        embedding.ndim != 1 or not math.isclose(np.linalg.norm(embedding), 1.0, abs_tol=1e-3)
    ):
        raise ValueError("its embedding is no unit vector")
    base, steps, learned, apart = (fields[name] for name in ("base", "steps", "learned", "apart"))
    if not all(type(count) is int for count in (steps, learned, apart)) or type(base) is not str:
        raise ValueError("its counts are no whole numbers, or its base has no name")
    before, after = Scores(**fields["before"]), Scores(**fields["after"])
    return Description(base, steps, learned, apart, before, after, embedding)
