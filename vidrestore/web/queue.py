"""A queue of vidrestore commands, each in its own process; one runs at a time."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vidrestore.common.errors import VidrestoreError, system_reason
from vidrestore.common.events import (
    Done,
    DownloadProgress,
    Failure,
    Notice,
    Progress,
    line_from_dict,
)
from vidrestore.common.handled import log_handled, logged
from vidrestore.web.folders import OwnFolders

COMMAND = (sys.executable, "-m", "vidrestore")

State = Literal["waiting", "running", "stopping", "stopped", "failed", "done"]

_PATIENCE_SECONDS = 20.0  # from the request to stop a command until it is killed
_LONGEST_LINE = 2**26  # the last line for a long film is long
_LINES_KEPT = 100
DEFECT = (
    "the work stopped because of an error in vidrestore itself; "
    "the terminal that runs the page shows the error"
)
_PYTHON_ERROR = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b(:|$)")

_log = logging.getLogger("vidrestore")


@dataclass(slots=True)
class StageProgress:
    """The progress of one stage of a command."""

    stage: str
    """The name of the stage, as in `vidrestore.Progress`, or of the file that is downloaded."""
    unit: Literal["frames", "bytes"]
    """The unit of `done`, `total` and `first`."""
    done: int
    """The amount that is done."""
    total: int | None
    """The amount in all; None if it is not known."""
    first: int
    """The amount that was already done in the first event of the stage."""
    began_seconds: float
    """The time of the first event, in seconds of the monotonic clock."""

    def seconds_left(self, now_seconds: float) -> float | None:
        """Estimate the time that is left from the speed of the stage so far.

        Args:
            now_seconds: The present time, in seconds of the monotonic clock.

        Returns:
            Seconds; None if the speed or the total is not known yet.
        """
        gained, passed = self.done - self.first, now_seconds - self.began_seconds
        if not self.total or gained <= 0 or passed <= 0:
            return None
        return max(0, self.total - self.done) * passed / gained


@dataclass(eq=False, slots=True)
class Job:
    """One command, with its state and its output so far."""

    job_id: int
    """The number of the job, from 1."""
    owner: str
    """The visitor who owns the job; no other visitor may see it."""
    source: Path
    """The video that the command reads."""
    folder: Path
    """The folder of the command's output, which is removed with the job."""
    arguments: tuple[str, ...]
    """The arguments of the command, without `--json`."""
    state: State = "waiting"
    """The state of the job."""
    progress: StageProgress | None = None
    """The progress of the present stage; None before the first event."""
    notices: list[str] = field(default_factory=list)
    """The notices of the command so far."""
    message: str = ""
    """The reason for a failure, in a sentence; else empty."""
    outcome: Mapping[str, Any] = field(default_factory=dict)
    """The result by name, from the last line of the command; empty until the command is done."""
    process: asyncio.subprocess.Process | None = None
    """The process of the command, while it runs."""
    is_unwanted: bool = False
    """Whether the job is to be removed as soon as it is over."""

    @property
    def is_over(self) -> bool:
        """Whether the command has ended or was stopped."""
        return self.state in ("stopped", "failed", "done")

    def read_line(self, line: bytes) -> None:
        """Update the job from one line of the command's standard output.

        Args:
            line: The line; it is ignored if it is not an event of `--json`.
        """
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            log_handled(error)
            return
        try:
            event = line_from_dict(fields) if isinstance(fields, dict) else None
            match event:
                case Progress(stage, done, total):
                    self._set_progress(stage, "frames", done, total)
                case DownloadProgress(stage, done, total):
                    self._set_progress(stage, "bytes", done, total)
                case Notice(message):
                    self.notices.append(message)
                case Failure() if event.kind != "interrupted":
                    self._set_failure(event)
                case Done(name, result):
                    self.outcome = {name: result}
        except (LookupError, TypeError, ValueError) as error:
            _log.warning("an event of a command was not understood: %r", error)

    def _set_failure(self, failure: Failure) -> None:
        """Record the message of an error; one that is no VidrestoreError goes to the log only."""
        self.message = failure.message
        if failure.kind not in _names_below(VidrestoreError):
            _log.error("%s", self.message)
            self.message = DEFECT

    def _set_progress(
        self, stage: str, unit: Literal["frames", "bytes"], done: int, total: int | None
    ) -> None:
        if self.progress is None or self.progress.stage != stage:
            self.progress = StageProgress(stage, unit, 0, None, done, time.monotonic())
        self.progress.done, self.progress.total = done, total


