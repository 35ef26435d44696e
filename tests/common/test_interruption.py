"""Signals to end: one interruption, however many come, and whenever they come."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.processes import runs, started_by
from helpers.videos import MakeVideo

_PATIENCE_SECONDS = 60
_LONG_SECONDS = 600  # for many runs in one process
PAIRS = [
    (signal.SIGINT, signal.SIGINT),
    (signal.SIGTERM, signal.SIGINT),
    (signal.SIGHUP, signal.SIGHUP),
]


def start(given: list[str], **more: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell's background job, as a test run may be, hands down that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler), **more,
    )  # fmt: skip


def caught(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))


# The program, which sends itself two signals once the module given is looked for.
SCRIPT = """
import os, runpy, sys, time
module, *numbers = sys.argv[1:]
class Sender:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), int(numbers[0]))
            finally:
                os.kill(os.getpid(), int(numbers[1]))
sys.meta_path.insert(0, Sender())
sys.argv = ["vidrestore", "doctor"]
runpy.run_module("vidrestore", run_name="__main__")
"""


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("module", ["vidrestore.cli", "typer", "vidrestore.cli.doctor"])
def test_at_an_import(pair: tuple[signal.Signals, signal.Signals], module: str) -> None:
    process = start([sys.executable, "-c", SCRIPT, module, *(str(int(each)) for each in pair)])
    _, errors = process.communicate(timeout=_PATIENCE_SECONDS)
    assert errors == "vidrestore: interrupted; no unfinished output was written\n"
    assert process.returncode == 130


# Before a script: a machine that stops it for seconds changes nothing of what the handlers do.
WITHOUT_CLOCK = """
import types
from vidrestore.common import interruption
interruption.time = types.SimpleNamespace(monotonic=lambda: 0.0)
"""

# What the handlers do, without a command.
UNDISTURBED = """
import os, signal, sys, time
from vidrestore.common.interruption import Interruption
kill = lambda name: os.kill(os.getpid(), getattr(signal, name))
class Scope:
    def __enter__(self): pass
    def __exit__(self, *_):
        kill("SIGTERM"); time.sleep(0.02); kill("SIGINT"); time.sleep(0.1)
        print("left", flush=True)
Interruption().install()
try:
    with Scope():
        pass
    time.sleep(10)
except KeyboardInterrupt:
    kill("SIGHUP"); kill("SIGINT"); time.sleep(0.1)
    print("interrupted", flush=True)
"""


def test_a_scope_is_left_whole_and_what_follows_is_interrupted_once() -> None:
    process = start([sys.executable, "-c", WITHOUT_CLOCK + UNDISTURBED])
    said, errors = process.communicate(timeout=_PATIENCE_SECONDS)
    assert (said, errors, process.returncode) == ("left\ninterrupted\n", "", 0)


# The interpreter drops what is raised in such a callback.
DROPPED = """
import os, signal, sys, time, weakref
from vidrestore.common.interruption import Interruption
class Watched: pass
def callback(_):
    os.kill(os.getpid(), signal.SIGTERM)
    [None for _ in range(1000)]
interruption = Interruption()
interruption.install()
watched = Watched()
reference = weakref.ref(watched, callback)
try:
    del watched
    time.sleep(10)
except KeyboardInterrupt:
    try:
        time.sleep(0.1)
    finally:
        interruption.settle()
    print("interrupted once", flush=True)
else:
    print("lost", flush=True)
"""


def test_an_interruption_that_the_interpreter_drops_is_raised_again() -> None:
    process = start([sys.executable, "-c", WITHOUT_CLOCK + DROPPED])
    said, errors = process.communicate(timeout=_PATIENCE_SECONDS)
    assert (said, errors, process.returncode) == ("interrupted once\n", "", 0)


# Sends a signal where the interpreter looks for signals, at one moment after another
# between the begin and the end of the work that a script defines.
AT_EACH_MOMENT = """
import os, signal, sys
from vidrestore.common.interruption import Interruption

def moments_until(wanted):
    count = 0
    def watch(frame, event, function):
        nonlocal count
        if frame.f_globals.get("__name__") not in WATCHED:
            return
        # Where a function of Python begins, where one of C has returned, and in one that waits.
        waits = event == "c_call" and function.__name__ in ("acquire", "read", "waitpid")
        if event in ("call", "c_return") or waits:
            count += 1
            if count == wanted:
                sys.setprofile(None)
                signal.getsignal(signal.SIGTERM)(signal.SIGTERM, frame)  # as the interpreter does
    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count

