"""The errors that vidrestore raises on purpose. All others are defects of vidrestore.

    VidrestoreError                the base, which a caller catches
    +-- UsageError                 the request cannot be carried out             exit status 2
    |   +-- ConfigError            a setting or profile is unknown or has a wrong value
    +-- InputError                 the source cannot be read as video
    |   +-- ChangedSourceError     the source has other frames than its analysis
    +-- OutputError                the result cannot be written or encoded
    |   +-- FaultyOutputError      the result was written and is damaged
    +-- WeightsError               a weight file is missing, damaged or the wrong one
    +-- ClusterError               the workers cannot be reached, or are lost repeatedly

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
    """The base of every error that vidrestore raises on purpose.

    Args:
        lines: The message. More than one where each shall stand on a line of its own in a terminal,
            such as a command; elsewhere they are joined to one sentence.
    """

    exit_status = 1
    """The exit status of a command that fails with this error."""

    def __init__(self, *lines: object) -> None:
        super().__init__(*lines)

    def __str__(self) -> str:
        return "; ".join(self.lines)

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines of the message."""
        return tuple(str(line) for line in self.args)


class UsageError(VidrestoreError, ValueError):
    """The request contradicts itself or names something that does not exist."""

    exit_status = 2


class ConfigError(UsageError):
    """A setting or profile is unknown or has a value that is not allowed."""


class InputError(VidrestoreError):
    """The source is missing, unreadable, or holds no video."""


class ChangedSourceError(InputError):
    """The source no longer has the frames of its analysis, or changed during the analysis."""


class OutputError(VidrestoreError):
    """The result cannot be encoded or written."""


class FaultyOutputError(OutputError):
    """The finished file is damaged, so a later run must not use its parts."""


class WeightsError(VidrestoreError):
    """A weight file is missing, damaged, or belongs to another network."""


class ClusterError(VidrestoreError):
    """The workers of a cluster cannot be reached, or are lost repeatedly."""


def not_written(what: str, folder: Path, error: Exception, failed: str = "failed") -> OutputError:
    """Create the error for a file that could not be written.

    Args:
        what: The file or the action, as the start of a sentence, such as "the listing a.txt".
        folder: The folder of the file.
        error: The error of the system or of a library.
        failed: The words between `what` and the reason; default: "failed".

    Returns:
        The error. Where the disk or the memory is full, its message tells that and what to do.
    """
    if is_disk_full(error):
        return OutputError(
            f"no space is left in {folder}; make room and run the same command again"
        )
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return OutputError(
            f"{what} {failed}: there is not enough memory; free some, or choose a faster "
            "encode.preset or fewer encode.threads, and run the command again"
        )
    return OutputError(f"{what} {failed}: {system_reason(error)}")


def system_reason(error: BaseException) -> str:
    """Return the reason in an error of the system or a library, for the end of a sentence.

    Args:
        error: An OSError, an error of FFmpeg, or any other error.

    Returns:
        The reason, beginning in lower case, without the number and the file name in the text of an
        OSError; never empty.
    """
    reason = str(getattr(error, "strerror", None) or error or "").strip()
    if not reason:
        return "no reason was given"
    return reason if reason[:2].isupper() else reason[0].lower() + reason[1:]


def reason_beneath(error: BaseException) -> str:
    """Return the reason of the system for an error, without the advice to run a command again.

    Args:
        error: An error, such as that of `not_written`.

    Returns:
        `system_reason` of the OSError that caused it, if there is one, else of the error itself.
    """
    return system_reason(error.__cause__ if isinstance(error.__cause__, OSError) else error)


def is_disk_full(error: BaseException) -> bool:
    """Tell whether an error means that the disk, or the quota of the user on it, is full.

    Args:
        error: The error.

    Returns:
        True for ENOSPC and EDQUOT.
    """
    full = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    return getattr(error, "errno", None) in full


def unknown_name(kind: str, name: object, allowed: Iterable[object]) -> str:
    """Compose the message for a name that is not allowed, with suggestions of similar names.

    Args:
        kind: The kind of the name, such as "profile".
        name: The name, or another value in its place.
        allowed: The allowed names.

    Returns:
        The message, one sentence.
    """
    choices = sorted(map(str, allowed))
    name = name if isinstance(name, str) else quoted(name)
    near = difflib.get_close_matches(name[:_LONGEST_NAME], choices, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"there is no {kind} {quoted(name)}, only {', '.join(choices)}{hint}"
