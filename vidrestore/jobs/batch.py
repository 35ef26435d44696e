"""Many inputs, one after the other; one that fails does not stop the rest."""

from __future__ import annotations

import glob
import os
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vidrestore.common.errors import (
    InputError,
    OutputError,
    UsageError,
    VidrestoreError,
    unknown_name,
)
from vidrestore.common.quoting import quoted
from vidrestore.common.settings import Settings
from vidrestore.common.text_files import can_be_found
from vidrestore.jobs.summary import Summary
from vidrestore.media.containers import is_container
from vidrestore.media.images import is_pattern, is_pictures

USUAL_NAME = "{name}{suffix}"
_FIELDS = ("name", "suffix", "number")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one input."""

    source: Path
    target: Path
    status: Literal["restored", "failed", "there already"]
    summary: Summary | None = None
    message: str = ""
    """Why it failed, in one sentence."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "source": str(self.source),
            "target": str(self.target),
            "status": self.status,
            "message": self.message,
            "summary": None if self.summary is None else self.summary.as_dict(),
        }


def expanded(paths: Sequence[Path]) -> list[Path]:
    """With the files that patterns such as *.mp4 stand for, where no shell has put them there."""
    found: list[Path] = []
    for path in paths:
        if is_pattern(path) or can_be_found(path) or not glob.has_magic(str(path)):
            found.append(path)
            continue
        root = Path(path.anchor)
        named = sorted(each for each in root.glob(str(path.relative_to(root))) if each.is_file())
        if not named:
            raise InputError(f"no file has a name such as {path}")
        found.extend(named)
    return found


def targets_in(
    folder: Path, sources: Sequence[Path], name: str, settings: Settings
) -> list[tuple[Path, Path]]:
    """(source, target) of each, the targets in `folder`, which is made, by the pattern `name`.

    {name} stands for the source's name without its suffix, {suffix} for its suffix where an output
    can have that, else for one that holds most, {number} for its place from 1.
    UsageError where two would be the same file.
    """
    _check_name(name)
    pairs: list[tuple[Path, Path]] = []
    for number, source in enumerate(sources, 1):
        suffix = _suffix(source, settings)
        target = folder / name.format(name=source.stem, suffix=suffix, number=number)
        for other, there in pairs:
            if there == target:
                raise UsageError(
                    f"{other} and {source} would both become {target}; add {{number}} to --name"
                )
        pairs.append((source, target))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OutputError(f"the folder {folder} cannot be made: {reason}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"the folder {folder} cannot be written to; choose another")
    return pairs


def restore_all(
    pairs: Sequence[tuple[Path, Path]],
    restore: Callable[[Path, Path], Summary],
    *,
    overwrite: bool,
) -> Iterator[Outcome]:
    """The outcome of each as it is there. What is there already was made by an earlier run of the
    same command, and stays unless `overwrite`."""
    for source, target in pairs:
        if can_be_found(target) and target.is_file() and not overwrite:
            yield Outcome(source, target, "there already")
            continue
        try:
            yield Outcome(source, target, "restored", restore(source, target))
        except VidrestoreError as error:
            yield Outcome(source, target, "failed", message=str(error))
        except Exception as error:  # a defect met with one input says nothing of the others
            message = f"{type(error).__name__}: {error}; run it alone with --debug"
            yield Outcome(source, target, "failed", message=message)


def _check_name(name: str) -> None:
    if Path(name).name != name or not name:
        raise UsageError(
            f"the pattern {quoted(name)} is no file name; leave folders to --output-dir"
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
            f"the pattern {quoted(name)} gives every output one name; add {{name}} to it"
        )


def _suffix(source: Path, settings: Settings) -> str:
    if is_pictures(source):
        return source.suffix
    is_lossless = settings.encode.quality == "archive" or settings.encode.codec == "ffv1"
    return ".mkv" if is_lossless or not is_container(source) else source.suffix
