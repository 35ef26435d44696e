"""Where results go: the names that files may have, and the folder of a new file."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import platformdirs

from vidrestore.common.files import is_same_file
from vidrestore.common.handled import log_handled
from vidrestore.common.quoting import printable
from vidrestore.web.wording import RefusedError

_LONGEST_NAME_BYTES = 200  # names in the work folder beside the file are longer
_MOST_NUMBERS = 1000
_NOT_ON_WINDOWS = re.compile(r'[<>:"|?*]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?", re.IGNORECASE)


def check_name(name: str, suffixes: Sequence[str]) -> str:
    """Check a name that a person gave to a new file.

    Args:
        name: The name.
        suffixes: The suffixes that it may have.

    Returns:
        The name, without spaces around it.

    Raises:
        RefusedError: No file may have this name.
    """
    name = name.strip()
    if not name:
        raise RefusedError("The file needs a name.")
    if re.search(r"[/\\]", name) or name in (".", ".."):
        raise RefusedError("A name must not hold a slash; choose the folder in the list.")
    if printable(name) != name:
        raise RefusedError("The name holds a character that cannot be shown; choose another name.")
    if name.startswith("."):
        raise RefusedError("A name must not begin with a full stop: the file would be hidden.")
    if _RESERVED.fullmatch(name.strip(". ")):
        raise RefusedError("Windows keeps this name for a device; choose another name.")
    if sys.platform == "win32" and (_NOT_ON_WINDOWS.search(name) or name.endswith(".")):
        raise RefusedError('A name must not hold < > : " | ? * or end with a full stop.')
    try:
        length = len(name.encode())
    except UnicodeEncodeError as error:
        log_handled(error)
        raise RefusedError("The name holds a character that no file may have.") from error
    if length > _LONGEST_NAME_BYTES:
        raise RefusedError("The name is too long; choose a shorter one.")
    if Path(name).suffix.lower() not in suffixes or not Path(name).stem:
        allowed = " or ".join(suffixes)
        raise RefusedError(f"The name must end in {allowed}.")
    return name


def name_of_upload(given: str) -> str:
    """Return the name under which an upload is stored.

    Args:
        given: The name that the browser sent.

    Returns:
        A name that leads nowhere and that every system can store.
    """
    name = re.split(r"[/\\]", given)[-1]
    kept = "".join(c if c.isprintable() and printable(c) == c else "_" for c in name)
    kept = _NOT_ON_WINDOWS.sub("_", kept).strip(". ")
    suffix = Path(kept).suffix[:16]
    stem = kept[: len(kept) - len(suffix)] if suffix else kept
    while len((stem + suffix).encode(errors="replace")) > _LONGEST_NAME_BYTES - 40:
        stem = stem[:-1]
    name = (stem.rstrip(". ") or "video") + suffix
    return f"_{name}" if _RESERVED.fullmatch(name) else name


def default_name(source: Path, suffix: str) -> str:
    """Return the usual name of a result.

    Args:
        source: The video or picture.
        suffix: The suffix of the result.

    Returns:
        Such as tape-clear.mp4.
    """
    stem = Path(name_of_upload(source.name)).stem
    return f"{stem}-clear{suffix}"


def numbered(folder: Path, name: str, taken: Collection[Path]) -> str:
    """Find a name that no file has yet.

    Args:
        folder: The folder of the new file.
        name: The name that is preferred.
        taken: Paths that other restorations will write.

    Returns:
        The name, with a number from 2 on where the folder has a file of this name.
    """
    path = Path(name)
    for number in range(2, _MOST_NUMBERS):
        if (folder / name) not in taken and not os.path.lexists(folder / name):
            break
        name = f"{path.stem}-{number}{path.suffix}"
    return name


def default_folder(source: Path | None) -> Path:
    """Return the folder in which a result goes where the user named none.

    Args:
        source: The source if it is a file of the user; None for an upload.

    Returns:
        The folder of the source if it can be written to, else the user's folder of videos, which is
        made if it is missing.
    """
    if source is not None and os.access(source.parent, os.W_OK | os.X_OK):
        return source.parent
    return videos_folder()


def videos_folder() -> Path:
    """Return the user's folder of videos without links; it may not exist."""
    return Path(os.path.realpath(platformdirs.user_videos_path()))


def problem_of(folder: Path) -> str | None:
    """Find out why a result cannot be written into a folder.

    Args:
        folder: The folder; that of the user's videos may be missing.

    Returns:
        A sentence; None if it can be written.
    """
    if folder == videos_folder():  # which is made where it is missing
        folder = next((each for each in (folder, *folder.parents) if each.exists()), folder)
    if not folder.is_dir():
        return "The folder of the result is no longer there; choose another one."
    if not os.access(folder, os.W_OK | os.X_OK):
        return "The folder of the result cannot be written to; choose another one."
    return None


def check_folder(folder: Path) -> None:
    """Check that a result can be written into a folder; the user's folder of videos is made.

    Args:
        folder: The folder.

    Raises:
        RefusedError: It cannot be written to.
    """
    problem = problem_of(folder)
    if problem is None and folder == videos_folder():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            log_handled(error)
            problem = "The folder of your videos cannot be made; choose another one."
    if problem is not None:
        raise RefusedError(problem, 409)


def check_not_a_source(target: Path, sources: Collection[Path]) -> None:
    """Check that a result replaces no video that the page works with.

    Args:
        target: The file to write.
        sources: The videos.

    Raises:
        RefusedError: The target is one of them.
    """
    try:
        if any(is_same_file(target, source) for source in sources):
            raise RefusedError(
                "This is the file of a video on this page; choose another name.", 409
            )
    except OSError as error:
        raise RefusedError(
            "The folder of the result cannot be reached; choose another one.", 409
        ) from error
