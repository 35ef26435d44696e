"""Commands as jobs: their order, what they say, how they are stopped, and what stays behind."""

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from vidrestore.common.errors import OutputError
from vidrestore.web.queue import Job, Jobs, StageProgress, end_left

# Speaks as `vidrestore --json` does. It is told what to do by its first argument, and in which
# folder; a gate is a file there that the test makes when the command may go on.
COMMAND = """
import json, os, signal, sys, time
from pathlib import Path

what, folder = sys.argv[1], Path(sys.argv[2])
assert sys.argv[-1] == "--json"

def say(**event):
    print(json.dumps(event), flush=True)

def interrupted(*_):
    raise KeyboardInterrupt

def gate(name):
    while not (folder / name).exists():
        time.sleep(0.01)

signal.signal(signal.SIGTERM, interrupted)
with (folder.parent / "log").open("a") as log:
    log.write(f"{folder.name} {what}\\n")
try:
    if what == "gated":
        print("a library that chatters")
        done = len(list(folder.glob("part*")))
        for frame in range(done, 4):
            (folder / f"part{frame}").touch()
            say(event="progress", stage="restore", frame=frame + 1, frames=4)
            if frame == 1:
                gate("open")
        say(event="notice", message="a word by the way")
    elif what == "fetch":
        say(event="progress", stage="gpen-512", bytes=5, of_bytes=10)
    elif what == "fail":
        say(event="error", kind="InputError", message="there is no video in it")
        sys.exit(1)
    elif what == "crash":
        print("first line\\nSegmentation of the fault", file=sys.stderr)
        sys.exit(3)
    elif what == "defect":
        raise KeyError("faces")
    elif what == "unexpected":
        say(event="error", kind="KeyError", message="KeyError: 'faces'; run again with --debug")
        sys.exit(1)
    elif what == "strange":
        say(event="progress", stage="restore")
        say(event="progress", stage="restore", frame="1", frames=[])
        say(event="notice")
        say(event="error")
        sys.exit(1)
    elif what == "nested":
        print("[" * 100000)
        sys.exit(1)
    elif what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        say(event="progress", stage="restore", frame=1, frames=4)
        gate("never")
    say(event="done", summary={"frames": 4})
except KeyboardInterrupt:
    say(event="error", kind="interrupted", message="interrupted; no unfinished output was written")
    sys.exit(130)
"""


@pytest.fixture
def program(tmp_path: Path) -> tuple[str, str]:
    path = tmp_path / "command.py"
    path.write_text(COMMAND)
    return sys.executable, str(path)


@dataclass
class List:
    """A list of jobs, and what the page hears of them."""

    jobs: Jobs
    folder: Path
    told: list[tuple[str, bool]] = field(default_factory=list)
    gone: list[Job] = field(default_factory=list)
    what: dict[Job, str] = field(default_factory=dict)

    def add(self, what: str) -> Job:
        number = len(self.what)
        job = Job(job_id=str(number), owner="me", folder=self.folder / f"job{number}")
        job.folder.mkdir(parents=True)
        self.what[job] = what
        return self.jobs.add(job)


def list_of(program: tuple[str, str], folder: Path, **more: object) -> List:
    def arguments(job: Job) -> tuple[str, str]:
        if own.what[job] == "refused":
            raise OutputError("the folder is gone")
        return own.what[job], str(job.folder)

    jobs = Jobs(
        arguments,
        program,
        on_change=lambda job, has_new_state: own.told.append((job.state, has_new_state)),
        on_gone=lambda job: own.gone.append(job),
        **more,
    )
    own = List(jobs, folder)
    return own


@pytest.fixture
def run(program, tmp_path: Path) -> Callable[[Callable[[List], Awaitable[None]]], None]:
    """Gives a list of jobs, at work, to a test; nothing may be left running after it."""

    async def at_work(test: Callable[[List], Awaitable[None]]) -> None:
        own = list_of(program, tmp_path / "jobs")
        work = asyncio.create_task(own.jobs.work())
        try:
            async with asyncio.timeout(60):
                await test(own)
            assert not work.done(), "the list no longer works"
        finally:
            work.cancel()
            await asyncio.wait([work])
        assert all(job.process is None for job in own.jobs.jobs)
        assert all(job.process_id is None for job in own.jobs.jobs)

    return lambda test: asyncio.run(at_work(test))


def log_of(folder: Path) -> list[str]:
    return (folder / "jobs" / "log").read_text().splitlines()


