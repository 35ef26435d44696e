"""A run that is stopped within a segment: what the network made is not asked of it again.

As a script it is such a run: `test_under_way.py SIGNAL TAPE TARGET` gets that signal within one.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from helpers.events import messages
from helpers.media import (
    AS_PAINTED,
    analysis_of_file,
    mild_image,
    plain_track,
    planes_of,
    write_video,
)
from helpers.processes import environment

from vidrestore.api import restore_video
from vidrestore.common.errors import OutputError
from vidrestore.common.profiles import load_settings
from vidrestore.jobs.work_folder import SegmentFile, WorkFolder, segment_file
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.models.restorers import Restorer
from vidrestore.restoration import crop_cache
from vidrestore.restoration.statistics import RestorationStats

SIZE, FRAMES, STOPS_AT = (96, 64), 100, 61
OPTIONS = AS_PAINTED | {"encode.codec": "ffv1", "encode.check": False, "deflicker.amount": 0}
_MOST_LOST = 20


class Tinted(Restorer):
    """Another colour for every face, which depends on what it shows."""

    name = "tinted"
    cache_key: str | None = "tinted, as it is"
    size = None
    reach_frames = 1
    template = "gpen"

    def __init__(self, stop: signal.Signals | None = None, *, tint: float = 0.4) -> None:
        self.faces = 0
        self._stop, self._tint = stop, tint

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        self.faces += len(windows)
        if self.faces == STOPS_AT and self._stop is not None:
            os.kill(os.getpid(), self._stop)
        mean = windows.mean(dim=(1, 3, 4), keepdim=True)[:, 0]
        return ((1 - self._tint) * windows[:, 1] + self._tint * mean).clamp(0, 1)


class Defective(Tinted):
    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        if self.faces + 1 == STOPS_AT:
            raise OSError("a defect of the restorer")
        return super().__call__(windows)


class Single(Tinted):
    cache_key = "single"
    reach_frames = 0

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        return super().__call__(windows.repeat(1, 3, 1, 1, 1))


class Unkeyed(Tinted):
    cache_key = None


class DefectiveUnkeyed(Defective):
    cache_key = None


class Noted(Tinted):
    """Notes what it is asked for in files of each process, of which one is killed."""

    def __init__(self, notes: Path) -> None:
        super().__init__()
        self._notes = notes

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        result = super().__call__(windows)
        with (self._notes / str(os.getpid())).open("a") as file:
            file.write(sha256(windows.numpy().tobytes()).hexdigest() + "\n")
        if self.faces == 20:
            with suppress(FileExistsError):
                (self._notes / "killed").symlink_to(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
        return result


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = [mild_image(*SIZE, "yuv420p", index) for index in range(FRAMES)]
    return write_video(tmp_path_factory.mktemp("tape") / "tape.mkv", images)


def restored(tape: Path, target: Path, restorer: Tinted, told: list | None = None, **options):
    """The summary, and what was said."""
    track = plain_track(FRAMES, centre=(48, 32), side=32)
    told = [] if told is None else told
    try:
        summary = restore_video(
            tape, target, load_settings(options=OPTIONS | options), restorer=restorer,
            analysis=analysis_of_file(tape, [track]), on_event=told.append,
        )  # fmt: skip
    except OutputError:
        summary = None
    return summary, messages(told)


def frames_of(path: Path) -> list[tuple[int, bytes]]:
    return [
        (frame.pts, b"".join(plane.tobytes() for plane in planes_of(frame.image)))
        for frame in decode(path, DecodeErrors())
    ]


@pytest.fixture(scope="module")
def whole(tape, tmp_path_factory) -> list[tuple[int, bytes]]:
    """Frames of a run that nothing stopped, in one segment."""
    target = tmp_path_factory.mktemp("whole") / "out.mkv"
    restored(tape, target, restorer := Tinted())
    assert restorer.faces == FRAMES
    return frames_of(target)


def stopped(tape: Path, target: Path, by: signal.Signals) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, __file__, by.name, tape, target],
        capture_output=True, text=True, check=False, timeout=120, env=environment(),
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_stopped_within_a_segment_only_what_was_not_kept_is_restored(tape, whole, tmp_path, by):
    target = tmp_path / "out.mkv"
    run = stopped(tape, target, by)
    assert run.returncode == (-by if by == signal.SIGKILL else 130), run.stderr
    folder = target.with_name("out.mkv.vidrestore")
    kept = len(crop_cache.crops_in(folder / "faces"))
    assert kept >= STOPS_AT - _MOST_LOST
    if by == signal.SIGINT:
        assert f"kept in {folder}: {kept} restored faces; to continue" in run.stdout
        assert "run the same command again" in run.stdout
    again = Tinted()
    summary, _ = restored(tape, target, again)
    assert again.faces == FRAMES - kept
    assert summary.faces == FRAMES
    assert summary.kept == kept
    assert frames_of(target) == whole
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.long
@pytest.mark.parametrize("kind", [Single, Tinted])
def test_no_segment_pays_for_what_lies_around_it(tape, tmp_path, kind):
    target = tmp_path / "out.mkv"
    summary, _ = restored(tape, target, restorer := kind(), **{"job.segment_frames": 48})
    assert restorer.faces == summary.faces == FRAMES
    restored(tape, tmp_path / "one.mkv", kind())
    assert frames_of(target) == frames_of(tmp_path / "one.mkv")


@pytest.mark.long
def test_only_faces_that_unfinished_segments_need_stay_on_the_disk(tape, tmp_path, monkeypatch):
    from vidrestore.jobs.work_folder import WorkFolder

    target, counts = tmp_path / "out.mkv", []
    forget = WorkFolder.forget_faces

    def counted(self, needed):
        forget(self, needed)
        counts.append(len(crop_cache.crops_in(self.faces)))

    monkeypatch.setattr(WorkFolder, "forget_faces", counted)
    restored(tape, target, Tinted(), **{"job.segment_frames": 48})
    assert counts[0] == counts[-1] == 0
    assert len(counts) == 4  # before the first of three segments and after each
    assert all(0 < count < 20 for count in counts[1:-1])


@pytest.mark.long
def test_a_changed_restorer_of_the_same_key_or_without_one_gets_no_old_faces(tape, tmp_path):
    for number, (first, second) in enumerate((
        (DefectiveUnkeyed(), Unkeyed(tint=0.9)),
        (Defective(), Unkeyed(tint=0.9)),
        (Defective(), other := Tinted(tint=0.9)),
    )):  # fmt: skip
        other.cache_key = "tinted more"
        target, plain = tmp_path / f"{number}.mkv", tmp_path / f"plain{number}.mkv"
        summary, _ = restored(tape, target, first, **{"job.segment_frames": 48})
        assert summary is None
        summary, _ = restored(tape, target, second, **{"job.segment_frames": 48})
        assert second.faces >= FRAMES
        restored(tape, plain, fresh := Unkeyed(tint=0.9))
        assert fresh.faces == FRAMES
        assert frames_of(target) == frames_of(plain)


@pytest.mark.long
def test_without_a_cache_key_nothing_is_kept_and_that_is_stated_once(tape, tmp_path):
    target = tmp_path / "out.mkv"
    for options in ({}, {"restore.cache_crops": True}):
        summary, told = restored(tape, target, DefectiveUnkeyed(), **options)
        assert summary is None
        said = [message for message in told if "cache_key" in message]
        assert len(said) == 1
        assert said[0].startswith("tinted has no cache_key")
        assert not any("kept in" in message for message in told)
        assert list(tmp_path.iterdir()) == []


class DefectiveLater(Defective):
    """Stops in the last of three segments."""

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        if self.faces + 1 == 80:
            raise OSError("a defect of the restorer")
        return Tinted.__call__(self, windows)


class DefectiveLaterUnkeyed(DefectiveLater):
    cache_key = None


@pytest.mark.long
@pytest.mark.parametrize("second", [DefectiveUnkeyed, DefectiveLaterUnkeyed])
def test_what_an_earlier_run_finished_outlasts_one_without_a_cache_key(
    tape, whole, tmp_path, second
):
    target, options = tmp_path / "out.mkv", {"job.segment_frames": 48}
    folder = target.with_name("out.mkv.vidrestore")
    summary, told = restored(tape, target, DefectiveLater(), **options)
    assert summary is None
    assert f"kept in {folder}: 2 segments and" in told[-1]
    kept = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
    assert any(path.suffix == ".mkv" for path in kept)
    assert any(path.suffix == ".npy" for path in kept)
    summary, told = restored(tape, target, second(tint=0.9), **options)
    assert summary is None
    assert not target.exists()
    assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")} == kept
    assert f"kept in {folder}, of an earlier run: 2 segments and" in told[-1]
    assert "run the command of that run again" in told[-1]
    again = Tinted()
    summary, _ = restored(tape, target, again, **options)
    assert summary.faces == FRAMES
    assert again.faces < FRAMES - 60
    assert frames_of(target) == whole
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.long
def test_a_finished_run_without_a_cache_key_leaves_nothing(tape, tmp_path):
    target, options = tmp_path / "out.mkv", {"job.segment_frames": 48}
    restored(tape, target, DefectiveLater(), **options)
    summary, told = restored(tape, target, Unkeyed(tint=0.9), **options)
    assert summary.faces == FRAMES
    assert not any("kept in" in message for message in told)
    assert list(tmp_path.iterdir()) == [target]
    restored(tape, tmp_path / "plain.mkv", Unkeyed(tint=0.9), **options)
    assert frames_of(target) == frames_of(tmp_path / "plain.mkv")


@pytest.mark.long
def test_a_layer_of_a_run_without_a_cache_key_is_written(tape, tmp_path):
    track = plain_track(FRAMES, centre=(48, 32), side=32)
    for name, restorer in (("keyed", Tinted()), ("unkeyed", Unkeyed())):
        restore_video(
            tape, tmp_path / f"{name}.mkv", load_settings(options=OPTIONS), restorer=restorer,
            analysis=analysis_of_file(tape, [track]), layer=tmp_path / name,
        )  # fmt: skip
    keyed, unkeyed = (sorted((tmp_path / name).iterdir()) for name in ("keyed", "unkeyed"))
    assert [path.name for path in keyed] == [path.name for path in unkeyed]
    assert len(keyed) >= 2
    assert frames_of(keyed[0]) == frames_of(unkeyed[0])
    assert not list(tmp_path.glob("*.vidrestore"))


def test_a_cache_key_that_says_nothing_is_refused(tape, tmp_path):
    from vidrestore.common.errors import ConfigError

    for key in ("", " ", 5, b"key"):
        restorer = Tinted()
        restorer.cache_key = key
        with pytest.raises(ConfigError, match="cache_key of the restorer tinted"):
            restored(tape, tmp_path / "out.mkv", restorer)


@pytest.mark.long
def test_nothing_is_kept_of_a_restorer_that_is_cheap(tape, tmp_path):
    first, again = Defective(), Tinted()
    first.is_cheap = again.is_cheap = True
    _, told = restored(tape, tmp_path / "out.mkv", first)
    assert not any("kept in" in message for message in told)
    assert list(tmp_path.iterdir()) == []
    restored(tape, tmp_path / "out.mkv", again)
    assert again.faces == FRAMES


@pytest.mark.long
def test_where_there_is_little_room_faces_are_not_kept_and_the_run_ends_well(
    tape, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr(crop_cache, "ROOM_BYTES", 10**18)
    target = tmp_path / "out.mkv"
    summary, _ = restored(tape, target, Defective())
    assert summary is None
    assert list(tmp_path.iterdir()) == []
    summary, _ = restored(tape, target, restorer := Tinted())
    assert restorer.faces == FRAMES
    assert frames_of(target) == whole
    assert any("of room, so the restored faces" in warning for warning in summary.warnings)


@pytest.mark.long
def test_what_a_killed_worker_had_restored_is_not_restored_again(tape, whole, tmp_path):
    pytest.importorskip("ray")
    from vidrestore.jobs import ray_cluster

    notes, target = tmp_path / "notes", tmp_path / "out" / "out.mkv"
    notes.mkdir()
    target.parent.mkdir()
    settings = load_settings(options=OPTIONS | {"job.segment_frames": 48})
    track = plain_track(FRAMES, centre=(48, 32), side=32)
    with ray_cluster.local(2) as pool:
        restore_video(tape, target, settings, restorer=Noted(notes), workers=pool,
                      analysis=analysis_of_file(tape, [track]))  # fmt: skip
    assert frames_of(target) == whole
    assert list(target.parent.iterdir()) == [target]
    killed = str((notes / "killed").readlink())
    asked = {path.name: path.read_text().split() for path in notes.glob("[0-9]*")}
    lost = set(asked.pop(killed))
    assert len(lost) == 20
    again = [face for faces in asked.values() for face in faces if face in lost]
    # The one under way, and those around a cut that both workers restored at the same time.
    assert len(again) <= 5


@pytest.mark.parametrize("values", ["float32", "float16"])
def test_a_kept_face_is_the_very_same_and_takes_no_more_than_it_must(tmp_path, values):
    face = torch.rand((3, 32, 32), generator=torch.Generator().manual_seed(1))
    if values == "float16":
        face = face.half().float()
    kept = crop_cache.CropsUnderWay(tmp_path / "faces", "so")
    kept.keep("key", 7, face)
    found = kept.find("key", 7, 32)
    assert found.dtype == torch.float32
    assert torch.equal(found, face)
    assert (
        crop_cache.bytes_in(tmp_path / "faces")
        < {"float32": 12, "float16": 6}[values] * 32**2 + 400
    )


def main() -> None:
    name, tape, target = sys.argv[1:]
    stop = signal.Signals[name]
    told = []
    try:
        restored(Path(tape), Path(target), Tinted(stop), told)
    except KeyboardInterrupt:
        print(*messages(told), sep="\n")
        sys.exit(130)


if __name__ == "__main__":
    main()


def test_joined_segments_of_a_run_without_a_key_give_their_room_back(tmp_path):
    """Else such a run needs three times the room of its video; those of an earlier run stay."""
    work = WorkFolder(tmp_path)
    work.begin("source", resume=True)

    def finish() -> SegmentFile:
        place = work.place("0000", ".mkv")
        place.write_bytes(b"frames")
        return work.finish("0000", "key", segment_file(place, RestorationStats().as_dict()))

    earlier = finish()
    work.keep_results_apart()
    own = finish()
    work.forget_segments()
    assert not own.path.exists()
    assert earlier.path.exists()
