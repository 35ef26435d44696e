"""Restore many inputs one after the other; a failure of one does not stop the others."""

from __future__ import annotations

import glob
import logging
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vidrestore.common.errors import (
    InputError,
    UsageError,
    VidrestoreError,
    unknown_name,
)
from vidrestore.common.files import fitting_name, make_output_folder
from vidrestore.common.quoting import quoted
from vidrestore.common.settings import Settings
from vidrestore.common.text_files import can_be_found
from vidrestore.media.containers import is_container
from vidrestore.media.images import is_pattern, is_pictures

if TYPE_CHECKING:
    from vidrestore.jobs.summary import Summary

_log = logging.getLogger("vidrestore")

USUAL_NAME = "{name}{suffix}"
_FIELDS = ("name", "suffix", "number")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for one input."""

    source: Path
    """The input."""
    target: Path
    """The output."""
    status: Literal["restored", "failed", "there already"]
    """Whether the input was restored, failed, or had an output before the batch began."""
    summary: Summary | None = None
    """The summary of the run; None where the input was not restored."""
    message: str = ""
    """The reason of a failure, in one sentence; empty where nothing failed."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "source": str(self.source),
            "target": str(self.target),
            "status": self.status,
            "message": self.message,
            "summary": None if self.summary is None else self.summary.as_dict(),
        }


def expanded(paths: Sequence[Path]) -> list[Path]:
    """Replace patterns such as *.mp4 by the files that match them, as a shell does.

    Args:
        paths: Files and patterns. Patterns of numbered pictures stay as they are.

    Returns:
        The files, those of each pattern sorted by name.

    Raises:
        InputError: No file matches a pattern.
    """
    files: list[Path] = []
    for path in paths:
        if is_pattern(path) or can_be_found(path) or not glob.has_magic(str(path)):
            files.append(path)
            continue
        root = Path(path.anchor)
        named = sorted(each for each in root.glob(str(path.relative_to(root))) if each.is_file())
        if not named:
            raise InputError(f"no file matches {path}; check the pattern")
        files.extend(named)
    return files


def targets_in(
    folder: Path, sources: Sequence[Path], name: str, settings: Settings
) -> list[tuple[Path, Path]]:
    """Name an output for each source, and create the folder of the outputs.

    Args:
        folder: The folder of the outputs.
        sources: The inputs.
        name: The pattern of the names. {name} is the name of the source without its suffix,
            {suffix} the suffix of the source where an output can have it, else .mkv, {number} the
            place of the source, from 1.
        settings: `encode.quality` and `encode.codec` decide on the suffix.

    Returns:
        (source, target) for each source.

    Raises:
        UsageError: The pattern is not valid, or gives two outputs one name.
        OutputError: The folder cannot be created or written to.
    """
    _check_name(name)
    pairs: list[tuple[Path, Path]] = []
    for number, source in enumerate(sources, 1):
        suffix = _suffix(source, settings)
        made = Path(name.format(name=source.stem, suffix=suffix, number=number))
        target = folder / fitting_name(folder, made.stem, made.suffix)
        for other, there in pairs:
            if there == target:
                raise UsageError(
                    f"{other} and {source} would both become {target}; add {{number}} to --name"
                )
        pairs.append((source, target))
    make_output_folder(folder)
    return pairs


def restore_all(
    pairs: Sequence[tuple[Path, Path]],
    restore: Callable[[Path, Path], Summary],
    *,
    overwrite: bool,
) -> Iterator[Outcome]:
    """Restore each input, and yield its outcome before the next begins.

    Args:
        pairs: (source, target) for each input.
        restore: Restores one source into one target.
        overwrite: Whether to replace outputs that exist; else they count as made by an earlier run
            of the same command.

    Yields:
        One outcome for each pair.
    """
    for source, target in pairs:
        if can_be_found(target) and target.is_file() and not overwrite:
            yield Outcome(source, target, "there already")
            continue
        try:
            yield Outcome(source, target, "restored", restore(source, target))
        except VidrestoreError as error:
            _log.debug("%s was not restored", source, exc_info=True)
            yield Outcome(source, target, "failed", message=str(error))
        except Exception as error:  # a defect that one input shows need not affect the others
            _log.debug("%s was not restored", source, exc_info=True)
            message = f"{type(error).__name__}: {error}; run it alone with --debug"
            yield Outcome(source, target, "failed", message=message)


def _check_name(name: str) -> None:
    """Raise UsageError where the pattern of the names is not valid."""
    if Path(name).name != name or not name:
        raise UsageError(
            f"the pattern {quoted(name)} is not a file name; give the folder with --output-dir"
        )
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(name) if field is not None]
    except ValueError as error:
        raise UsageError(f"the pattern {quoted(name)} cannot be read: {error}") from error
    for field in fields:
        if field not in _FIELDS:
            raise UsageError(unknown_name("part of a name", field, _FIELDS))
    if not {"name", "number"}.intersection(fields):
        raise UsageError(
            f"the pattern {quoted(name)} gives every output the same name; add {{name}} to it"
        )


def _suffix(source: Path, settings: Settings) -> str:
    """Choose the suffix of the output of a source."""
    if is_pictures(source):
        return source.suffix
    is_lossless = settings.encode.quality == "archive" or settings.encode.codec == "ffv1"
    return ".mkv" if is_lossless or not is_container(source) else source.suffix
