"""The newest restored frame as a picture to look at while a run works."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from helpers.events import messages
from helpers.footage import film, images, woven_by_hand
from helpers.media import (
    AS_PAINTED,
    OneFace,
    Painter,
    Unchanged,
    analysis_of_file,
    info_of,
    mild_image,
    plain_track,
    write_video,
)
from helpers.small_disk import Disk
from helpers.videos import Command, MakeVideo

from vidrestore.analysis.result import Analysis
from vidrestore.api import restore_video
from vidrestore.common.errors import UsageError
from vidrestore.common.events import Event, Progress, line_from_dict
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.frame import Frame
from vidrestore.jobs import live_picture
from vidrestore.jobs.live_picture import LivePicture
from vidrestore.jobs.request import RestoreRequest
from vidrestore.models import factory

FRAMES = 60
SETTINGS = AS_PAINTED | {"encode.codec": "ffv1"}
GREEN = 255 * np.array([0.2, 0.7, 0.4])


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def frame_of(level: int, size: tuple[int, int] = (160, 120)) -> Frame:
    picture = np.full((size[1], size[0], 3), level, np.uint8)
    return Frame(0, 0, *images([picture], "yuv420p"))


def level_of(path: Path) -> float:
    return float(cv2.imread(str(path)).mean())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    pictures = [mild_image(160, 120, "yuv420p", seed) for seed in range(FRAMES)]
    return write_video(tmp_path / "source.mkv", pictures)


@pytest.fixture
def known(source: Path) -> Analysis:
    return analysis_of_file(source, [plain_track(FRAMES, centre=(80, 60), side=70)])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every frame is due."""
    monkeypatch.setattr(live_picture, "_SECONDS_BETWEEN", 0.0)


def test_a_picture_is_written_at_most_every_two_seconds(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "live.jpg"
    live = LivePicture(path, info_of(160, 120), None, clock=clock)
    assert not path.exists()
    seen = []
    for level, later in ((60, 0.0), (80, 1.9), (100, 0.2), (120, 0.5), (140, 60)):
        clock.seconds += later
        seen.append((live.offer(frame_of(level)), round(level_of(path))))
    written = [str(path), None, str(path), None, str(path)]
    assert [told for told, _ in seen] == written
    assert [round(shown, -1) for _, shown in seen] == [60, 60, 100, 100, 140]
    assert [each.name for each in tmp_path.iterdir()] == ["live.jpg"]


@pytest.mark.parametrize(
    ("size", "changes", "expected"),
    [
        ((1920, 1080), {}, (640, 360)),
        ((500, 300), {}, (500, 300)),
        ((1280, 720), {"transfer": "pq", "primaries": "bt2020", "matrix": "bt2020"}, (640, 360)),
        ((720, 576), {"sample_aspect_ratio": Fraction(16, 15)}, (640, 480)),
        ((1080, 1920), {"display_orientation": (0, 1, -1, 0)}, (640, 360)),
        ((1920, 1080), {"display_orientation": (0, -1, 1, 0)}, (640, 1138)),
    ],
)
def test_it_is_upright_and_small(
    tmp_path: Path, size: tuple[int, int], changes: dict[str, Any], expected: tuple[int, int]
) -> None:
    live = LivePicture(tmp_path / "live.jpg", info_of(*size, **changes), None)
    assert live.offer(frame_of(90, size))
    assert cv2.imread(str(tmp_path / "live.jpg")).shape[1::-1] == expected


def test_fields_are_shown_without_combs(tmp_path: Path) -> None:
    pair = [np.full((120, 160, 3), level, np.uint8) for level in (60, 180)]
    for order, level in (("tff", 60), ("bff", 60)):
        (image,) = woven_by_hand(images(pair, "yuv420p"), order)
        live = LivePicture(tmp_path / "live.jpg", info_of(160, 120), None, order=order)
        live.offer(Frame(0, 0, image))
        picture = cv2.imread(str(tmp_path / "live.jpg"))
        assert picture.shape == (120, 160, 3)
        assert np.abs(picture.astype(int) - level).max() < 8


@pytest.mark.long
def test_a_run_names_each_new_picture_in_its_progress(
    source: Path, known: Analysis, tmp_path: Path, quick: None
) -> None:
    path, events = tmp_path / "live.jpg", list[Event]()
    shown = []

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, Progress) and event.picture is not None:
            assert event.picture == str(path)
            shown.append(cv2.imread(event.picture)[50:70, 70:90, ::-1].mean(axis=(0, 1)))

    restore_video(
        source, tmp_path / "out.mkv", load_settings(options=SETTINGS), restorer=Painter(),
        analysis=known, live=path, on_event=on_event,
    )  # fmt: skip
    assert len(shown) == FRAMES
    assert np.abs(np.array(shown) - GREEN).max() < 6
    assert path.exists()
    line = next(event for event in events if isinstance(event, Progress) and event.picture)
    assert line.as_dict() == {
        "event": "progress", "stage": "restore", "frame": 1, "frames": FRAMES, "picture": str(path),
    }  # fmt: skip
    assert line_from_dict(line.as_dict()) == line


