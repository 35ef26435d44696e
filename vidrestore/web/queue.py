"""Commands of vidrestore as processes of their own: one runs at a time, the others wait."""

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

_PATIENCE_SECONDS = 20.0  # for a command that was asked to stop, then it is killed
_LONGEST_LINE = 2**26  # what a command says of a long film when it is done
_LINES_KEPT = 100
DEFECT = (
    "the work met an error of the program itself and was given up; "
    "the terminal that runs the page shows what it was"
)
_PYTHON_ERROR = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b(:|$)")

_log = logging.getLogger("vidrestore")


@dataclass(slots=True)
class StageProgress:
    """How far one stage of a command is."""

    stage: str
    unit: Literal["frames", "bytes"]
    done: int
    total: int | None
    first: int
    """What was done already when the stage was first heard of."""
    began_seconds: float
    """By the monotonic clock."""

    def seconds_left(self, now_seconds: float) -> float | None:
        """By the stage's speed so far; None while that is unknown."""
        gained, passed = self.done - self.first, now_seconds - self.began_seconds
        if not self.total or gained <= 0 or passed <= 0:
            return None
        return max(0, self.total - self.done) * passed / gained


@dataclass(eq=False, slots=True)
class Job:
    """One command, and what it said so far."""

    job_id: int
    owner: str
    """The visitor whose it is; no other may see it."""
    source: Path
    folder: Path
    """Of its own; goes with it."""
    arguments: tuple[str, ...]
    state: State = "waiting"
    progress: StageProgress | None = None
    notices: list[str] = field(default_factory=list)
    message: str = ""
    """Why it failed, in a sentence."""
    outcome: Mapping[str, Any] = field(default_factory=dict)
    """Its result by name, as its last line has it, once it is done."""
    process: asyncio.subprocess.Process | None = None
    is_unwanted: bool = False
    """It goes as soon as it is over."""

    @property
    def is_over(self) -> bool:
        return self.state in ("stopped", "failed", "done")

    def read_line(self, line: bytes) -> None:
        """Take in one line of its standard output; one that is no line of `--json` is dropped."""
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
        """An error that is no sentence of ours is for the terminal, not for the page."""
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
    """A list of jobs that are run in their order, one at a time, for as long as `work` runs.

    All of it belongs to one event loop. `command` is what `arguments` are given to; it speaks the
    JSON lines of `vidrestore --json`. `on_gone` is told of each job that left the list.
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
        self._wake = asyncio.Event()
        self.jobs: list[Job] = []
        """In their order."""

    def add(self, owner: str, source: Path, arguments: Callable[[Path], Sequence[str]]) -> Job:
        """A job of `owner` at the end of the list; `arguments` are told its folder."""
        self._count += 1
        folder = self._folders.make()
        job = Job(self._count, owner, source, folder, tuple(arguments(folder)))
        self.jobs.append(job)
        self._wake.set()
        return job

    def of(self, owner: str) -> list[Job]:
        """Those of one visitor, in their order."""
        return [job for job in self.jobs if job.owner == owner]

    def find(self, owner: str, job_id: int | None) -> Job | None:
        """One of them."""
        return next((job for job in self.of(owner) if job.job_id == job_id), None)

    def stop(self, job: Job) -> None:
        """What waits or runs comes to a stop; `again` goes on from there."""
        if job.state == "waiting":
            job.state = "stopped"
        elif job.state == "running":
            job.state = "stopping"
            if job.process is not None:
                _end(job.process)

    def again(self, job: Job) -> None:
        """What was stopped or failed waits for its turn once more, behind all others."""
        if job.state not in ("stopped", "failed"):
            return
        job.state, job.message, job.progress = "waiting", "", None
        job.notices.clear()
        self.jobs.remove(job)
        self.jobs.append(job)
        self._wake.set()

    def remove(self, job: Job) -> None:
        """Forget a job and remove its folder; one that runs is stopped first."""
        self.stop(job)
        job.is_unwanted = True
        if job.is_over and job in self.jobs:
            self.jobs.remove(job)
            self._folders.remove(job.folder)
            self._on_gone(job)

    async def work(self) -> None:
        """Run what waits, until cancelled; the command that runs then is stopped first."""
        while True:
            self._wake.clear()
            job = next((job for job in self.jobs if job.state == "waiting"), None)
            if job is None:
                await self._wake.wait()
                continue
            try:
                await self._run(job)
            except OSError as error:
                why = system_reason(error)
                where = "" if error.filename is None else f": {error.filename}"
                job.state, job.message = "failed", f"the work could not be started ({why}{where})"
            except Exception:  # whatever it was, the others shall have their turn
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
                said = pipes.create_task(_last_lines(process.stderr))
                pipes.create_task(_listen(job, process))
            _settle(job, await process.wait(), said.result())
        finally:
            job.process = None
            if process.returncode is None:
                _end(process)
                await _ended(process)


def _apart() -> dict[str, Any]:
    """Ctrl-C in the terminal is for the one who started the command, who then stops it."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _end(process: asyncio.subprocess.Process) -> None:
    """Ask it to stop; SIGTERM is an interruption to vidrestore, which keeps what is done."""

    def kill() -> None:
        if process.returncode is None:
            process.kill()

    with logged(ProcessLookupError):
        process.terminate()
    asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, kill)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """Its pipes are read to their end, lest it wait for a reader for ever."""
    for stream in (process.stdout, process.stderr):
        while stream is not None and await stream.read(2**16):
            pass
    await process.wait()


async def _listen(job: Job, process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        job.read_line(line)


async def _last_lines(stream: asyncio.StreamReader | None) -> list[str]:
    lines: list[str] = []
    while stream is not None and (line := await stream.readline()):
        lines = [*lines[1 - _LINES_KEPT :], line.decode(errors="replace").strip()]
    return [line for line in lines if line]


def _settle(job: Job, status: int, said: Sequence[str]) -> None:
    """What became of a job whose process has ended."""
    if status == 0 and job.outcome:
        job.state = "done"
    elif job.state == "stopping":
        job.state = "stopped"
    else:
        job.state = "failed"
        job.message = job.message or _unsaid(status, said)


def _unsaid(status: int, said: Sequence[str]) -> str:
    """The sentence for a command that ended without one of its own."""
    if said and ("Traceback (most recent call last):" in said or _PYTHON_ERROR.match(said[-1])):
        _log.error("%s", "\n".join(said))
        return DEFECT
    if status < 0:
        name = _signal_name(-status)
        return f"the work was ended from outside ({name}); the machine may be short of memory"
    return f"the work ended without a result (status {status}): {said[-1] if said else 'no word'}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError as error:  # one of the real-time signals, which have no names
        log_handled(error)
        return f"signal {number}"


def _names_below(kind: type[Exception]) -> set[str]:
    """The name of a kind of error, and of all kinds below it."""
    below = (_names_below(each) for each in kind.__subclasses__())
    return {kind.__name__}.union(*below)