class Jobs:
    """A list of jobs that run in order, one at a time, while `work` runs.

    All calls belong to one event loop.

    Args:
        folder: The folder below which the folders of jobs are made.
        command: The program that gets the arguments of a job. It prints the JSON lines of
            `vidrestore --json`.
        on_gone: Called with each job that was removed from the list.
    """

    def __init__(
        self,
        folder: Path,
        command: Sequence[str] = COMMAND,
        on_gone: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self._folders = OwnFolders(folder)
        self._command = tuple(command)
        self._on_gone = on_gone
        self._count = 0
        self._has_jobs = asyncio.Event()
        self.jobs: list[Job] = []
        """All jobs, in the order in which they run."""

    def add(self, owner: str, source: Path, arguments: Callable[[Path], Sequence[str]]) -> Job:
        """Add a job at the end of the list.

        Args:
            owner: The visitor who owns the job.
            source: The video that the command reads.
            arguments: Returns the arguments of the command, and gets the folder of the job.

        Returns:
            The job, which waits.
        """
        self._count += 1
        folder = self._folders.make()
        job = Job(self._count, owner, source, folder, tuple(arguments(folder)))
        self.jobs.append(job)
        self._has_jobs.set()
        return job

    def of(self, owner: str) -> list[Job]:
        """List the jobs of one visitor.

        Args:
            owner: The visitor.

        Returns:
            The jobs, in the order in which they run.
        """
        return [job for job in self.jobs if job.owner == owner]

    def find(self, owner: str, job_id: int | None) -> Job | None:
        """Find a job of one visitor.

        Args:
            owner: The visitor.
            job_id: The number of the job.

        Returns:
            The job; None if there is none with this number that the visitor owns.
        """
        return next((job for job in self.of(owner) if job.job_id == job_id), None)

    def stop(self, job: Job) -> None:
        """Stop a job that waits or runs; `resume` continues it.

        Args:
            job: The job; one that is over stays as it is.
        """
        if job.state == "waiting":
            job.state = "stopped"
        elif job.state == "running":
            job.state = "stopping"
            if job.process is not None:
                _end(job.process)

    def resume(self, job: Job) -> None:
        """Put a job that was stopped or failed at the end of the list, to continue it.

        Args:
            job: The job; one in another state stays as it is.
        """
        if job.state not in ("stopped", "failed"):
            return
        job.state, job.message, job.progress = "waiting", "", None
        job.notices.clear()
        self.jobs.remove(job)
        self.jobs.append(job)
        self._has_jobs.set()

    def remove(self, job: Job) -> None:
        """Remove a job and its folder; a running job is stopped first.

        Args:
            job: The job to remove.
        """
        self.stop(job)
        job.is_unwanted = True
        if job.is_over and job in self.jobs:
            self.jobs.remove(job)
            self._folders.remove(job.folder)
            self._on_gone(job)

    async def work(self) -> None:
        """Run waiting jobs until cancelled; then stop the running command."""
        while True:
            self._has_jobs.clear()
            job = next((job for job in self.jobs if job.state == "waiting"), None)
            if job is None:
                await self._has_jobs.wait()
                continue
            try:
                await self._run(job)
            except OSError as error:
                why = system_reason(error)
                where = "" if error.filename is None else f": {error.filename}"
                job.state, job.message = "failed", f"the work could not be started ({why}{where})"
            except Exception:  # any failure of one job must not keep the others from running
                _log.exception("a job of the page failed")
                job.state, job.message = "failed", DEFECT
            if job.is_unwanted:
                self.remove(job)

    async def _run(self, job: Job) -> None:
        job.state = "running"
        command = [*self._command, *job.arguments, "--json"]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            limit=_LONGEST_LINE,
            **_apart(),
        )
        job.process = process
        try:
            if job.state != "running":  # stopped while it was being started
                _end(process)
            # Not gather, which is over, when cancelled, before what it gathers is.
            async with asyncio.TaskGroup() as pipes:
                stderr_lines = pipes.create_task(_last_lines(process.stderr))
                pipes.create_task(_listen(job, process))
            _finish(job, await process.wait(), stderr_lines.result())
        finally:
            job.process = None
            if process.returncode is None:
                _end(process)
                await _ended(process)


def _apart() -> dict[str, Any]:
    """Return options that keep Ctrl-C in the terminal from the command; the page stops it."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _end(process: asyncio.subprocess.Process) -> None:
    """Stop a command with SIGTERM, at which vidrestore keeps finished work; later kill it."""

    def kill() -> None:
        if process.returncode is None:
            process.kill()

    with logged(ProcessLookupError):
        process.terminate()
    asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, kill)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of a process, and read its pipes, so that a full pipe cannot block it."""
    for stream in (process.stdout, process.stderr):
        while stream is not None and await stream.read(2**16):
            pass
    await process.wait()


async def _listen(job: Job, process: asyncio.subprocess.Process) -> None:
    """Pass each line of the standard output to the job."""
    assert process.stdout is not None
    async for line in process.stdout:
        job.read_line(line)


async def _last_lines(stream: asyncio.StreamReader | None) -> list[str]:
    """Return the last lines of a stream, without empty ones."""
    lines: list[str] = []
    while stream is not None and (line := await stream.readline()):
        lines = [*lines[1 - _LINES_KEPT :], line.decode(errors="replace").strip()]
    return [line for line in lines if line]


def _finish(job: Job, status: int, stderr_lines: Sequence[str]) -> None:
    """Set the final state of a job whose process has ended."""
    if status == 0 and job.outcome:
        job.state = "done"
    elif job.state == "stopping":
        job.state = "stopped"
    else:
        job.state = "failed"
        job.message = job.message or _failure_message(status, stderr_lines)


def _failure_message(status: int, lines: Sequence[str]) -> str:
    """Return the sentence for a command that failed without an error event."""
    if lines and ("Traceback (most recent call last):" in lines or _PYTHON_ERROR.match(lines[-1])):
        _log.error("%s", "\n".join(lines))
        return DEFECT
    if status < 0:
        name = _signal_name(-status)
        return f"another program ended the work ({name}); the machine may be short of memory"
    last = lines[-1] if lines else "no message"
    return f"the work ended without a result (status {status}): {last}"


def _signal_name(number: int) -> str:
    """Return the name of a signal."""
    try:
        return signal.Signals(number).name
    except ValueError as error:  # one of the real-time signals, which have no names
        log_handled(error)
        return f"signal {number}"


def _names_below(kind: type[Exception]) -> set[str]:
    """Return the names of a class of errors and of all its subclasses."""
    below = (_names_below(each) for each in kind.__subclasses__())
    return {kind.__name__}.union(*below)
