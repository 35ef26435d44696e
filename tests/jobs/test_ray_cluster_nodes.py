"""Whole commands with workers: a node that is killed, and a command that is."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from helpers.beats import Beats
from helpers.cluster_tape import assert_same, faces_of, make_tape
from helpers.holding import hold_processes

from vidrestore.analysis import storage

pytestmark = pytest.mark.long
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("ray")
    return make_tape(tmp_path_factory.mktemp("tape"))


def command(tape: Path, target: Path, *more: str) -> list[str]:
    known = target.parent / "faces.npz"
    storage.save(faces_of(tape), known)
    return [
        *(sys.executable, "-m", "vidrestore", "restore", str(tape), str(target), "--json"),
        *("--restorer", "fusion", "--detector", "haar", "--codec", "ffv1"),
        *(
            "--analysis",
            str(known),
            "--set",
            "job.segment_frames=48",
            "--set",
            "restore.repeats=false",
            *more,
        ),
    ]


def descendants(of: set[int]) -> set[int]:
    """The living processes below these, and these."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    )
    rows = [line.split() for line in listed.stdout.splitlines()]
    # For one that has lost its parent, perhaps no process waits; then it stays as a zombie.
    pairs = [(int(pid), int(parent)) for pid, parent, state in rows if state[0] != "Z"]
    found: set[int] = set()
    while found != (more := of | {pid for pid, parent in pairs if parent in found | of}):
        found, of = more, more
    return found & {pid for pid, _ in pairs}


def kill(pids: set[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def two_nodes(port: int) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """The head of a cluster and another node, of one core each."""
    with tempfile.TemporaryDirectory(prefix="vr", ignore_cleanup_errors=True) as folder:
        common = ["--num-cpus=1", "--block", "--disable-usage-stats"]
        head = ["--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
        nodes = []
        try:
            for where in (head, [f"--address=127.0.0.1:{port}"]):
                start = [*RAY, "start", *where, *common, "--node-ip-address=127.0.0.1"]
                nodes.append(subprocess.Popen(start, stdout=subprocess.DEVNULL,
                                              stderr=subprocess.DEVNULL,
                                              env=os.environ | {"RAY_AUTH_MODE": "token"},
                                              ))  # fmt: skip
                wait_for(lambda: answers(port))
            yield nodes
        finally:
            kill(descendants({node.pid for node in nodes}))
            for node in nodes:
                node.wait()


def answers(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


def wait_for(is_so: Callable[[], object], seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def parts_of(target: Path) -> list[Path]:
    """What is being written."""
    return list(target.with_name(target.name + ".vidrestore").glob("segments/*.part.mkv"))


@pytest.fixture
def hold(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that keeps workers waiting, each at a frame of its first segment."""
    return hold_processes(tmp_path_factory.mktemp("hold"), monkeypatch)


def test_a_node_that_is_killed_changes_nothing(tape, tmp_path, hold):
    expected, target, port = tmp_path / "alone.mkv", tmp_path / "out.mkv", free_port()
    hold.unlink()
    subprocess.run(command(tape, expected), check=True, capture_output=True)
    hold.touch()
    with two_nodes(port) as (_, other):
        given = command(tape, target, "--cluster", f"127.0.0.1:{port}", "--workers", "2")
        run = subprocess.Popen(given, stdout=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: len(parts_of(target)) == 2 or run.poll() is not None)
            kill(descendants({other.pid}))
            hold.unlink()
            said = [json.loads(line) for line in run.communicate(timeout=400)[0].splitlines()]
        finally:
            run.kill()
            run.wait()
    assert run.returncode == 0, said[-1]
    messages = [event["message"] for event in said if event["event"] == "notice"]
    assert any("a worker was lost" in message for message in messages), messages
    assert_same(target, expected)
    kept = {path.name for path in tmp_path.iterdir()}
    assert kept == {"alone.mkv", "out.mkv", "faces.npz"}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nobody_outlives_the_command(tape, tmp_path, hold, how):
    target = tmp_path / "out.mkv"
    run = subprocess.Popen(
        command(tape, target, "--workers", "2"), stdout=subprocess.PIPE, text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        wait_for(lambda: parts_of(target) or run.poll() is not None)
        below = descendants({run.pid}) - {run.pid}
        assert len(below) > 4
        # A terminal sends Ctrl-C to all processes in front.
        (os.killpg if how == signal.SIGINT else os.kill)(run.pid, how)
        said = run.communicate(timeout=120)[0]
    finally:
        run.kill()
        run.wait()
    if how != signal.SIGKILL:
        assert run.returncode == 130
        assert json.loads(said.splitlines()[-1])["kind"] == "interrupted"
        assert not parts_of(target)
    # Nobody tells Ray's own agents that the rest was killed; they look now and then.
    wait_for(lambda: not below & descendants(below))


@pytest.mark.parametrize("what", ["raylet", "gcs_server"])
def test_where_ray_itself_dies_the_run_says_so(tape, tmp_path, hold, beats: Beats, what):
    target, temporary = tmp_path / "out.mkv", Path(tempfile.mkdtemp(dir="/tmp"))
    run = subprocess.Popen(
        command(tape, target, "--workers", "2"), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(temporary)},
    )  # fmt: skip
    try:
        wait_for(lambda: parts_of(target) or run.poll() is not None)
        below = descendants({run.pid}) - {run.pid}
        (private,) = temporary.iterdir()
        assert private.stat().st_mode & 0o777 == 0o700
        programs = {pid: Path(f"/proc/{pid}/exe").resolve().name for pid in below}
        kill({pid for pid, program in programs.items() if program == what})
        assert what in programs.values()
        killed_at = beats.seconds
        said, errors = run.communicate(timeout=120)
        seconds = beats.seconds - killed_at
    finally:
        run.kill()
        run.wait()
    assert seconds < 40
    last = json.loads(said.splitlines()[-1])
    assert (run.returncode, last.get("kind")) == (1, "ClusterError"), errors
    assert what in last["message"]
    assert "finished segments are kept, run the command again" in last["message"]
    assert not target.exists()
    wait_for(lambda: not below & descendants(below))
    assert list(temporary.iterdir()) == []
    temporary.rmdir()
