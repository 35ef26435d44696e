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
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator

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

COMMAND = (sys.executable, "-m", "vidrestore")

State = Literal["waiting", "running", "pausing", "paused", "failed", "done"]

# pydantic refuses the bytes of a file name that are not UTF-8, and JSON can hold them.
StoredPath = Annotated[Path, PlainValidator(lambda value: Path(value)), PlainSerializer(str)]
"""A path in a record of the library."""
StoredText = Annotated[str, PlainValidator(lambda value: str(value))]
"""A text in a record of the library."""

DEFECT = (
    "the work stopped because of an error in vidrestore itself; "
    "the terminal that runs the page shows the error"
)
PATIENCE_SECONDS = 20.0
"""Time from the request to end a command until it is killed, in seconds."""

_LONGEST_LINE = 2**26  # the last line for a long film is long
_LINES_KEPT = 100
_POLL_SECONDS = 0.05
_PYTHON_ERROR = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b(:|$)")
# The clock may be set while a process runs, which moves the time of its start.
_SAME_START_SECONDS = 2.0

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

    @property
    def share(self) -> float | None:
        """The share that is done, from 0 to 1; None if the total is not known."""
        return min(1.0, self.done / self.total) if self.total else None

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


class Job(BaseModel):
    """One command, with its state and its output so far.

    The library keeps what a later page needs; the rest belongs to this run of the page.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    job_id: str
    """The random name of the job."""
    owner: str
    """The visitor who owns the job; no other visitor may see it."""
    folder: StoredPath
    """The folder of the command's output, which is removed with the job."""
    state: State = "waiting"
    """The state of the job."""
    notices: list[StoredText] = Field(default_factory=list)
    """The notices of the command so far."""
    message: StoredText = ""
    """The reason for a failure, in a sentence of the command; else empty."""
    pictures: int = 0
    """How often the command has replaced its live picture."""
    has_run: bool = False
    """Whether a command was started for the job."""
    process_id: int | None = None
    """The number of the process, while the command runs."""
    process_began: float = 0
    """The time when the process began, in seconds of the system's clock."""
    progress: StageProgress | None = Field(None, exclude=True)
    """The progress of the present stage; None before the first event."""
    outcome: Mapping[str, Any] = Field(default_factory=dict, exclude=True)
    """The result by name, from the last line of the command; empty until the command is done."""
    process: asyncio.subprocess.Process | None = Field(None, exclude=True)
    """The process of the command, while it runs."""
    is_unwanted: bool = Field(False, exclude=True)
    """Whether the job is to be removed as soon as it is over."""
    is_put_off: bool = Field(False, exclude=True)
    """Whether the job is to wait again as soon as its command has ended."""
    is_halted: bool = Field(False, exclude=True)
    """Whether the running command gets no processor time for now."""

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    @property
    def is_over(self) -> bool:
        """Whether the command has ended or was paused."""
        return self.state in ("paused", "failed", "done")

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
                case Progress():
                    self._set_progress(event.stage, "frames", event.frame, event.frames)
                    self.pictures += bool(fields.get("picture"))
                case DownloadProgress(stage, done, total):
                    self._set_progress(stage, "bytes", done, total)
                case Notice(message):
                    _log.info("%s", message)  # the page shows only some notices
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
        if not isinstance(done, int) or not isinstance(total, int | None):
            raise TypeError(f"{done!r} of {total!r} is no progress")
        if self.progress is None or self.progress.stage != stage:
            self.progress = StageProgress(stage, unit, 0, None, done, time.monotonic())
        self.progress.done, self.progress.total = done, total


