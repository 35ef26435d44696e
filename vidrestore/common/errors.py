"""Everything that can go wrong and is not a defect of vidrestore itself.

    VidrestoreError                what a caller catches
    +-- UsageError                 the request itself cannot be carried out      exit status 2
    |   +-- ConfigError            an unknown or ill-valued setting or profile
    +-- InputError                 the source cannot be read as video
    |   +-- ChangedSourceError     it no longer gives the frames of its analysis
    +-- OutputError                the result cannot be written or encoded
    |   +-- FaultyOutputError      it was written, and is not what it has to be
    +-- WeightsError               a weight file is missing, damaged or the wrong one
    +-- ClusterError               the workers cannot be reached, or get lost again and again

Each message is one sentence: what was wrong, the value, what is allowed, what to do.
"""

from __future__ import annotations

import difflib
import errno
import logging
from collections.abc import Iterable
from pathlib import Path

from vidrestore.common.quoting import quoted

_LONGEST_NAME = 100

_log = logging.getLogger("vidrestore")


class VidrestoreError(Exception):
    """Base of every error that vidrestore raises on purpose."""

    exit_status = 1


class UsageError(VidrestoreError, ValueError):
    """The request contradicts itself or names something that does not exist."""

    exit_status = 2


class ConfigError(UsageError):
    """A setting or profile is unknown or has a value that is not allowed."""


class InputError(VidrestoreError):
    """The source is missing, unreadable, or holds no video."""


class ChangedSourceError(InputError):
    """The source no longer gives the frames of its analysis, or changed during it."""


class OutputError(VidrestoreError):
    """The result cannot be encoded or written."""


class FaultyOutputError(OutputError):
    """The finished file is not what it has to be, so that nothing of it may be used again."""


class WeightsError(VidrestoreError):
    """A weight file is missing, damaged, or belongs to something else."""


class ClusterError(VidrestoreError):
    """The workers of a cluster cannot be reached, or get lost again and again."""


def not_written(what: str, folder: Path, error: Exception, failed: str = "failed") -> OutputError:
    """The sentence for a file in `folder` that could not be written; `what` says which, as the
    start of one, and `failed` goes on from there."""
    if is_disk_full(error):
        return OutputError(
            f"no space is left in {folder}; make room and run the same command again"
        )
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return OutputError(
            f"{what} {failed}: there is not enough memory; free some, or choose a quicker "
            "encode.preset or fewer encode.threads, and run the command again"
        )
    return OutputError(f"{what} {failed}: {system_reason(error)}")


def system_reason(error: BaseException) -> str:
    """The reason that the system or a library gives, for the end of a sentence.

    Args:
        error: An OSError, an error of FFmpeg, or any other.

    Returns:
        Begun in lower case, without the number and the file name that the text of an OSError has;
        never empty.
    """
    reason = str(getattr(error, "strerror", None) or error or "").strip()
    if not reason:
        return "no reason was given"
    return reason if reason[:2].isupper() else reason[0].lower() + reason[1:]


def is_disk_full(error: BaseException) -> bool:
    """Whether the disk, or the share of it that this user may fill, has no room left."""
    full = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    return getattr(error, "errno", None) in full


def unknown_name(kind: str, name: object, allowed: Iterable[object]) -> str:
    """The sentence for a name that is not in `allowed`, with the nearest ones first."""
    choices = sorted(map(str, allowed))
    name = name if isinstance(name, str) else quoted(name)
    near = difflib.get_close_matches(name[:_LONGEST_NAME], choices, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"there is no {kind} {quoted(name)}, only {', '.join(choices)}{hint}"
