"""The command line that repeats a run."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from pydantic import BaseModel

from vidrestore.common.settings import Settings
from vidrestore.jobs.request import RestoreRequest


def command_of(request: RestoreRequest) -> str | None:
    """Compose the command that repeats a run.

    It analyzes the source anew where the request had an analysis, and renders in one process.

    Args:
        request: The request of the run.

    Returns:
        One line for the shell of this system; None where the caller gave a restorer of its own,
        which no command can name.
    """
    if request.restorer is not None:
        return None
    words = ["vidrestore", "restore", *map(_absolute, (request.source, request.target))]
    words += _options(request)
    for name, value in changed_settings(request.settings, Settings()):
        words += ["--set", f"{name}={_toml(value)}"]
    words.append("--overwrite")
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def changed_settings(
    settings: BaseModel, usual: BaseModel, where: str = ""
) -> Iterator[tuple[str, object]]:
    """List the settings that differ from others.

    Args:
        settings: The settings, or a section of them.
        usual: The settings to compare with, or the same section of them.
        where: The name of the section with a final period; default: no section.

    Yields:
        (name with its sections, value in `settings`).
    """
    for name in type(settings).model_fields:
        value, other = getattr(settings, name), getattr(usual, name)
        if isinstance(value, BaseModel) and isinstance(other, BaseModel):
            yield from changed_settings(value, other, f"{where}{name}.")
        elif value != other:
            yield f"{where}{name}", value


def _options(request: RestoreRequest) -> Iterator[str]:
    choice, span = request.choice, request.span
    given: dict[str, object] = {
        "--start": None if span is None else span.start_seconds,
        "--end": None if span is None else span.end_seconds,
        "--people": choice.people,
        "--reference": choice.reference,
        "--shots": choice.shots,
        "--min-face": choice.min_face_px,
        "--before-swap": request.before_swap,
        "--plate": request.plate,
        "--layer": request.layer,
        "--framemd5": request.framemd5,
        "--report": request.report,
        "--redo-shots": request.redo_shots,
    }
    for name, value in given.items():
        if value is not None:
            yield f"{name}={_text(value)}"
    if request.keep_job:
        yield "--keep-job"


def _text(value: object) -> str:
    if isinstance(value, Path):
        return _absolute(value)
    if isinstance(value, Fraction):
        return f"{float(value):.9f}".rstrip("0").rstrip(".")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _absolute(path: Path) -> str:
    return str(path.absolute())


def _toml(value: object) -> str:
    """Return a value as TOML; `--set` takes texts that are no TOML as they are."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, BaseModel):
        given = ((name, getattr(value, name)) for name in type(value).model_fields)
        parts = [f"{name} = {_toml(own)}" for name, own in given if own is not None]
        return f"{{{', '.join(parts)}}}"
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_toml, value))}]"
    text = _absolute(value) if isinstance(value, Path) else str(value)
    is_word = text.replace("-", "").isalpha()
    return text if is_word else json.dumps(text, ensure_ascii=False)
