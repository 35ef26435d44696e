"""Finds and runs the ffmpeg program."""

from __future__ import annotations

import errno
import logging
import os
import re
import shlex
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg

from vidrestore.common.errors import OutputError, system_reason
from vidrestore.common.quoting import printable

_LOG = logging.getLogger("vidrestore")

# The names of the lines that the option -progress prints, beside "frame".
_PROGRESS = re.compile(
    r"fps|stream_\d+_\d+_\w+|bitrate|total_size|out_time(_us|_ms)?|dup_frames|drop_frames|speed|"
    r"progress"
)
_MOST_LINES = 200  # kept of what ffmpeg prints about a damaged file, which can be a line a packet
_ERROR_LINES = 3
_ADDRESS = re.compile(r" @ 0x[0-9a-f]+")


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
    with _Started(arguments) as process:
        printed = process.communicate(timeout=timeout_seconds)[1]
    return FFmpegRun(process.returncode, printed.decode(errors="replace"))


def run_ffmpeg_watched(arguments: Sequence[str], on_frame: Callable[[int], None]) -> FFmpegRun:
    """Run ffmpeg to its end, and report the number of frames that it has written meanwhile.

    The process is killed if an interruption, or an error of `on_frame`, ends the wait.

    Args:
        arguments: The arguments without the program's name.
        on_frame: Receives the number of frames a few times in each second.

    Returns:
        The exit status and the last lines of the text, without the reports of progress.

    Raises:
        OutputError: The program cannot be run.
    """
    # Progress and errors share a stream, since with two of them one could fill up unread.
    printed = deque[str](maxlen=_MOST_LINES)
    with _Started(["-nostats", "-progress", "pipe:2", *arguments]) as process:
        assert process.stderr is not None
        for line in process.stderr:
            text = line.decode(errors="replace").rstrip()
            name, _, value = text.partition("=")
            if name == "frame" and value.strip().isdecimal():
                on_frame(int(value))
            elif _PROGRESS.fullmatch(name) is None:
                printed.append(text)
        process.wait()
    return FFmpegRun(process.returncode, "\n".join(printed))


class _Started:
    """A process of ffmpeg from its start to its end; it is killed if it runs when the scope ends.

    A class and no generator, since interruptions wait until its `__enter__` has returned.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> subprocess.Popen[bytes]:
        program = ffmpeg_program()
        command = [program, "-hide_banner", "-nostdin", *self._arguments]
        _LOG.debug("running %s", shlex.join(map(printable, command)))
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise OutputError(f"{program} cannot be run: {system_reason(error)}") from error
        return self._process

    def __exit__(self, *error: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()


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


def reason_of(run: FFmpegRun) -> str:
    """Return the last lines that a failed run of ffmpeg printed, for the end of a sentence.

    Args:
        run: The finished run.

    Returns:
        The lines, joined, without addresses of memory.
    """
    lines = run.printed.strip().splitlines()[-_ERROR_LINES:]
    return " / ".join(_ADDRESS.sub("", line).strip() for line in lines)