async def until(is_so: Callable[[], object]) -> None:
    while not is_so():
        await asyncio.sleep(0.005)


def at_gate(job: Job) -> bool:
    return job.progress is not None and job.progress.done == 2


def test_one_runs_and_the_others_wait_in_their_order(run, tmp_path):
    async def test(own):
        first, second, third = own.add("gated"), own.add("fetch"), own.add("fetch")
        await until(lambda: at_gate(first))
        assert [job.state for job in own.jobs.jobs] == ["running", "waiting", "waiting"]
        assert (first.progress.stage, first.progress.total) == ("restore", 4)
        (first.folder / "open").touch()
        await until(lambda: third.is_over)
        assert [job.state for job in own.jobs.jobs] == ["done"] * 3
        assert first.notices == ["a word by the way"]
        assert first.outcome["summary"] == {"frames": 4}
        assert (second.progress.unit, second.progress.done, second.progress.total) == (
            "bytes",
            5,
            10,
        )
        done = ((first, "gated"), (second, "fetch"), (third, "fetch"))
        assert log_of(tmp_path) == [f"{job.folder.name} {what}" for job, what in done]

    run(test)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("fail", "there is no video in it"),
        ("crash", "status 3): Segmentation of the fault"),
        pytest.param(
            "killed",
            "SIGKILL",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="needs signals"),
        ),
    ],
)
def test_a_failure_is_one_sentence_and_the_next_one_runs(run, what, message):
    async def test(own):
        failed, after = own.add(what), own.add("fetch")
        await until(lambda: after.is_over)
        assert (failed.state, after.state) == ("failed", "done")
        assert message in failed.message
        assert "\n" not in failed.message

    run(test)


@pytest.mark.parametrize("what", ["defect", "unexpected", "strange", "nested"])
def test_a_defect_of_a_command_is_no_python_error_on_the_page(run, what, caplog):
    async def test(own):
        failed, after = own.add(what), own.add("fetch")
        await until(lambda: after.is_over)
        assert (failed.state, after.state) == ("failed", "done")
        assert failed.message.startswith("the work ")
        assert not re.search(r"Error|Exception|Traceback|faces", failed.message)

    run(test)
    assert what == "nested" or caplog.records, "nothing says what it was"


def test_a_command_that_cannot_be_started_is_a_failure(tmp_path):
    async def test():
        own = list_of((str(tmp_path / "absent"), ""), tmp_path)
        work = asyncio.create_task(own.jobs.work())
        job = own.add("gated")
        await until(lambda: job.is_over)
        work.cancel()
        assert job.state == "failed"
        assert "absent" in job.message
        assert "could not be started" in job.message
        assert "Error" not in job.message

    asyncio.run(test())


def test_a_job_without_arguments_is_a_failure(run):
    async def test(own):
        job, after = own.add("refused"), own.add("fetch")
        await until(lambda: after.is_over)
        assert (job.state, job.message) == ("failed", "the folder is gone")
        assert not job.has_run
        assert after.has_run

    run(test)


def test_what_is_stopped_goes_on_from_there_behind_the_others(run, tmp_path):
    async def test(own):
        job = own.add("gated")
        await until(lambda: at_gate(job))
        own.jobs.pause(job)
        assert job.state == "pausing"
        await until(lambda: job.is_over)
        assert (job.state, job.message) == ("paused", "")
        other = own.add("fetch")
        own.jobs.resume(job)
        assert own.jobs.jobs == [other, job]
        await until(lambda: job.is_over)
        assert (job.state, job.progress.done) == ("done", 4)
        assert job.progress.first == 3  # two parts were there already
        done = ((job, "gated"), (other, "fetch"), (job, "gated"))
        assert log_of(tmp_path) == [f"{each.folder.name} {what}" for each, what in done]

    run(test)


def test_one_that_waits_is_stopped_without_having_run(run, tmp_path):
    async def test(own):
        first, second = own.add("gated"), own.add("fetch")
        own.jobs.pause(second)
        assert second.state == "paused"
        await until(lambda: at_gate(first))
        (first.folder / "open").touch()
        await until(lambda: first.is_over)
        assert "fetch" not in (tmp_path / "jobs" / "log").read_text()

    run(test)


