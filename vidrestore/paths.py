"""What could harm a file, or cannot end well, is refused before any work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vidrestore.containers import container_of
from vidrestore.errors import InputError, OutputError, UsageError
from vidrestore.framemd5 import check_listing_path
from vidrestore.pictures import is_pictures
from vidrestore.stills import check_picture_paths


def check_paths(
    source: Path,
    target: Path,
    framemd5: Path | None = None,
    *,
    report: Path | None = None,
    overwrite: bool,
    beside: Sequence[Path | None] = (),
    is_redo: bool = False,
) -> None:
    """Refuse before any work what could harm a file or cannot end well.

    A redo needs its target and always replaces it.
    """
    try:
        if report is not None:
            read = (source, *filter(None, beside))
            _check_report(report, read, target, framemd5, overwrite=overwrite)
        if is_pictures(source) or is_pictures(target):
            check_picture_paths(source, target, framemd5, overwrite=overwrite)
            return
        if not target.is_dir():
            container_of(target)
        for each in (source, *filter(None, beside)):
            _check_files(each, target, overwrite=overwrite or is_redo)
            if framemd5 is not None:
                check_listing_path(framemd5, each, target, overwrite=overwrite)
        if is_redo and not target.exists():
            raise UsageError(
                f"the output {target} does not exist, so none of its shots can be redone; restore "
                "it with --keep-job first"
            )
    except OSError as error:  # permissions, or a name that is too long
        inputs = map(str, (source, *filter(None, beside)))
        kind = InputError if error.filename in inputs else OutputError
        reason = (error.strerror or str(error)).lower()
        raise kind(f"{error.filename} cannot be reached: {reason}") from error


def _check_report(
    report: Path, inputs: Sequence[Path], target: Path, framemd5: Path | None, *, overwrite: bool
) -> None:
    if report.suffix.lower() not in (".html", ".htm"):
        raise UsageError(
            f"the report is a web page, so its name ends in .html, not {report.name!r}"
        )
    if framemd5 is not None and report.resolve() == framemd5.resolve():
        raise UsageError(f"the report {report} is the listing, too; give them two names")
    for each in inputs:
        check_listing_path(report, each, target, overwrite=overwrite, what="report")


def _check_files(source: Path, target: Path, *, overwrite: bool) -> None:
    if not source.exists():
        raise InputError(f"the file {source} does not exist")
    if not os.access(source, os.R_OK):
        raise InputError(f"the file {source} cannot be read: permission denied")
    if target.is_dir():
        raise UsageError(f"the output {target} is a folder; give a file name in it")
    if target.exists() and source.samefile(target):
        raise UsageError(f"the output {target} is the input itself; choose another name")
    if target.exists() and not overwrite:
        raise UsageError(f"the output {target} exists already; add --overwrite to replace it")
    if not target.parent.is_dir():
        raise OutputError(f"the folder {target.parent} for the output does not exist; create it")