class Jobs:
    """A list of jobs that run in order, one at a time, while `work` runs.

    All calls belong to one event loop.

    Args:
        arguments: Returns the arguments of a job's command, without `--json`; called when the
            command starts. A VidrestoreError becomes the job's failure.
        command: The program that gets the arguments of a job. It prints the JSON lines of
            `vidrestore --json`.
        on_change: Called after each change of a job; the second argument is True where its state
            changed.
        on_gone: Called with each job that was removed from the list, once its command has ended.
        may_start: Tells whether a job may start now; see `wake`. Default: always.
        is_low: Whether the commands run with a low priority. Default: no.
    """

    def __init__(
        self,
        arguments: Callable[[Job], Sequence[str]],
        command: Sequence[str] = COMMAND,
        *,
        on_change: Callable[[Job, bool], None] = lambda job, has_new_state: None,
        on_gone: Callable[[Job], None] = lambda job: None,
        may_start: Callable[[Job], bool] = lambda job: True,
        is_low: bool = False,
    ) -> None:
        self._arguments = arguments
        self._command = tuple(command)
        self._on_change = on_change
        self._on_gone = on_gone
        self._may_start = may_start
        self._is_low = is_low
        self._has_news = asyncio.Event()
        self.jobs: list[Job] = []
        """All jobs, in the order in which they run."""

    @property
    def running(self) -> Job | None:
        """The job whose command runs; None if there is none."""
        return next((job for job in self.jobs if job.state == "running"), None)

    @property
    def is_busy(self) -> bool:
        """Whether a job of the list waits or runs."""
        return not all(job.is_over for job in self.jobs)

    def add(self, job: Job) -> Job:
        """Add a job at the end of the list.

        Args:
            job: The job, in any state; it runs if it waits.

        Returns:
            The job.
        """
        self.jobs.append(job)
        self.wake()
        return job

    def wake(self) -> None:
        """Look again whether a job may start."""
        self._has_news.set()

    def pause(self, job: Job) -> None:
        """Stop a job that waits or runs; `resume` continues it.

        Args:
            job: The job; one that is over stays as it is.
        """
        if job.state == "waiting":
            self._set_state(job, "paused")
        elif job.state == "running":
            self._set_state(job, "pausing")
            self.go_on(job)  # a halted process would not notice the signal
            if job.process is not None:
                _end(job.process)

    def put_off(self, job: Job) -> None:
        """End the command of a running job, which then waits again and begins anew.

        Args:
            job: The job; one that does not run stays as it is.
        """
        if job.state == "running":
            job.is_put_off = True
            self.pause(job)

    def halt(self, job: Job, seconds: float) -> None:
        """Let a running command wait as it is, so that another one can be measured.

        Args:
            job: The job; one that does not run stays as it is.
            seconds: The longest time for which it waits; see `go_on`.
        """
        if job.state == "running" and job.process is not None and not job.is_halted:
            job.is_halted = True
            _signal_family(job.process.pid, psutil.Process.suspend)
            asyncio.get_running_loop().call_later(seconds, self.go_on, job)

    def go_on(self, job: Job) -> None:
        """Let a command go on that `halt` let wait.

        Args:
            job: The job; one that was not halted stays as it is.
        """
        if job.is_halted:
            job.is_halted = False
            if job.process is not None:
                _signal_family(job.process.pid, psutil.Process.resume)

    def resume(self, job: Job) -> None:
        """Put a job that was paused or failed at the end of the list, to continue it.

        Args:
            job: The job; one in another state stays as it is.
        """
        if job.state not in ("paused", "failed"):
            return
        job.message, job.progress = "", None
        job.notices.clear()
        self.jobs.remove(job)
        self.jobs.append(job)
        self._set_state(job, "waiting")
        self.wake()

    def remove(self, job: Job) -> None:
        """Remove a job; a running command is ended first.

        Args:
            job: The job to remove.
        """
        self.pause(job)
        job.is_unwanted = True
        if job.is_over and job in self.jobs:
            self.jobs.remove(job)
            self._on_gone(job)

    async def work(self) -> None:
        """Run waiting jobs until cancelled; then end the running command, whose job waits again."""
        while True:
            self._has_news.clear()
            job = next(
                (job for job in self.jobs if job.state == "waiting" and self._may_start(job)), None
            )
            if job is None:
                await self._has_news.wait()
                continue
            try:
                await self._run(job)
            except VidrestoreError as error:
                self._fail(job, str(error))
            except OSError as error:
                why = system_reason(error)
                where = "" if error.filename is None else f": {error.filename}"
                self._fail(job, f"the work could not be started ({why}{where})")
            except Exception:  # any failure of one job must not keep the others from running
                _log.exception("a job of the page failed")
                self._fail(job, DEFECT)
            if job.is_unwanted:
                self.remove(job)

    def _is_pausing(self, job: Job) -> bool:
        return job.state == "pausing"

    def _set_state(self, job: Job, state: State) -> None:
        job.state = state
        self._on_change(job, True)

    def _fail(self, job: Job, message: str) -> None:
        job.message = message
        self._set_state(job, "failed")

    async def _run(self, job: Job) -> None:
        command = [*self._command, *self._arguments(job), "--json"]
        job.state, job.outcome = "running", {}
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            limit=_LONGEST_LINE,
            **_apart(),
        )
        job.process, job.process_id = process, process.pid
        job.process_began, job.has_run = _began(process.pid), True
        if self._is_low:
            _lower(process.pid)
        self._on_change(job, True)
        try:
            if self._is_pausing(job):  # since it was being started
                _end(process)
            # Not gather, which is over, when cancelled, before what it gathers is.
            async with asyncio.TaskGroup() as pipes:
                stderr_lines = pipes.create_task(_last_lines(process.stderr))
                pipes.create_task(self._listen(job, process))
            self._finish(job, await process.wait(), stderr_lines.result())
        except asyncio.CancelledError:
            self.go_on(job)
            if process.returncode is None:
                _end(process)
                await _ended(process)
            job.process, job.process_id = None, None
            if not job.is_over:
                self._set_state(job, "paused" if self._is_pausing(job) else "waiting")
            raise
        finally:
            job.process, job.process_id = None, None
            if process.returncode is None:
                _end(process)
                await _ended(process)

    async def _listen(self, job: Job, process: asyncio.subprocess.Process) -> None:
        """Pass each line of the standard output to the job."""
        assert process.stdout is not None
        async for line in process.stdout:
            job.read_line(line)
            self._on_change(job, False)

    def _finish(self, job: Job, status: int, stderr_lines: Sequence[str]) -> None:
        """Set the final state of a job whose process has ended."""
        job.process, job.process_id = None, None
        if status == 0 and job.outcome:
            self._set_state(job, "done")
        elif job.state == "pausing":
            self._set_state(job, "waiting" if job.is_put_off else "paused")
            job.is_put_off = False
        else:
            self._fail(job, job.message or _failure_message(status, stderr_lines))


