"""A disk that is full, or may only be read: one sentence, no wrong file, and what is done stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import sources
from helpers.media import (
    AS_PAINTED,
    analysis_of_file,
    mild_image,
    packets,
    plain_track,
    planes_of,
    write_video,
)
from helpers.small_disk import ROOMY

from vidrestore.analysis.result import Analysis
from vidrestore.api import restore_video
from vidrestore.common.errors import FaultyOutputError, InputError, OutputError
from vidrestore.common.profiles import load_settings
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.models.restorers import Restorer

SIZE, FRAMES = (96, 64), 120
SHOTS = ((0, 30), (30, 60), (60, 90), (90, 120))
OPTIONS = {"encode.codec": "ffv1", "job.segment_frames": 48, "deflicker.amount": 0, **AS_PAINTED}


class Tinted(Restorer):
    """A face that depends on what its frame shows; the source may go while it is restored."""

    name = "tinted"
    cache_key = "tinted"
    size = None
    reach_frames = 0
    template = "gpen"

    def __init__(self, *, source: Path | None = None) -> None:
        self.faces = 0
        self._source = source

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        self.faces += len(windows)
        if self._source is not None and self.faces == FRAMES // 2:
            self._source.rename(self._source.with_name("gone.mkv"))
        return (0.6 * windows[:, 0] + 0.4 * windows.mean(dim=(1, 3, 4))[..., None, None]).clamp(
            0, 1
        )


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With sound that takes half as much room as the picture."""
    folder = tmp_path_factory.mktemp("tape")
    images = [mild_image(*SIZE, "yuv420p", index) for index in range(FRAMES)]
    picture, path = write_video(folder / "picture.mkv", images), folder / "tape.mkv"
    sources.ffmpeg("-i", picture, "-f lavfi -i anoisesrc=d=4.8:r=48000:seed=1",
                   "-c:v copy -c:a pcm_s16le", path)  # fmt: skip
    return path


@pytest.fixture(scope="module")
def faces(tape: Path) -> Analysis:
    tracks = [
        plain_track(end - first, centre=(48, 32), side=32, first_frame=first, track_id=number)
        for number, (first, end) in enumerate(SHOTS)
    ]
    return replace(analysis_of_file(tape, tracks), shots=SHOTS)


def restored(tape: Path, target: Path, faces: Analysis, restorer: Tinted) -> None:
    settings = load_settings(options=OPTIONS)
    restore_video(tape, target, settings, restorer=restorer, analysis=faces)


def contents(path: Path) -> tuple[list[tuple[int, list[bytes]]], list[tuple[float, bytes]]]:
    frames = [
        (frame.pts, [plane.tobytes() for plane in planes_of(frame.image)])
        for frame in decode(path, DecodeErrors())
    ]
    return frames, packets(path, 1)