last = moments_until(0)
interrupted = 0
for moment in range(int(sys.argv[1]), last + 1, int(sys.argv[2])):
    interruption = Interruption()
    interruption.install()
    try:
        moments_until(moment)
    except (KeyboardInterrupt, RuntimeError) as error:
        # The lock of a condition may be another's then, which makes another error of it.
        assert interruption.was_raised, error
        interrupted += 1
    interruption.settle()
    if left := left_behind():
        raise SystemExit(f"moment {moment} of {last} leaves {left}")
print("interrupted" if interrupted else "never")
"""
RUNS_FFMPEG = """
from vidrestore.media.ffmpeg import run_ffmpeg, run_ffmpeg_watched
WATCHED = ("vidrestore.media.ffmpeg", "subprocess")
def left_behind():
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
"""
STARTS_THREADS = """
import threading
from vidrestore.common.threads import StageThreads
WATCHED = ("vidrestore.common.threads", "threading")
def work():
    with StageThreads() as threads:
        numbers = threads.background(iter(range(3)), depth=1, name="numbers")
        doubled = threads.each(numbers, [lambda n: 2 * n] * 2, depth=1, name="doubled")
        assert list(doubled) == [0, 2, 4]
def left_behind():
    return [each for each in threading.enumerate() if each is not threading.main_thread()]
"""
HOLDS_FILES = """
from pathlib import Path
from vidrestore.common.files import written_atomically
from vidrestore.common.temporary import temporary_folder
from vidrestore.jobs.work_folder import work_folder
WATCHED = ("vidrestore.common.files", "vidrestore.common.temporary", "vidrestore.jobs.work_folder",
           "contextlib", "pathlib", "tempfile", "shutil")
place = Path("place")
place.mkdir()
def left_behind():
    return [each.name for each in place.iterdir() if each.name != "whole"]
def work():
    with {scope}:
        {body}
"""
WORKS = {
    "ffmpeg": RUNS_FFMPEG + "work = lambda: run_ffmpeg(['0.02'])",
    "ffmpeg, watched": RUNS_FFMPEG + "work = lambda: run_ffmpeg_watched(['0.02'], int)",
    "threads": STARTS_THREADS,
    "file": HOLDS_FILES.format(
        scope='written_atomically(place / "whole") as part', body='part.write_text("a")'
    ),
    "temporary folder": HOLDS_FILES.format(
        scope="temporary_folder(place) as folder", body='(folder / "a").write_text("a")'
    ),
    "work folder": HOLDS_FILES.format(
        scope='work_folder(place / "a.mkv", print) as folder',
        body='folder.place("video", ".mkv").write_text("a")',
    ),
}


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(work, id=name, marks=[pytest.mark.long] * (name in ("file", "work folder")))
        for name, work in WORKS.items()
    ],
)
@pytest.mark.parametrize(
    ("first", "stride"),
    [(1, 7), *(pytest.param(n, 7, marks=pytest.mark.long) for n in range(2, 8))],
)
def test_an_interruption_at_any_moment_leaves_nothing_behind(
    tmp_path: Path, work: str, first: int, stride: int
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text('#!/bin/sh\nfor last; do :; done\nsleep "$last"\n')
    program.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", f"import os\n{WITHOUT_CLOCK}{work}\n{AT_EACH_MOMENT}",
         str(first), str(stride)],
        cwd=tmp_path, env=os.environ | {"VIDRESTORE_FFMPEG": str(program)},
        capture_output=True, text=True, check=False, timeout=_LONG_SECONDS,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


SHOWN = """
from vidrestore.common.interruption import Interruption
class Watched:
    def __del__(self):
        raise ValueError("of a library")
Interruption().install()
Watched()
"""


def test_other_exceptions_that_the_interpreter_drops_are_shown() -> None:
    process = start([sys.executable, "-c", SHOWN])
    _, errors = process.communicate(timeout=_PATIENCE_SECONDS)
    assert "ValueError: of a library" in errors


STUCK = """
import time
from vidrestore.common.interruption import Interruption
Interruption().install()
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("cleaning", flush=True)
    time.sleep(600)