def _apart() -> dict[str, Any]:
    """Return options that keep Ctrl-C in the terminal from the command; the page ends it."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _began(process_id: int) -> float:
    """Return when a process began; 0 if it has ended already."""
    with logged(psutil.Error):
        return float(psutil.Process(process_id).create_time())
    return 0


def _lower(process_id: int) -> None:
    """Give a process a low priority."""
    with logged(psutil.Error, OSError):
        low = psutil.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else 10
        psutil.Process(process_id).nice(low)


def _signal_family(process_id: int, send: Callable[[psutil.Process], None]) -> None:
    """Halt a process and those that it started, or let them go on."""
    with logged(psutil.Error):
        process = psutil.Process(process_id)
        for each in (process, *process.children(recursive=True)):
            with logged(psutil.Error):
                send(each)


def end_left(job: Job) -> None:
    """End the command of a job whose server was killed; wait until it has ended.

    A later process may have the same number, so the time when it began decides.

    Args:
        job: The job, as the library kept it.
    """
    if job.process_id is None:
        return
    with logged(psutil.Error, what="ending the command of an earlier page"):
        process = psutil.Process(job.process_id)
        if abs(process.create_time() - job.process_began) > _SAME_START_SECONDS:
            return
        family = [process, *process.children(recursive=True)]
        _log.info("ending process %d, which an earlier page started", job.process_id)
        process.terminate()
        for each in family:  # a halted process would not notice the signal
            with logged(psutil.Error):
                each.resume()
        for each in _alive_after(family, PATIENCE_SECONDS):
            with logged(psutil.Error):
                each.kill()
        _alive_after(family, PATIENCE_SECONDS)


def _alive_after(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait for the end of processes; return those that still run after a time.

    A process that has ended stays as a zombie where no other process waits for it.
    """

    def is_alive(process: psutil.Process) -> bool:
        with logged(psutil.Error):
            return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
        return False

    deadline = time.monotonic() + seconds
    while alive := [process for process in processes if is_alive(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_SECONDS)
    return alive


def _end(process: asyncio.subprocess.Process) -> None:
    """Stop a command with SIGTERM, at which vidrestore keeps finished work; later kill it.

    The signals are sent by psutil. asyncio's own methods ask the system first whether the process
    has ended; the status goes to whoever asks first, and asyncio's thread that waits for it then
    reports 255.
    """

    def send(signal_it: Callable[[psutil.Process], None]) -> None:
        if process.returncode is None:
            with logged(psutil.Error):
                signal_it(psutil.Process(process.pid))

    send(psutil.Process.terminate)
    asyncio.get_running_loop().call_later(PATIENCE_SECONDS, send, psutil.Process.kill)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of a process, and read its pipes, so that a full pipe cannot block it."""
    for stream in (process.stdout, process.stderr):
        while stream is not None and await stream.read(2**16):
            pass
    await process.wait()


async def _last_lines(stream: asyncio.StreamReader | None) -> list[str]:
    """Return the last lines of a stream, without empty ones."""
    lines: list[str] = []
    while stream is not None and (line := await stream.readline()):
        lines = [*lines[1 - _LINES_KEPT :], line.decode(errors="replace").strip()]
    return [line for line in lines if line]


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
