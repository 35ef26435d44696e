"""Whatever breaks, wherever: the caller hears of it soon, and nothing is left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.beats import Beats
from helpers.videos import MakeVideo, stage_threads, write_video

from vidrestore.analysis import pipeline
from vidrestore.analysis.result import Analysis
from vidrestore.analysis.tracks import Track
from vidrestore.api import restore_video
from vidrestore.common.errors import ChangedSourceError, InputError, OutputError
from vidrestore.common.events import Event, OnEvent, Progress
from vidrestore.common.settings import Settings
from vidrestore.jobs import run as job
from vidrestore.media import decode
from vidrestore.media.encode import VideoWriter
from vidrestore.models import factory
from vidrestore.models.detectors import Detection, Detector, detection
from vidrestore.models.restorers import Restorer
from vidrestore.restoration.compositing import paste

_FRAMES = 20
_BAD_FRAME = 12
_PROMPT_SECONDS = 2
_INTERRUPT_SECONDS = 60.0

Break = Callable[[pytest.MonkeyPatch, "Run"], None]


class StageError(Exception):
    pass


class Fuse:
    """Breaks at its n-th use, and remembers when."""

    def __init__(self, uses: int) -> None:
        self.uses = uses
        self.clock = time.monotonic
        self.blown_at = 0.0

    def use(self) -> None:
        self.uses -= 1
        if self.uses <= 0:
            self.blow()

    def blow(self) -> None:
        self.blown_at = self.blown_at or self.clock()
        raise StageError("on purpose")


class OneFace(Detector):
    """A detector that sees the same face in every picture of 160 x 120 pixels."""

    coarse = False

    def __init__(self, fuse: Fuse | None = None) -> None:
        self._fuse = fuse

    def __call__(self, picture: np.ndarray) -> list[Detection]:
        if self._fuse:
            self._fuse.use()
        points = [[65, 50], [95, 50], [80, 65], [68, 80], [92, 80]]
        return [detection([45, 25, 115, 95], points, 0.9)]


class Darker(Restorer):
    """A restorer whose work is easy to see."""

    name = "darker"
    size: int | None = None
    reach_frames = 1
    template = "gpen"

    def __init__(self, fuse: Fuse | None = None) -> None:
        self._fuse = fuse

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        if self._fuse:
            self._fuse.use()
        return windows[:, self.reach_frames] * 0.8


class Run:
    """One call of `restore_video`, of which each part can be replaced."""

    def __init__(self, source: Path, target: Path, analysis: Analysis) -> None:
        self.source, self.target = source, target
        self.analysis: Analysis | None = analysis
        self.restorer = Darker()
        self.settings = Settings()
        self.on_event: OnEvent | None = None
        self.fuse = Fuse(_BAD_FRAME)

    def __call__(self) -> Any:
        return restore_video(
            self.source,
            self.target,
            self.settings,
            restorer=self.restorer,
            analysis=self.analysis,
            overwrite=True,
            on_event=self.on_event,
        )


@pytest.fixture(scope="module")
def analyzed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Analysis]:
    """A video and what the first pass finds in it; the tests have copies of the video."""
    folder = tmp_path_factory.mktemp("analyzed")
    source = write_video(folder / "source.mp4", frames=_FRAMES, size=(160, 120), audio=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factory, "open_detector", lambda *_, **__: OneFace())
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return source, pipeline.analyze_video(source)


@pytest.fixture
def run(tmp_path: Path, analyzed: tuple[Path, Analysis], monkeypatch: pytest.MonkeyPatch) -> Run:
    made, analysis = analyzed
    source = Path(shutil.copy2(made, tmp_path))
    monkeypatch.setattr(factory, "open_detector", lambda *_, **__: OneFace())
    (tmp_path / "out").mkdir()
    return Run(source, tmp_path / "out" / "clear.mp4", analysis)


def test_all_goes_well_where_nothing_breaks(run: Run) -> None:
    """The ground on which the other tests stand."""
    for known in (run.analysis, None):
        run.analysis = known
        summary = run()
        assert (summary.frames, summary.faces, summary.tracks) == (_FRAMES, _FRAMES, 1)
        assert list(run.target.parent.iterdir()) == [run.target]


def break_decode(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    decoded = decode._decoded

    def breaking(*arguments: Any, **options: Any) -> Iterator[Any]:
        for index, image in enumerate(decoded(*arguments, **options)):
            if index == _BAD_FRAME:
                run.fuse.blow()
            yield image

    monkeypatch.setattr(decode, "_decoded", breaking)


def break_detect(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setattr(factory, "open_detector", lambda *_, **__: OneFace(run.fuse))


def break_crop(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    assert run.analysis is not None
    (track,) = run.analysis.tracks

    class Breaking(Track):
        def __getattribute__(self, name: str) -> Any:
            if name == "strength":
                run.fuse.use()
            return super().__getattribute__(name)

    fields = {name: getattr(track, name) for name in Track.__dataclass_fields__}
    run.fuse.uses = 1000  # construction looks at itself too
    broken = Breaking(**fields)
    run.fuse.uses = _BAD_FRAME
    run.analysis = replace(run.analysis, tracks=(broken,))


def break_restore(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    run.fuse.uses = 3  # batches
    run.restorer = Darker(run.fuse)


def break_paste(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    mask_rect = paste.mask_rect

    def breaking(*arguments: Any) -> Any:
        run.fuse.use()
        return mask_rect(*arguments)

    monkeypatch.setattr(paste, "mask_rect", breaking)


def break_encode(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    mux = VideoWriter._mux

    def breaking(self: VideoWriter, image: Any) -> None:
        if image is not None:
            run.fuse.use()
        mux(self, image)

    monkeypatch.setattr(VideoWriter, "_mux", breaking)


def break_receiver(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    run.on_event = lambda event: run.fuse.use()


def in_pass_one(breaking: Break) -> Break:
    def in_pass_one(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
        run.analysis = None
        breaking(monkeypatch, run)

    return in_pass_one


BREAKS = {
    "analyze: decode": (in_pass_one(break_decode), "media/decode.py"),
    "analyze: detect": (in_pass_one(break_detect), "analysis/detection.py"),
    "analyze: receiver of events": (in_pass_one(break_receiver), "analysis/pipeline.py"),
    "restore: decode": (break_decode, "media/decode.py"),
    "restore: crop": (break_crop, "restoration/crop.py"),
    "restore: restore": (break_restore, "restoration/batching.py"),
    "restore: paste": (break_paste, "restoration/compositing/paste.py"),
    "restore: encode": (break_encode, "media/encode.py"),
    "restore: receiver of events": (break_receiver, "restoration/pipeline.py"),
}


@pytest.mark.parametrize(
    "there_is_output",
    [
        pytest.param(False, id="new"),
        pytest.param(True, id="over another", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize(("breaking", "home"), BREAKS.values(), ids=BREAKS.keys())
def test_an_error_in_any_stage_reaches_the_caller(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    beats: Beats,
    breaking: Break,
    home: str,
    there_is_output: bool,
) -> None:
    run.fuse.clock = lambda: beats.seconds
    if there_is_output:
        run.target.write_bytes(b"of an earlier run")
    breaking(monkeypatch, run)

    with pytest.raises(StageError) as raised:
        run()

    assert beats.seconds - run.fuse.blown_at < _PROMPT_SECONDS
    files = [frame.filename for frame in traceback.extract_tb(raised.value.__traceback__)]
    assert any(file.endswith(f"vidrestore/{home}") for file in files), files
    assert_nothing_changed(run, there_is_output)


def assert_nothing_changed(run: Run, there_was_output: bool = False) -> None:
    assert stage_threads() == []
    assert list(run.target.parent.iterdir()) == ([run.target] if there_was_output else [])
    if there_was_output:
        assert run.target.read_bytes() == b"of an earlier run"


def test_an_encoder_that_cannot_start(run: Run) -> None:
    encode = run.settings.encode.model_copy(update={"preset": "no such preset"})
    run.settings = run.settings.model_copy(update={"encode": encode})
    with pytest.raises(OutputError, match="encoding frame 0"):
        run()
    assert_nothing_changed(run)


def test_a_source_that_vanishes_between_the_passes(run: Run) -> None:
    def remove(event: Event) -> None:
        if isinstance(event, Progress) and event.frame == _FRAMES:
            run.source.unlink()

    run.analysis, run.on_event = None, remove
    with pytest.raises(InputError, match="does not exist"):
        run()
    assert_nothing_changed(run)


def test_a_source_that_changes_during_the_first_pass(run: Run, make_video: MakeVideo) -> None:
    shorter = make_video("shorter.mp4", frames=_FRAMES - 5, size=(160, 120))

    def swap(event: Event) -> None:
        if event == Progress("analyze", _FRAMES, _FRAMES):
            shorter.replace(run.source)

    run.analysis, run.on_event = None, swap
    with pytest.raises(ChangedSourceError, match="changed during its analysis"):
        run()
    assert_nothing_changed(run)


def test_a_source_that_changes_between_the_passes(
    run: Run, make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = make_video("shorter.mp4", frames=_FRAMES - 5, size=(160, 120))
    plan = job.plan_job

    def plan_and_swap(*arguments: Any, **options: Any) -> Any:
        planned = plan(*arguments, **options)
        shorter.replace(run.source)
        return planned

    monkeypatch.setattr(job, "plan_job", plan_and_swap)
    run.analysis = None
    with pytest.raises(ChangedSourceError, match="differs from the one of the first pass"):
        run()
    assert_nothing_changed(run)


@pytest.mark.parametrize("program", ["/no/such/ffmpeg", "/bin/false"])
def test_a_joining_program_that_fails(
    run: Run, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setenv("VIDRESTORE_FFMPEG", program)
    with pytest.raises(OutputError):
        run()
    assert stage_threads() == []
    # The new video stream is done, where it got that far; the next run only joins it.
    assert not run.target.exists()
    monkeypatch.undo()


def test_a_stale_work_folder_is_no_obstacle(run: Run) -> None:
    stale = run.target.with_name(run.target.name + ".vidrestore")
    stale.mkdir()
    (stale / "video.mp4").write_bytes(b"half of a file")
    run()
    assert list(run.target.parent.iterdir()) == [run.target]


def command(source: Path, target: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "vidrestore", "restore", str(source), str(target), "--json"),
        *("--restorer", "fusion", "--detector", "haar", *more),
    ]


def start(given: list[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, as a test run may be, hands down that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def assert_is_interrupted(process: "subprocess.Popen[str]") -> None:
    """The process must say so and be gone in time."""
    try:
        said, errors = process.communicate(timeout=_INTERRUPT_SECONDS)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert json.loads(said.splitlines()[-1])["kind"] == "interrupted"


# The program, which gets a signal when a stage has finished so many frames.
INTERRUPTED_AT = """
import os, runpy, sys
from vidrestore.common.events import Progress
folder, stage, frame, number = sys.argv[1:5]
del sys.argv[1:5]
as_dict = Progress.as_dict
def interrupt(progress):
    if (progress.stage, progress.frame) == (stage, int(frame)):
        assert os.listdir(folder), "there is nothing yet that could be left behind"
        os.kill(os.getpid(), int(number))
    return as_dict(progress)