"""


def test_a_third_signal_after_a_second_ends_at_once() -> None:
    process = start([sys.executable, "-c", STUCK])
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    process.send_signal(signal.SIGINT)
    time.sleep(1.1)
    # Of another kind: two of one kind would reach a process that gets no time as one.
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=_PATIENCE_SECONDS) == 130
    process.communicate()


def test_what_nohup_ignores_stays_ignored() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.3)
    process.kill()
    process.communicate()


IN_A_TEXT = """
import os, signal, sys
from vidrestore.common.interruption import Interruption
interruption = Interruption()
interruption.install()
try:
    exec("os.kill(os.getpid(), signal.SIGINT); [None for _ in range(1000)]")
except KeyboardInterrupt:
    interruption.settle()
    sys.exit(130)
"""


def test_through_code_from_a_text_the_status_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "interrupted_in_a_text.py").write_text(IN_A_TEXT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    process = start([sys.executable, "-m", "interrupted_in_a_text"], env=environment)
    assert process.communicate(timeout=_PATIENCE_SECONDS) == ("", "")
    assert process.returncode == 130


IN_AN_IMPORT = """
import sys, time
from vidrestore.common.interruption import Interruption
interruption = Interruption()
interruption.install()
try:
    import a_library
    time.sleep(10)
except KeyboardInterrupt:
    interruption.settle()
    print("interrupted")
    sys.exit(130)
"""
A_LIBRARY = """
import os, signal, time
os.kill(os.getpid(), signal.SIGINT)
time.sleep(0.1)
print("imported")
"""


def test_the_import_of_a_library_is_not_disturbed(tmp_path: Path) -> None:
    """Torch ends the process where C++ code that it runs at its import meets an exception."""
    (tmp_path / "a_library.py").write_text(A_LIBRARY)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    process = start([sys.executable, "-c", WITHOUT_CLOCK + IN_AN_IMPORT], env=environment)
    said, errors = process.communicate(timeout=_PATIENCE_SECONDS)
    assert (said, errors, process.returncode) == ("imported\ninterrupted\n", "", 130)


@pytest.fixture(scope="module")
def seconds() -> dict[str, float]:
    """Of a whole run; measured once."""
    return {}


@pytest.mark.parametrize(
    "seed",
    [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 45))],
)
def test_two_signals_at_any_moment(
    make_video: MakeVideo, tmp_path: Path, seconds: dict[str, float], seed: int
) -> None:
    source, target = make_video(), tmp_path / "out" / "clear.mkv"
    target.parent.mkdir()
    (tmp_path / "tmp").mkdir()
    given = [
        *(sys.executable, "-m", "vidrestore", "restore", str(source), str(target), "--json"),
        *("--restorer", "fusion", "--detector", "haar"),
    ]
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp"), "PYTHONFAULTHANDLER": "1"}
    if not seconds:
        began = time.monotonic()
        subprocess.run(given, check=True, capture_output=True, env=environment)
        seconds["whole"] = time.monotonic() - began
        target.unlink()
    chance = random.Random(seed)
    process = start(given, env=environment)
    # Before that nothing of ours runs.
    while process.poll() is None and not caught(process.pid) & 1 << (signal.SIGTERM - 1):
        time.sleep(0.001)
    # Multiples of the golden ratio spread the moments evenly over the run.
    moment = (seed * 0.618034 + chance.uniform(0, 1 / 45)) % 1
    time.sleep(1.05 * moment * seconds["whole"])
    below = started_by(process.pid) if process.poll() is None else []
    for number in PAIRS[seed % len(PAIRS)]:
        process.send_signal(number)
        time.sleep(0.02)
    said, errors = process.communicate(timeout=_PATIENCE_SECONDS)
    last = json.loads(said.splitlines()[-1])
    if process.returncode == 0:  # all was done already
        assert last["event"] == "done"
        assert list(target.parent.iterdir()) == [target]
    else:
        assert (process.returncode, last.get("kind")) == (130, "interrupted"), errors
        assert not target.exists()
    assert "Traceback" not in errors
    assert "Exception ignored" not in errors
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not any(map(runs, below))


IN_A_BATCH = """
import os, signal, time
from pathlib import Path
from vidrestore.common import interruption
from vidrestore.common.files import output_file
handler = interruption.Interruption()
handler.install()
with output_file(Path("first"), is_last=True):
    pass
os.kill(os.getpid(), signal.SIGTERM); time.sleep(0.1)
print("the first is there", flush=True)
try:
    interruption.expect_end(False)
    print("the second begins", flush=True)