def test_other_lines_keep_their_keys() -> None:
    line = Progress("restore", 3, None).as_dict()
    assert line == {"event": "progress", "stage": "restore", "frame": 3, "frames": None}
    assert line_from_dict(line) == Progress("restore", 3, None)


@pytest.mark.long
@pytest.mark.parametrize(
    ("pixel_format", "options", "size"),
    [
        ("yuv420p10le", {}, (160, 120)),
        ("gray", {}, (160, 120)),
        ("gbrp10le", {}, (160, 120)),
        ("yuv420p", {"scale.factor": 2}, (320, 240)),
    ],
)
def test_every_kind_of_frame_has_a_picture(
    tmp_path: Path, quick: None, pixel_format: str, options: dict[str, Any], size: tuple[int, int]
) -> None:
    pictures = [mild_image(160, 120, pixel_format, seed) for seed in range(30)]
    source = write_video(tmp_path / "source.mkv", pictures)
    known = analysis_of_file(source, [plain_track(30, centre=(80, 60), side=70)])
    events = list[Event]()
    restore_video(
        source, tmp_path / "out.mkv", load_settings(options=SETTINGS | options),
        restorer=Painter(), analysis=known, live=tmp_path / "live.jpg", on_event=events.append,
    )  # fmt: skip
    assert sum(isinstance(event, Progress) and bool(event.picture) for event in events) == 30
    assert not [text for text in messages(events) if "live picture" in text]
    picture = cv2.imread(str(tmp_path / "live.jpg"))
    assert picture.shape[1::-1] == size


@pytest.mark.parametrize("mode", ["keep", "bob"])
def test_interlaced_footage_has_pictures(
    tmp_path: Path, quick: None, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factory, "open_detector", lambda *_, **__: OneFace())
    pictures = [np.full((120, 160, 3), 30, np.uint8) for _ in range(40)]
    for i, picture in enumerate(pictures):
        picture[:, 3 * i : 3 * i + 20] = 220
    source = film(tmp_path / "source.mkv", woven_by_hand(images(pictures, "yuv420p"), "tff"),
                  flag="tff")  # fmt: skip
    options = AS_PAINTED | {"fields.deinterlace": mode, "detect.remember": False}
    combs = []

    def on_event(event: Event) -> None:
        if isinstance(event, Progress) and event.picture is not None:
            luma = cv2.imread(event.picture).astype(float).mean(axis=2)[20:100]
            combs.append(np.abs(luma[1:-1] - (luma[:-2] + luma[2:]) / 2).max())

    restore_video(
        source, tmp_path / "out.mkv", load_settings(options=options), restorer=Unchanged(),
        live=tmp_path / "live.jpg", on_event=on_event,
    )  # fmt: skip
    assert len(combs) == (20 if mode == "keep" else 40)
    assert max(combs) < 40