def test_one_that_does_not_listen_is_killed(run, monkeypatch):
    monkeypatch.setattr("vidrestore.web.queue.PATIENCE_SECONDS", 0.2)

    async def test(own):
        job = own.add("deaf")
        await until(lambda: job.progress is not None)
        own.jobs.pause(job)
        await until(lambda: job.is_over)
        assert job.state == "paused"

    run(test)


def test_the_one_that_runs_ends_with_the_list_and_waits_for_the_next_one(run):
    kept = []

    async def test(own):
        job, paused = own.add("gated"), own.add("gated")
        own.jobs.pause(paused)
        await until(lambda: at_gate(job))
        kept.extend([job, paused, job.process])

    run(test)
    assert kept[2].returncode is not None
    assert [job.state for job in kept[:2]] == ["waiting", "paused"]


def test_one_that_was_being_paused_at_the_end_stays_paused(run):
    kept = []

    async def test(own):
        job = own.add("gated")
        await until(lambda: at_gate(job))
        own.jobs.pause(job)
        kept.append(job)

    run(test)
    assert kept[0].state == "paused"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the status of a process")
def test_a_status_is_not_lost_to_a_stop_at_the_very_end(run, monkeypatch):
    """The first who asks the system for the status of a process that has ended gets it."""
    may_ask, ask = threading.Event(), os.waitpid

    def late(process_id: int, options: int) -> tuple[int, int]:
        assert may_ask.wait(60)
        return ask(process_id, options)

    async def test(own):
        job = own.add("crash")
        await until(lambda: job.process is not None)
        process = job.process
        await until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
        own.jobs.pause(job)
        may_ask.set()
        await until(lambda: job.process is None)
        assert process.returncode == 3

    monkeypatch.setattr(os, "waitpid", late)
    run(test)


def test_what_is_removed_is_gone_once_its_command_has_ended(run):
    async def test(own):
        job, waits = own.add("gated"), own.add("fetch")
        await until(lambda: at_gate(job))
        own.jobs.remove(job)
        assert own.gone == []
        assert job in own.jobs.jobs  # until it has stopped
        process = job.process
        own.jobs.remove(waits)
        await until(lambda: not own.jobs.jobs)
        assert own.gone == [waits, job]
        assert process.returncode is not None

    run(test)


def test_the_page_hears_of_each_new_state_and_of_each_event(run):
    async def test(own):
        job = own.add("fetch")
        await until(lambda: job.is_over)
        assert own.told == [
            ("running", True),
            ("running", False),
            ("running", False),
            ("done", True),
        ]

    run(test)


def test_a_job_waits_until_it_may_start(program, tmp_path):
    async def test():
        may = []
        own = list_of(program, tmp_path / "jobs", may_start=lambda job: job in may)
        work = asyncio.create_task(own.jobs.work())
        first, second = own.add("fetch"), own.add("fetch")
        may.append(second)
        own.jobs.wake()
        await until(lambda: second.is_over)
        assert first.state == "waiting"
        assert own.jobs.is_busy
        may.append(first)
        own.jobs.wake()
        await until(lambda: first.is_over)
        assert not own.jobs.is_busy
        work.cancel()

    asyncio.run(test())


def test_a_low_list_runs_with_a_low_priority(program, tmp_path):
    async def test():
        own = list_of(program, tmp_path / "jobs", is_low=True)
        work = asyncio.create_task(own.jobs.work())
        job = own.add("gated")
        await until(lambda: at_gate(job))
        assert psutil.Process(job.process_id).nice() > psutil.Process().nice()
        work.cancel()
        await asyncio.wait([work])

    asyncio.run(test())


def test_a_job_that_is_put_off_begins_anew_behind_nothing(run, tmp_path):
    async def test(own):
        job = own.add("gated")
        await until(lambda: at_gate(job))
        first = job.process
        own.jobs.put_off(job)
        await until(lambda: job.process not in (None, first))
        assert first.returncode is not None
        (job.folder / "open").touch()
        await until(lambda: job.is_over)
        assert job.state == "done"
        assert log_of(tmp_path) == ["job0 gated"] * 2
        own.jobs.put_off(job)
        assert job.state == "done"

    run(test)


needs_halting = pytest.mark.skipif(sys.platform == "win32", reason="shows no state of halting")


def is_halted(job: Job) -> bool:
    return psutil.Process(job.process_id).status() == psutil.STATUS_STOPPED


