"""Commands as jobs: their order, what they say, how they are stopped, and what stays behind."""

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from vidrestore.web.queue import Job, Jobs, StageProgress
from vidrestore.web.session import Session

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
    say(event="error", kind="interrupted", message="interrupted; no output was written")
    sys.exit(130)
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Jobs], Awaitable[None]]], None]:
    """Gives a list of jobs, at work, to a test; nothing may be left running after it."""
    program = tmp_path / "command.py"
    program.write_text(COMMAND)

    async def at_work(test: Callable[[Jobs], Awaitable[None]]) -> None:
        jobs = Jobs(tmp_path / "jobs", (sys.executable, str(program)))
        work = asyncio.create_task(jobs.work())
        try:
            async with asyncio.timeout(20):
                await test(jobs)
            assert not work.done(), "the list no longer works"
        finally:
            work.cancel()
            await asyncio.wait([work])
        assert all(job.process is None for job in jobs.jobs)

    return lambda test: asyncio.run(at_work(test))


def add(jobs: Jobs, what: str) -> Job:
    return jobs.add("me", Path("tape.mp4"), lambda folder: (what, str(folder)))


def log_of(folder: Path) -> list[str]:
    return (folder / "jobs" / "log").read_text().splitlines()


async def until(is_so: Callable[[], object]) -> None:
    while not is_so():
        await asyncio.sleep(0.005)


def at_gate(job: Job) -> bool:
    return job.progress is not None and job.progress.done == 2


def test_one_runs_and_the_others_wait_in_their_order(run, tmp_path):
    async def test(jobs):
        first, second, third = add(jobs, "gated"), add(jobs, "fetch"), add(jobs, "fetch")
        await until(lambda: at_gate(first))
        assert [job.state for job in jobs.jobs] == ["running", "waiting", "waiting"]
        assert (first.progress.stage, first.progress.total) == ("restore", 4)
        (first.folder / "open").touch()
        await until(lambda: third.is_over)
        assert [job.state for job in jobs.jobs] == ["done"] * 3
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
    async def test(jobs):
        failed, after = add(jobs, what), add(jobs, "fetch")
        await until(lambda: after.is_over)
        assert (failed.state, after.state) == ("failed", "done")
        assert message in failed.message
        assert "\n" not in failed.message

    run(test)


@pytest.mark.parametrize("what", ["defect", "unexpected", "strange", "nested"])
def test_a_defect_of_a_command_is_no_python_error_on_the_page(run, what, caplog):
    async def test(jobs):
        failed, after = add(jobs, what), add(jobs, "fetch")
        await until(lambda: after.is_over)
        assert (failed.state, after.state) == ("failed", "done")
        assert failed.message.startswith("the work ")
        assert not re.search(r"Error|Exception|Traceback|faces", failed.message)

    run(test)
    assert what == "nested" or caplog.records, "nothing says what it was"


def test_a_visitor_finds_no_job_of_another(run):
    async def test(jobs):
        job = add(jobs, "fetch")
        assert jobs.find("other", job.job_id) is None
        assert jobs.of("other") == []
        await until(lambda: job.is_over)

    run(test)


def test_a_command_that_cannot_be_started_is_a_failure(tmp_path):
    async def test():
        jobs = Jobs(tmp_path, (str(tmp_path / "absent"),))
        work = asyncio.create_task(jobs.work())
        job = add(jobs, "gated")
        await until(lambda: job.is_over)
        work.cancel()
        assert job.state == "failed"
        assert "absent" in job.message
        assert "could not be started" in job.message
        assert "Error" not in job.message

    asyncio.run(test())


def test_what_is_stopped_goes_on_from_there_behind_the_others(run, tmp_path):
    async def test(jobs):
        job = add(jobs, "gated")
        await until(lambda: at_gate(job))
        jobs.stop(job)
        assert job.state == "stopping"
        await until(lambda: job.is_over)
        assert (job.state, job.message) == ("stopped", "")
        other = add(jobs, "fetch")
        jobs.resume(job)
        assert jobs.jobs == [other, job]
        await until(lambda: job.is_over)
        assert (job.state, job.progress.done) == ("done", 4)
        assert job.progress.first == 3  # two parts were there already
        done = ((job, "gated"), (other, "fetch"), (job, "gated"))
        assert log_of(tmp_path) == [f"{each.folder.name} {what}" for each, what in done]

    run(test)


def test_one_that_waits_is_stopped_without_having_run(run, tmp_path):
    async def test(jobs):
        first, second = add(jobs, "gated"), add(jobs, "fetch")
        jobs.stop(second)
        assert second.state == "stopped"
        await until(lambda: at_gate(first))
        (first.folder / "open").touch()
        await until(lambda: first.is_over)
        assert "fetch" not in (tmp_path / "jobs" / "log").read_text()

    run(test)


def test_one_that_does_not_listen_is_killed(run, monkeypatch):
    monkeypatch.setattr("vidrestore.web.queue._PATIENCE_SECONDS", 0.2)

    async def test(jobs):
        job = add(jobs, "deaf")
        await until(lambda: job.progress is not None)
        jobs.stop(job)
        await until(lambda: job.is_over)
        assert job.state == "stopped"

    run(test)


def test_the_one_that_runs_ends_with_the_list(run):
    kept = []

    async def test(jobs):
        job = add(jobs, "gated")
        await until(lambda: at_gate(job))
        kept.append(job.process)

    run(test)
    assert kept[0].returncode is not None


def test_both_lists_of_a_session_end_with_their_commands(tmp_path):
    program = tmp_path / "command.py"
    program.write_text(COMMAND)

    async def test():
        session = Session(tmp_path / "page", command=(sys.executable, str(program)))
        jobs = [add(session.analyses, "gated"), add(session.restorations, "gated")]
        work = asyncio.create_task(session.work())
        await until(lambda: all(map(at_gate, jobs)))
        processes = [job.process for job in jobs]
        work.cancel()
        await asyncio.wait([work])
        assert all(process.returncode is not None for process in processes)

    asyncio.run(test())


def test_what_is_removed_takes_its_folder_along(tmp_path):
    gone = []
    program = tmp_path / "command.py"
    program.write_text(COMMAND)

    async def test():
        jobs = Jobs(tmp_path / "jobs", (sys.executable, str(program)), gone.append)
        work = asyncio.create_task(jobs.work())
        job, waits = add(jobs, "gated"), add(jobs, "fetch")
        await until(lambda: at_gate(job))
        jobs.remove(job)
        assert jobs.find("me", job.job_id) is job  # until it has stopped
        jobs.remove(waits)
        await until(lambda: not jobs.jobs)
        assert gone == [waits, job]
        assert not job.folder.exists()
        work.cancel()

    asyncio.run(test())


def test_the_time_left_follows_from_the_speed_since_it_was_first_heard_of():
    progress = StageProgress("restore", "frames", 150, 300, first=100, began_seconds=10.0)
    assert progress.seconds_left(20.0) == pytest.approx(30.0)
    assert progress.seconds_left(10.0) is None
    progress.done = 100
    assert progress.seconds_left(20.0) is None
    progress.total = None
    assert progress.seconds_left(20.0) is None