def test_numbered_pictures_have_one_too(tmp_path: Path, quick: None) -> None:
    for number in range(30):
        picture = mild_image(160, 120, "yuv420p", number).to_ndarray(format="bgr24")
        cv2.imwrite(str(tmp_path / f"in_{number:02}.png"), picture)
    pattern = tmp_path / "in_%02d.png"
    known = analysis_of_file(pattern, [plain_track(30, centre=(80, 60), side=70)])
    restore_video(
        pattern, tmp_path / "out_%02d.png", load_settings(options=AS_PAINTED), restorer=Painter(),
        analysis=known, live=tmp_path / "live.jpg",
    )  # fmt: skip
    assert np.abs(cv2.imread(str(tmp_path / "live.jpg"))[60, 80, ::-1] - GREEN).max() < 8


@pytest.mark.long
def test_what_goes_wrong_is_told_once_and_ends_no_run(
    source: Path, known: Analysis, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, path in enumerate((tmp_path / "missing" / "live.jpg", tmp_path / "live.jpg")):
        if number:
            monkeypatch.setattr(live_picture, "picture_of", lambda *_, **__: 1 / 0)
        events = list[Event]()
        summary = restore_video(
            source, tmp_path / "out.mkv", load_settings(options=SETTINGS), restorer=Painter(),
            analysis=known, live=path, overwrite=True, on_event=events.append,
        )  # fmt: skip
        assert summary.faces == FRAMES
        told = [text for text in messages(events) if "live picture" in text]
        assert len(told) == 1
        assert "goes on without it" in told[0]
        assert not any(isinstance(event, Progress) and event.picture for event in events)


def test_a_full_disk_is_told_once(disk: Disk) -> None:
    path, events = disk.folder / "live.jpg", list[Event]()
    live = LivePicture(path, info_of(160, 120), events.append, clock=Clock())
    disk.remount("size=4k")
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    frame = Frame(0, 0, *images([noise], "yuv420p"))
    assert live.offer(frame) is live.offer(frame) is None
    (told,) = messages(events)
    assert "no space left" in told.lower()
    assert not list(disk.folder.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("live.png", "must end in .jpg"),
        ("source.jpg", "is the input itself"),
        ("out_01.jpg", "is the output itself"),
        ("folder.jpg", "is a folder"),
    ],
)
def test_what_it_must_not_replace_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.jpg").mkdir()
    cv2.imwrite(str(tmp_path / "source.jpg"), np.zeros((64, 96, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "in_01.png"), np.zeros((64, 96, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "out_01.jpg"), np.zeros((64, 96, 3), np.uint8))
    one = RestoreRequest(tmp_path / "source.jpg", tmp_path / "one.jpg", overwrite=True)
    many = RestoreRequest(tmp_path / "in_%02d.png", tmp_path / "out_%02d.jpg", overwrite=True)
    request = many if name.startswith("out") else one
    with pytest.raises(UsageError, match=message):
        replace(request, live=tmp_path / name).validate()


def test_workers_have_none(
    source: Path, tmp_path: Path, command: Command, make_video: MakeVideo
) -> None:
    for option in (("--workers", 2), ("--cluster", "auto")):
        done = command(
            "restore", source, tmp_path / "out.mkv", "--live", tmp_path / "live.jpg", *option
        )
        assert done.status == 2
        assert "--live shows what this process restores" in done.said


def test_an_older_picture_is_replaced(source: Path, known: Analysis, tmp_path: Path) -> None:
    path, events = tmp_path / "live.jpg", list[Event]()
    path.write_bytes(b"older")
    restore_video(
        source, tmp_path / "out.mkv", load_settings(options=SETTINGS), restorer=Painter(),
        analysis=known, live=path, on_event=events.append,
    )  # fmt: skip
    assert any(isinstance(event, Progress) and event.picture for event in events)
    assert path.read_bytes() != b"older"
