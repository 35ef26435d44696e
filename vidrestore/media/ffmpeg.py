"""Finds and runs the ffmpeg program."""

from __future__ import annotations

import errno
import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg

from vidrestore.common.errors import OutputError, system_reason
from vidrestore.common.quoting import printable

_LOG = logging.getLogger("vidrestore")


class FFmpegRun(NamedTuple):
    """How a run of ffmpeg ended."""

    status: int
    """Its exit status."""
    printed: str
    """What it wrote to standard error."""


def ffmpeg_program() -> str:
    """Return the ffmpeg program: VIDRESTORE_FFMPEG, else the binary of imageio-ffmpeg.

    Returns:
        The path or the name of the program.

    Raises:
        OutputError: The program cannot be run.
    """
    program = os.environ.get("VIDRESTORE_FFMPEG") or str(imageio_ffmpeg.get_ffmpeg_exe())
    if shutil.which(program) is None:
        raise OutputError(
            f"{program} cannot be run; set VIDRESTORE_FFMPEG to an ffmpeg that can, or unset it"
        )
    return program


def run_ffmpeg(arguments: Sequence[str], *, timeout_seconds: float | None = None) -> FFmpegRun:
    """Run ffmpeg to its end and collect what it writes to standard error.

    The process is killed if an interruption or the time limit ends the wait.

    Args:
        arguments: The arguments without the program's name.
        timeout_seconds: The time limit; None: no limit.

    Returns:
        The exit status and the text.

    Raises:
        OutputError: The program cannot be run.
        subprocess.TimeoutExpired: The time limit has passed.
    """
    program = ffmpeg_program()
    command = [program, "-hide_banner", "-nostdin", *arguments]
    _LOG.debug("running %s", shlex.join(map(printable, command)))
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise OutputError(f"{program} cannot be run: {system_reason(error)}") from error
    try:
        printed = process.communicate(timeout=timeout_seconds)[1]
    except BaseException:
        process.kill()
        process.wait()
        raise
    return FFmpegRun(process.returncode, printed.decode(errors="replace"))


def check_room(run: FFmpegRun, target: Path) -> None:
    """Check that the disk was not full while ffmpeg ran; only the text of ffmpeg shows that.

    Args:
        run: The finished run.
        target: The file that ffmpeg wrote, for the error.

    Raises:
        OSError: The disk was full.
    """
    full = os.strerror(errno.ENOSPC)
    if full in run.printed:
        raise OSError(errno.ENOSPC, full, str(target))