@pytest.fixture(scope="module")
def whole(tape: Path, faces: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("whole") / "out.mkv"
    restored(tape, target, faces, Tinted())
    assert len(contents(target)[0]) == FRAMES
    return target


# What is full when: the room, in bytes for each of the picture and the sound, and how many faces
# are left to restore.
MOMENTS = {
    "the first segment": (0.2, 0, FRAMES),
    "the third segment": (0.6, 0, FRAMES // 2),
    "the join": (1.5, 0, 0),
    "the remux": (2.05, 0.5, 0),
}


@pytest.mark.parametrize("name", MOMENTS)
def test_where_the_disk_is_full_what_is_done_stays(tape, faces, whole, disk, name):
    pictures, sounds, left = MOMENTS[name]
    sound = sum(len(data) for _, data in packets(whole, 1))
    room = pictures * (whole.stat().st_size - sound) + sounds * sound
    disk.remount(f"size={round(room)}")
    target, again = disk.folder / "out.mkv", Tinted()
    with pytest.raises(OutputError) as raised:
        restored(tape, target, faces, Tinted())
    said = str(raised.value)
    assert said.startswith("no space is left in ")
    assert said.endswith("; make room and run the same command again")
    unfinished = [p.name for p in disk.folder.rglob("*") if ".part." in p.name or p.stem == "whole"]
    assert unfinished == []
    assert raised.value.exit_status == 1
    assert not target.exists()
    disk.remount(f"size={ROOMY}")
    restored(tape, target, faces, again)
    assert contents(target) == contents(whole)
    assert again.faces == left
    assert list(disk.folder.iterdir()) == [target]


@pytest.mark.long
@pytest.mark.parametrize("name", ["video.mkv", "video.json"])
def test_a_joined_stream_that_was_harmed_is_made_anew(tape, faces, whole, disk, name):
    sound = sum(len(data) for _, data in packets(whole, 1))
    disk.remount(f"size={round(2.05 * (whole.stat().st_size - sound) + 0.5 * sound)}")
    target, again = disk.folder / "out.mkv", Tinted()
    with pytest.raises(OutputError, match="no space"):
        restored(tape, target, faces, Tinted())
    disk.remount(f"size={ROOMY}")
    harmed = disk.folder / "out.mkv.vidrestore" / name
    harmed.write_bytes(harmed.read_bytes()[: harmed.stat().st_size // 2])
    restored(tape, target, faces, again)
    assert contents(target) == contents(whole)
    assert again.faces == FRAMES


def test_a_disk_that_may_only_be_read_is_said_and_what_is_done_stays(tape, faces, whole, disk):
    sound = sum(len(data) for _, data in packets(whole, 1))
    disk.remount(f"size={round(0.6 * (whole.stat().st_size - sound))}")
    target, again = disk.folder / "out.mkv", Tinted()
    with pytest.raises(OutputError, match="no space"):
        restored(tape, target, faces, Tinted())
    disk.remount(f"size={ROOMY},ro")
    try:
        with pytest.raises(OutputError, match="cannot be written to: read-only file system") as ro:
            restored(tape, target, faces, again)
    finally:
        disk.remount("rw")
    assert ro.value.exit_status == 1
    assert again.faces == 0
    restored(tape, target, faces, again)
    assert contents(target) == contents(whole)
    assert again.faces == FRAMES // 2


def test_a_source_that_goes_while_it_is_restored_may_come_back(tape, faces, whole, tmp_path):
    source, target, again = tmp_path / "tape.mkv", tmp_path / "out.mkv", Tinted()
    source.write_bytes(tape.read_bytes())
    with pytest.raises(InputError, match="does not exist") as raised:
        restored(source, target, faces, Tinted(source=source))
    assert raised.value.exit_status == 1
    assert not target.exists()
    (tmp_path / "gone.mkv").rename(source)
    restored(source, target, faces, again)
    assert contents(target) == contents(whole)
    assert again.faces == FRAMES // 2
    assert sorted(tmp_path.iterdir()) == [target, source]


@pytest.mark.parametrize(
    ("error", "is_used_again"), [(FaultyOutputError, False), (OutputError, True)]
)
def test_a_joined_stream_is_used_again_unless_it_is_faulty(
    tmp_path, monkeypatch, error, is_used_again
):
    images = [mild_image(*SIZE, "yuv420p", i) for i in range(9)]
    source, target = write_video(tmp_path / "source.mkv", images), tmp_path / "out.mkv"
    analysis = analysis_of_file(source, [plain_track(9, centre=(48, 32), side=30)])
    settings = load_settings(options=OPTIONS)

    def broken(*args: object, **kwargs: object) -> None:
        raise error("on purpose")

    first, second = Tinted(), Tinted()
    with monkeypatch.context() as during:
        during.setattr("vidrestore.jobs.run.check_output", broken)
        with pytest.raises(error):
            restore_video(source, target, settings, restorer=first, analysis=analysis)
    restore_video(source, target, settings, restorer=second, analysis=analysis)
    assert first.faces == 9
    assert second.faces == (0 if is_used_again else 9)
