"""A killed job goes on where it was: the same file, nothing done twice, nothing left behind.

As a script it is such a job: `test_killed.py MOMENT TAPE ANALYSIS TARGET` kills itself just then.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import md5
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import imageio_ffmpeg
import pytest
import torch
from helpers import media, sources
from helpers.processes import environment

from vidrestore.analysis import storage
from vidrestore.analysis.pipeline import analyze_video
from vidrestore.analysis.result import Analysis
from vidrestore.api import restore_video
from vidrestore.common.profiles import load_settings
from vidrestore.jobs import verify
from vidrestore.jobs.work_folder import WorkFolder
from vidrestore.media import concat, remux
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.probe import fingerprint
from vidrestore.models import factory
from vidrestore.models.restorers import Restorer
from vidrestore.restoration.segments import Segment, plan_segments

pytestmark = pytest.mark.long

SIZE, FRAMES, SEGMENTS = (96, 64), 300, 12
# Each is rendered in two segments.
SHOTS = tuple((first, first + 50) for first in range(0, FRAMES, 50))
OPTIONS = {
    "encode.codec": "ffv1", "job.segment_frames": 48, "deflicker.amount": 0,
    "detect.remember": False, **media.AS_PAINTED,
}  # fmt: skip
# Those before it are done when something happens in this one, with which its shot ends.
_AT_SEGMENT = 5
# No face is restored twice, so that the count of faces says where a run is.
_FACES_OF_THESE = (_AT_SEGMENT + 1) * (FRAMES // SEGMENTS)
_KILLED_AT = _FACES_OF_THESE - 10


class Tinted(Restorer):
    """A face that depends on what its frame and the next ones show."""

    name = "tinted"
    cache_key = "tinted"
    size = None
    reach_frames = 1
    template = "gpen"

    def __init__(self, *, kills_at: int | None = None) -> None:
        self.faces = 0
        self._kills_at = kills_at

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        self.faces += len(windows)
        if self.faces == self._kills_at:
            kill()
        mean = windows.mean(dim=(1, 3, 4), keepdim=True)[:, 0]
        return (0.6 * windows[:, 1] + 0.4 * mean).clamp(0, 1)


def kill() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody outlives that")


def segments_of(analysis: Analysis) -> list[Segment]:
    segments = plan_segments(analysis, most_frames=48)
    assert len(segments) == SEGMENTS
    return segments


class Job(NamedTuple):
    """What a job that shall be killed is given; a moment may change it."""

    restorer: Tinted
    analysis: Analysis | None


Moment = Callable[[Job], Job]


def in_the_analysis(job: Job) -> Job:
    class Deadly(media.OneFace):
        def __call__(self, picture: Any) -> list[Any]:
            if self.pictures == 60:
                kill()
            return super().__call__(picture)

    factory.open_detector = lambda *_, **__: Deadly()
    return job._replace(analysis=None)


def in_a_segment(job: Job) -> Job:
    return job._replace(restorer=Tinted(kills_at=_KILLED_AT))


def at_note(name: str, share: float | None) -> Moment:
    """Before a note has its name; this share of it is written, or nothing has begun."""

    def aimed(job: Job) -> Job:
        note = WorkFolder._note

        def deadly(self: WorkFolder, path: Path, content: Any) -> None:
            if path.stem == name:
                text = json.dumps(content)
                if share is not None:
                    path.with_suffix(".note").write_text(text[: round(share * len(text))])
                kill()
            note(self, path, content)

        WorkFolder._note = deadly
        return job

    return aimed


def in_the_join(job: Job) -> Job:
    packets_of, parts = concat._packets, []

    def deadly(part: Path, extradata: bytes | None) -> Iterator[Any]:
        parts.append(part)
        for number, packet in enumerate(packets_of(part, extradata)):
            if (len(parts), number) == (_AT_SEGMENT, 7):
                kill()
            yield packet

    concat._packets = deadly
    return job


def with_half_of_the_segments_gone(job: Job) -> Job:
    def deadly(self: WorkFolder) -> None:
        for path in sorted(self._segments.iterdir())[::2]:
            path.unlink()
        kill()

    WorkFolder.forget_segments = deadly
    return job


def in_the_remux(job: Job) -> Job:
    run = remux.run_ffmpeg

    def deadly(arguments: list[str]) -> Any:
        result = run(arguments)
        whole = Path(arguments[-1])
        if whole.stem == "whole":
            whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
            kill()
        return result

    remux.run_ffmpeg = deadly
    return job


def in_a_remux_whose_program_goes_on(job: Job) -> Job:
    run = remux.run_ffmpeg

    def deadly(arguments: list[str]) -> Any:
        if Path(arguments[-1]).stem != "whole":
            return run(arguments)
        # So slowly that it goes on until the test ends it.
        slow = ("-readrate", "0.02")
        given = [word for a in arguments for word in ((*slow, a) if a == "-i" else (a,))]
        quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        process = subprocess.Popen([imageio_ffmpeg.get_ffmpeg_exe(), *given], **quiet)
        while not Path(arguments[-1]).exists():
            time.sleep(0.01)
        time.sleep(0.5)
        print(process.pid, flush=True)
        kill()

    remux.run_ffmpeg = deadly
    return job


def in_the_check(job: Job) -> Job:
    add = verify._Comparison.add

    def deadly(self: Any, was: Any, now: Any) -> None:
        if self.frames == FRAMES // 2:
            kill()
        add(self, was, now)

    verify._Comparison.add = deadly
    return job


def at_the_renaming(*, is_done: bool) -> Moment:
    def aimed(job: Job) -> Job:
        move = Path.replace

        def deadly(self: Path, target: Path) -> Path:
            if self.stem != "whole":
                return move(self, target)
            if is_done:
                move(self, target)
            kill()

        Path.replace = deadly
        return job

    return aimed


# When, and how many faces need not be restored again.
MOMENTS: dict[str, tuple[Moment, int]] = {
    "in the analysis": (in_the_analysis, 0),
    "in a segment": (in_a_segment, _KILLED_AT - 1),
    "between a segment and its note": (at_note("0005", None), _FACES_OF_THESE),
    "in a segment's note": (at_note("0005", 0.5), _FACES_OF_THESE),
    "before a segment's note has its name": (at_note("0005", 1), _FACES_OF_THESE),
    "in the job's note": (at_note("job", 0.5), 0),
    "in the join": (in_the_join, FRAMES),
    "between the join and its note": (at_note("video", None), FRAMES),
    "with half of the segments gone": (with_half_of_the_segments_gone, FRAMES),
    "in the remux": (in_the_remux, FRAMES),
    "in a remux whose program goes on": (in_a_remux_whose_program_goes_on, FRAMES),
    "in the check": (in_the_check, FRAMES),
    "before the renaming": (at_the_renaming(is_done=False), FRAMES),
    "after the renaming": (at_the_renaming(is_done=True), FRAMES),
}  # fmt: skip


def restored(tape: Path, target: Path, job: Job, *, overwrite: bool = False) -> None:
    restore_video(
        tape, target, load_settings(options=OPTIONS), restorer=job.restorer, analysis=job.analysis,
        overwrite=overwrite,
    )  # fmt: skip


class Contents(NamedTuple):
    frames: list[tuple[int, str]]
    sound: list[tuple[float, bytes]]


def contents(path: Path) -> Contents:
    frames = [
        (
            frame.pts,
            md5(b"".join(plane.tobytes() for plane in media.planes_of(frame.image))).hexdigest(),
        )
        for frame in decode(path, DecodeErrors())
    ]
    sound = media.packets(path, 1)
    assert (len(frames), len(sound) > 10) == (FRAMES, True)
    return Contents(frames, sound)


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tape")
    images = [media.mild_image(*SIZE, "yuv420p", index) for index in range(FRAMES)]
    picture, path = media.write_video(folder / "picture.mkv", images), folder / "tape.mkv"
    sources.ffmpeg("-i", picture, "-f lavfi -i sine=440:d=12 -c:v copy -c:a flac", path)
    return path


@pytest.fixture(scope="module")
def faces(tape: Path) -> Analysis:
    tracks = [
        media.plain_track(end - first, centre=(48, 32), side=32, first_frame=first, track_id=number)
        for number, (first, end) in enumerate(SHOTS)
    ]
    found = media.analysis_of_file(tape, tracks)
    return replace(found, shots=SHOTS, fingerprint=fingerprint(tape))


@pytest.fixture(scope="module")
def uninterrupted(
    tape: Path, faces: Analysis, tmp_path_factory: pytest.TempPathFactory
) -> Contents:
    target, restorer = tmp_path_factory.mktemp("whole") / "out.mkv", Tinted()
    restored(tape, target, Job(restorer, faces))
    assert restorer.faces == FRAMES
    whole = contents(target)
    assert whole.sound == media.packets(tape, 1)
    return whole


@pytest.mark.parametrize("name", MOMENTS)
def test_a_job_killed_at_any_step_goes_on_from_there(tape, faces, uninterrupted, tmp_path, name):
    known, folder = tmp_path / "known.npz", tmp_path / "out"
    storage.save(faces, known)
    folder.mkdir()
    target = folder / "out.mkv"
    killed = subprocess.run(
        [sys.executable, __file__, name, tape, known, target],
        capture_output=True, text=True, check=False, timeout=300, env=environment(),
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert target.exists() == (name == "after the renaming")
    assert target.with_name("out.mkv.vidrestore").is_dir()
    again = Tinted()
    try:
        restored(tape, target, Job(again, faces), overwrite=target.exists())
    finally:
        if killed.stdout:
            os.kill(int(killed.stdout), signal.SIGKILL)
    assert contents(target) == uninterrupted
    assert list(folder.iterdir()) == [target]
    assert again.faces == FRAMES - MOMENTS[name][1]


@pytest.fixture(scope="module")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face that a detector finds, with sound."""
    import cv2
    from skimage import data

    folder = tmp_path_factory.mktemp("portrait")
    picture, path = folder / "picture.png", folder / "portrait.mkv"
    cv2.imwrite(str(picture), cv2.resize(data.astronaut()[..., ::-1], (300, 300)))
    look = "crop=160:120:x='40+20*sin(t)':y='20+10*sin(0.7*t)',noise=alls=6:allf=t"
    # Light that changes every two seconds is taken for a cut.
    look += ",eq=brightness='0.2*mod(floor(t/2),2)':eval=frame"
    moving = "-loop 1 -framerate 25 -i", picture, "-f lavfi -i sine=440 -t 12"
    sources.ffmpeg(*moving, f'-vf "{look}" -c:v libx264 -crf 20 -pix_fmt yuv420p -c:a flac', path)
    return path