@needs_halting
def test_a_halted_command_goes_on_where_it_was(run):
    async def test(own):
        job = own.add("gated")
        await until(lambda: at_gate(job))
        own.jobs.halt(job, 60)
        await until(lambda: is_halted(job))
        (job.folder / "open").touch()
        await asyncio.sleep(0.1)
        assert job.progress.done == 2
        own.jobs.go_on(job)
        await until(lambda: job.is_over)
        assert (job.state, job.progress.done) == ("done", 4)
        own.jobs.halt(job, 60)
        own.jobs.go_on(job)

    run(test)


@needs_halting
def test_no_command_is_halted_for_ever(run):
    async def test(own):
        job = own.add("gated")
        await until(lambda: at_gate(job))
        (job.folder / "open").touch()
        own.jobs.halt(job, 0.05)
        await until(lambda: job.is_over)
        assert job.state == "done"

    run(test)


@needs_halting
@pytest.mark.parametrize("how", ["pause", "end"])
def test_a_halted_command_is_ended_as_others_are(run, how):
    kept = []

    async def test(own):
        job = own.add("gated")
        await until(lambda: at_gate(job))
        own.jobs.halt(job, 60)
        await until(lambda: is_halted(job))
        kept.extend([job, job.process])
        if how == "pause":
            own.jobs.pause(job)
            await until(lambda: job.is_over)

    run(test)
    assert kept[0].state == ("paused" if how == "pause" else "waiting")
    assert kept[1].returncode == 130  # it was told, and not killed


ORPHAN = """
import pathlib, subprocess, sys, time
output = pathlib.Path(sys.argv[-2], "output")  # a pipe would break, and end the command
with output.open("wb") as file:
    process = subprocess.Popen(sys.argv[1:], stdout=file, stderr=subprocess.DEVNULL)
while not output.stat().st_size:  # its handler of signals is there
    time.sleep(0.01)
print(process.pid, flush=True)
"""


def left_running(program: tuple[str, str], folder: Path, what: str) -> Job:
    """A job as the library of a killed page has it, with its process."""
    (folder / "job").mkdir()
    command = [*program, what, str(folder / "job"), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", ORPHAN, *command], capture_output=True, text=True, check=True
    )
    number = int(done.stdout)
    began = psutil.Process(number).create_time()
    kept = Job(job_id="1", owner="me", folder=folder / "job", state="running",
               process_id=number, process_began=began)  # fmt: skip
    return Job.model_validate(kept.model_dump())


def runs(job: Job) -> bool:
    try:
        return psutil.Process(job.process_id).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("what", ["gated", "deaf"])
def test_the_command_of_a_killed_page_is_ended(program, tmp_path, monkeypatch, what):
    monkeypatch.setattr("vidrestore.web.queue.PATIENCE_SECONDS", 20 if what == "gated" else 0.3)
    job = left_running(program, tmp_path, what)
    assert runs(job)
    end_left(job)
    until = time.monotonic() + (60 if what == "deaf" else 0)  # to be killed may take a while
    while runs(job) and time.monotonic() < until:
        time.sleep(0.01)
    assert not runs(job)


@needs_halting
def test_a_halted_command_of_a_killed_page_is_ended(program, tmp_path):
    job = left_running(program, tmp_path, "gated")
    psutil.Process(job.process_id).suspend()
    end_left(job)
    assert not runs(job)


def test_a_process_that_has_got_the_same_number_is_not_ended(program, tmp_path):
    job = left_running(program, tmp_path, "gated")
    job.process_began -= 3600
    end_left(job)
    assert runs(job)
    job.process_began += 3600
    end_left(job)
    assert not runs(job)
    end_left(job)  # which is gone
    job.process_id = None
    end_left(job)


def test_odd_bytes_of_names_are_kept(tmp_path):
    path = Path(os.fsdecode(b"/a\xffb"))
    job = Job(job_id="1", owner="me", folder=path, message=f"no {path}", notices=[str(path)])
    again = Job.model_validate(json.loads(json.dumps(job.model_dump())))
    assert (again.folder, again.message, again.notices) == (path, f"no {path}", [str(path)])


def test_the_time_left_follows_from_the_speed_since_it_was_first_heard_of():
    progress = StageProgress("restore", "frames", 150, 300, first=100, began_seconds=10.0)
    assert progress.seconds_left(20.0) == pytest.approx(30.0)
    assert progress.seconds_left(10.0) is None
    progress.done = 100
    assert progress.seconds_left(20.0) is None
    progress.total = None
    assert progress.seconds_left(20.0) is None