Progress.as_dict = interrupt
runpy.run_module("vidrestore", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("stage", "part", "signal_number"),
    [
        pytest.param("analyze", "9", signal.SIGINT, marks=pytest.mark.long),
        ("restore", "0.6", signal.SIGINT),
        pytest.param("analyze", "9", signal.SIGTERM, marks=pytest.mark.long),
        pytest.param("restore", "0.6", signal.SIGTERM, marks=pytest.mark.long),
    ],
)
def test_an_interrupted_command_leaves_nothing(
    shared: Path, tmp_path: Path, stage: str, part: str, signal_number: int
) -> None:
    limits = ("--end", part, "--batch-size", "1")  # a batch that runs cannot be stopped
    given = command(shared / "clips/lp_s18.mp4", tmp_path / "clear.mp4", *limits)[3:]
    moment = str(tmp_path), stage, "2", str(int(signal_number))
    assert_is_interrupted(start([sys.executable, "-c", INTERRUPTED_AT, *moment, *given]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_an_interrupted_join_ends_its_program_too(
    make_video: MakeVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note, slow = tmp_path / "note", tmp_path / "slow"
    slow.write_text(f"#!/bin/sh\necho $$ > {note}.new && mv {note}.new {note}\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("VIDRESTORE_FFMPEG", str(slow))
    target = tmp_path / "out" / "clear.mp4"
    target.parent.mkdir()

    process = start(command(make_video(), target))
    while not note.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert_is_interrupted(process)

    kept = [path.name for path in target.parent.iterdir()]
    assert kept == ["clear.mp4.vidrestore"], "the finished segments, for the next run"
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