def command(tape: Path, target: Path) -> list[str]:
    given = OPTIONS | {"detect.every": 3}
    options = [word for k, v in given.items() for word in ("--set", f"{k}={json.dumps(v)}")]
    return [
        *(sys.executable, "-m", "vidrestore", "restore", str(tape), str(target), "--json"),
        *("--restorer", "fusion", "--detector", "haar", *options),
    ]


@pytest.fixture(scope="module")
def in_one_go(portrait: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Contents, float]:
    settings = load_settings(options=OPTIONS | {"detect.detector": "haar", "detect.every": 3})
    segments_of(analyze_video(portrait, settings))
    target = tmp_path_factory.mktemp("whole") / "out.mkv"
    started = time.monotonic()
    subprocess.run(command(portrait, target), check=True, capture_output=True, timeout=600)
    return contents(target), time.monotonic() - started


@pytest.mark.parametrize("seed", range(5))
def test_a_command_killed_twice_anywhere_gives_the_same(portrait, in_one_go, tmp_path, seed):
    whole, seconds = in_one_go
    target, moment = tmp_path / "out.mkv", random.Random(seed)
    for _ in range(2):
        process = subprocess.Popen(
            command(portrait, target), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + moment.uniform(0.2, 0.9) * seconds
        while time.monotonic() < until and process.poll() is None:
            assert not target.exists() or process.wait(timeout=60) == 0
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.returncode == 0 or target.exists():
            break
    # Killed between the last two steps, a run leaves its folder, which the next one removes.
    if process.returncode:
        more = ["--overwrite"] if target.exists() else []
        done = subprocess.run([*command(portrait, target), *more], check=True,
                              capture_output=True, text=True, timeout=600)  # fmt: skip
        assert json.loads(done.stdout.splitlines()[-1])["event"] == "done"
    assert contents(target) == whole
    assert list(tmp_path.iterdir()) == [target]


def test_of_two_commands_at_once_one_writes_and_one_is_refused(portrait, in_one_go, tmp_path):
    target = tmp_path / "out.mkv"
    both = [
        subprocess.Popen(command(portrait, target), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=600)[0].splitlines()[-1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 2]
    (refused,) = [json.loads(line) for line in said if "UsageError" in line]
    assert str(target) in refused["message"]
    assert contents(target) == in_one_go[0]
    assert list(tmp_path.iterdir()) == [target]


def main() -> None:
    name, tape, known, target = sys.argv[1:]
    job = MOMENTS[name][0](Job(Tinted(), storage.load(Path(known))))
    restored(Path(tape), Path(target), job)


if __name__ == "__main__":
    main()
