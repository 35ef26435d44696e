"""The ffmpeg program: where it is, and what it says of a file that PyAV cannot say."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

import imageio_ffmpeg

from vidrestore.common.errors import OutputError
from vidrestore.common.quoting import printable

_LOG = logging.getLogger("vidrestore")
_SECONDS_TO_INSPECT = 60


class FFmpegRun(NamedTuple):
    status: int
    said: str


def ffmpeg_program() -> str:
    """VIDRESTORE_FFMPEG, else the binary of imageio-ffmpeg; OutputError if it cannot be run."""
    program = os.environ.get("VIDRESTORE_FFMPEG") or str(imageio_ffmpeg.get_ffmpeg_exe())
    if shutil.which(program) is None:
        raise OutputError(
            f"{program} cannot be run; let VIDRESTORE_FFMPEG name an ffmpeg that can, or unset it"
        )
    return program


def run_ffmpeg(arguments: Sequence[str], *, timeout_seconds: float | None = None) -> FFmpegRun:
    """Run the program to its end; it does not outlive an interruption or the time limit."""
    program = ffmpeg_program()
    command = [program, "-hide_banner", "-nostdin", *arguments]
    _LOG.debug("running %s", shlex.join(map(printable, command)))
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise OutputError(f"{program} cannot be run: {error.strerror}") from error
    try:
        said = process.communicate(timeout=timeout_seconds)[1]
    except BaseException:
        process.kill()
        process.wait()
        raise
    return FFmpegRun(process.returncode, said.decode(errors="replace"))


def inspected(path: str) -> str:
    """What ffmpeg prints about the streams of a file; empty where it cannot read it in time."""
    arguments = ["-v", "verbose", "-i", path]
    try:
        return run_ffmpeg(arguments, timeout_seconds=_SECONDS_TO_INSPECT).said
    except subprocess.TimeoutExpired as error:
        _LOG.info("%s is not inspected: %s", printable(path), error)
        return ""