except KeyboardInterrupt:
    handler.settle()
    print("interrupted", flush=True)
"""


def test_once_an_output_is_in_its_place_only_the_next_one_is_interrupted(tmp_path: Path) -> None:
    process = start([sys.executable, "-c", WITHOUT_CLOCK + IN_A_BATCH], cwd=tmp_path)
    said, errors = process.communicate(timeout=_PATIENCE_SECONDS)
    assert (said, errors) == ("the first is there\ninterrupted\n", "")


# A run whose output is made once; then its end, with a signal at one moment after another.
ENDS = """
import contextlib, io, json, os, shutil, signal, sys
from pathlib import Path
from vidrestore.cli import main
from vidrestore.common.interruption import Interruption
from vidrestore.jobs import run

source, target, report, first, stride = Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]
make = run._make_output
made, moment = None, 0

def make_once(request, work, *more):
    global made
    if made is None:
        made = make(request, work, *more)
        shutil.copy(made.whole, "whole")
    shutil.copy("whole", made.whole)
    count = 0
    def watch(frame, event, function):
        nonlocal count
        name = str(frame.f_globals.get("__name__"))
        if event in ("call", "c_return") and name.partition(".")[0] in ("vidrestore", "contextlib"):
            count += 1
            if count == moment:
                sys.setprofile(None)
                os.kill(os.getpid(), signal.SIGTERM)
    if moment:
        sys.setprofile(watch)
    return made

run._make_output = make_once
given = ["restore", str(source), str(target), "--json"]
given += ["--restorer", "fusion", "--detector", "haar"]
given += ["--report", report] if report != "-" else []
ended = {0: 0, 130: 0}

def one():
    for path in (target, Path(report)):
        path.unlink(missing_ok=True)
    interruption, said = Interruption(), io.StringIO()
    interruption.install()
    try:
        with contextlib.redirect_stdout(said):
            main(given, interruption)
    except SystemExit as left:
        status = left.code
    finally:
        is_over = sys.getprofile() is not None or not moment
        sys.setprofile(None)
    last = json.loads(said.getvalue().splitlines()[-1])
    right = ("done", None, True) if status == 0 else ("error", "interrupted", False)
    if (last["event"], last.get("kind"), target.exists()) != right:
        raise SystemExit(f"moment {moment}: {status}, {last}, {target.exists()}")
    if left := [each for each in target.parent.iterdir() if each not in (target, Path(report))]:
        if status == 0 or [each.suffix for each in left] != [".vidrestore"]:
            raise SystemExit(f"moment {moment}: {left}")
    ended[status] += 1
    return is_over

one()
moment = int(first)
while not one():
    moment += int(stride)
print(*ended.values())
"""


@pytest.mark.parametrize(
    ("report", "first", "stride"),
    [
        ("-", 1, 7),
        ("report.html", 2, 7),
        *(pytest.param("-", n, 7, marks=pytest.mark.long) for n in range(2, 8)),
    ],
)
def test_an_output_has_its_name_exactly_if_the_command_succeeds(
    make_video: MakeVideo, tmp_path: Path, report: str, first: int, stride: int
) -> None:
    target = tmp_path / "out" / "clear.mkv"
    target.parent.mkdir()
    page = report if report == "-" else str(target.with_name(report))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_CLOCK + ENDS,
         make_video(), target, page, str(first), str(stride)],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=_LONG_SECONDS,
    )  # fmt: skip
    assert done.stderr == ""
    assert int(done.stdout.split()[0]) > 30  # times at which the output was in its place


MAKES_ANOTHER_ERROR = """
import os, signal, sys

class Library:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except KeyboardInterrupt:
                raise ImportError("of the library") from None

wanted = sys.argv[1]
sys.argv = ["vidrestore", "analyze", sys.executable, "--json"]  # a file that is there
sys.meta_path.insert(0, Library())
from vidrestore.__main__ import main
main()
"""


@pytest.mark.parametrize("name", ["vidrestore.cli", "vidrestore.media.probe"])
def test_an_interruption_that_a_library_made_another_error_of_is_one(name: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", MAKES_ANOTHER_ERROR, name],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert run.returncode == 130, run.stderr
    assert json.loads(run.stdout.splitlines()[-1])["kind"] == "interrupted"
    assert "Traceback" not in run.stderr
