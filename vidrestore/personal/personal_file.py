"""The file of a network that was adapted to a person: a .safetensors with a description.

The tensors are those of a GPEN, so that every reader of its checkpoints takes the file. The
description never holds pictures, names or times, so that the same training gives the same file.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from vidrestore.common.errors import VidrestoreError, WeightsError
from vidrestore.common.files import check_readable_kind, output_file
from vidrestore.common.quoting import first_line, quoted
from vidrestore.imaging.frame import FloatArray
from vidrestore.models.gpen.network import GPEN
from vidrestore.models.weight_file import check_kind
from vidrestore.personal.request import NETWORK, SUFFIX, check_network_name
from vidrestore.personal.scores import Scores
from vidrestore.personal.trainer import TrainingRecord

# One entry: the order of several entries would differ from file to file.
_ENTRY = "vidrestore"
_COUNTS = ("steps", "learned", "apart")
_NAMES = frozenset([*_COUNTS, "base", "before", "after", "embedding"])
_SCORES = frozenset(field.name for field in fields(Scores))
# More than any training writes; the file may come from someone else.
_LONGEST_NAME, _LONGEST_EMBEDDING = 255, 4096
_GREATEST_COUNT, _GREATEST_NUMBER = 10**9, 1e9


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
        return _fields(self) | {"embedding": self.embedding is not None}


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
    from safetensors.torch import save

    check_network_name(path)
    before, after = record.base, record.best.scores
    if not record.is_better:
        raise VidrestoreError(
            f"the network after {record.best.step} steps is not better than {base} on the crops "
            f"that were set apart ({gains(before, after)}), so no file is written; add crops, or "
            "train longer (--steps, --minutes and train.patience)"
        )
    description = Description(base, record.best.step, learned, apart, before, after, embedding)
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    with output_file(path, NETWORK, is_last=True) as part:
        part.write_bytes(save(tensors, {_ENTRY: json.dumps(_fields(description), sort_keys=True)}))
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
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is damaged: {first_line(error)}; make the file again, or copy it again"
        ) from error
    if entry is None:
        return None
    try:
        return _description(json.loads(entry))
    except (ValueError, RecursionError) as error:
        # What json tells of a text is no help to a user.
        fault = str(error) if isinstance(error, _FaultError) else "it is no JSON of such a network"
        raise WeightsError(
            f"the description in {path} is damaged ({fault}); make the file again"
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


class _FaultError(ValueError):
    """What is wrong with a description, for the user."""


def _description(found: Any) -> Description:
    """Convert the description in a file, which anyone may have written."""
    if not isinstance(found, dict) or not found.keys() >= _NAMES:
        raise _FaultError(f"it lacks one of {', '.join(sorted(_NAMES))}")
    base, own = found["base"], found["embedding"]
    if type(base) is not str or not 0 < len(base) <= _LONGEST_NAME:
        raise _FaultError(f"base is {quoted(base)}, which is no name")
    counts = {name: found[name] for name in _COUNTS}
    for name, count in counts.items():
        if type(count) is not int or not 0 <= count <= _GREATEST_COUNT:
            raise _FaultError(f"{name} is {quoted(count)}, which is no count")
    before, after = (_scores(found[name]) for name in ("before", "after"))
    embedding = None if own is None else _embedding(own)
    return Description(base=base, before=before, after=after, embedding=embedding, **counts)


def _scores(found: Any) -> Scores:
    if not isinstance(found, dict) or found.keys() != _SCORES:
        raise _FaultError(f"scores must be {', '.join(sorted(_SCORES))}")
    for name, value in found.items():
        if not (_is_number(value) or (name == "identity" and value is None)):
            raise _FaultError(f"{name} is {quoted(value)}, which is no number")
    return Scores(**found)


def _embedding(values: Any) -> FloatArray:
    is_vector = isinstance(values, list) and len(values) <= _LONGEST_EMBEDDING
    if is_vector and all(_is_number(value) and abs(value) < 2 for value in values):
        embedding = np.array(values, np.float32)
        if math.isclose(np.linalg.norm(embedding), 1.0, abs_tol=1e-3):
            return embedding
    raise _FaultError("its embedding is no unit vector")


def _is_number(value: Any) -> bool:
    # A whole number of hundreds of digits is no float.
    return type(value) in (int, float) and abs(value) < _GREATEST_NUMBER
