"""Interlaced footage whose faces are restored field by field: with a layer, and after a swap."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from helpers import footage, sources
from helpers.media import (
    AS_PAINTED,
    Painter,
    all_rgb,
    frame_times,
    planes_of,
    random_image,
    write_video,
)
from skimage import data

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.api import restore_video
from vidrestore.common.errors import InputError, OutputError, UsageError
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.frame import Frame, Pasted, PastedFace
from vidrestore.imaging.planes import checksum
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.fields import woven
from vidrestore.media.probe import probe
from vidrestore.models.detectors import Detector, detection
from vidrestore.models.restorers import Restorer

SIZE = (192, 128)
FRAMES = 12


class FaceInTheMiddle(Detector):
    """A detector that sees one face in every picture."""

    coarse = False

    def __call__(self, picture):
        height, width = picture.shape[:2]
        points = np.array([[0.43, 0.4], [0.57, 0.4], [0.5, 0.5], [0.44, 0.6], [0.56, 0.6]])
        box = np.array([0.3, 0.2, 0.7, 0.8]) * [width, height, width, height]
        return [detection(box, points * [width, height], 0.9)]


@pytest.fixture(autouse=True)
def a_face(monkeypatch):
    monkeypatch.setattr(
        "vidrestore.models.factory.open_detector", lambda *a, **k: FaceInTheMiddle()
    )


class Own(Restorer):
    """Another picture for every crop, in which its own is seen."""

    name, size, reach_frames, template = "own", None, 0, "gpen"
    cache_key = "own"

    def __init__(self, breaks_at: int | None = None) -> None:
        self.faces, self._breaks_at = 0, breaks_at

    def __call__(self, windows):
        self.faces += len(windows)
        if self._breaks_at is not None and self.faces > self._breaks_at:
            raise OSError("a defect of the restorer")
        crops = windows[:, 0]
        noise = torch.rand(crops.shape[1:], generator=torch.Generator().manual_seed(1))
        return (0.6 * crops + 0.4 * noise).clamp(0.02, 0.98)


def restored(source: Path, target: Path, mode: str = "keep", restorer=None, **more: Any):
    keywords = {name: more.pop(name) for name in list(more) if "." not in name}
    given = {
        "detect.detector": "haar", "fields.deinterlace": mode, "encode.codec": "ffv1",
        "encode.preset": "ultrafast", "deflicker.amount": 0, "detect.remember": False,
        "guard.features": 0.3,
    }  # fmt: skip
    settings = load_settings(options=given | more)
    return restore_video(source, target, settings, restorer=restorer or Own(), **keywords)


def frames_of(path: Path) -> list[list[np.ndarray]]:
    return [planes_of(frame.image) for frame in decode(path, DecodeErrors())]


def hashes(path: Path) -> list[tuple[int, int]]:
    return [(frame.pts, checksum(frame.image)) for frame in decode(path, DecodeErrors())]


def moving(count: int, pixel_format: str = "yuv420p", photo: Any = None) -> list[Any]:
    return footage.images(footage.pan(count, *SIZE, speed_px=4, photo=photo), pixel_format)


def tape(path: Path, order: str, pixel_format: str = "yuv420p", frames: int = FRAMES) -> Path:
    fields = footage.woven_by_hand(moving(2 * frames, pixel_format), order)
    return footage.film(path, fields, flag=order, lossless=True)


def tiffs(folder: Path, stream: str) -> list[np.ndarray]:
    found = sorted(folder.glob(f"{stream}_*.tif"))
    pictures = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in found]
    return [p[..., ::-1] / 65535 if p.ndim == 3 else p / 65535 for p in pictures]


@pytest.mark.long
@pytest.mark.parametrize(
    ("order", "pixel_format"), [("tff", "yuv420p"), ("bff", "yuv420p"), ("tff", "yuv422p10le")]
)
def test_source_and_layer_give_the_woven_output_to_one_code_value(tmp_path, order, pixel_format):
    source, target = tape(tmp_path / "tape.mkv", order, pixel_format), tmp_path / "out.mkv"
    folder = tmp_path / "layer"
    summary = restored(source, target, layer=folder, **{"layer.format": "tiff"})
    assert summary.faces == 2 * FRAMES
    assert summary.frames == summary.identical_outside == FRAMES
    fills, mattes = tiffs(folder, "fill"), tiffs(folder, "matte")
    assert len(fills) == len(mattes) == FRAMES
    codes = 2 ** probe(source).info.bit_depth - 1
    before, after = frames_of(source), frames_of(target)
    for i, (was, now) in enumerate(zip(all_rgb(source), all_rgb(target), strict=True)):
        was, now, matte = was.clip(0, 1), now.clip(0, 1), mattes[i][..., None]
        made = (was + (fills[i] - was) * matte).clip(0, 1)
        assert np.abs(made - now).max() * codes <= 1
        assert mattes[i].max() > 0.9
        # Where the matte is 0, no sample of luma differs.
        differs = before[i][0] != after[i][0]
        assert differs.any()
        assert not differs[mattes[i] == 0].any()


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_what_was_pasted_into_fields_is_woven_line_by_line(order):
    fields = [random_image(32, 24, "yuv420p", seed) for seed in range(6)]
    befores = [random_image(32, 24, "yuv420p", seed) for seed in range(10, 16)]
    weight = np.full((7, 8), 0.5, np.float32)
    faces = [PastedFace((4, y), np.full((3, 7, 8), y / 10, np.float32), weight) for y in (3, 4)]
    given = [
        Frame(i, i, image, pasted=Pasted(before, (faces[i % 2],)) if pasted else None)
        for i, (image, before, pasted) in enumerate(
            zip(fields, befores, (True, True, False, True, False, False), strict=True)
        )
    ]
    kept = [planes_of(image) for image in fields]
    later = 1 if order == "tff" else 0
    both, second, none = woven(iter(given), order, flagged_order=order)
    assert none.pasted is None
    for frame, first in ((both, planes_of(befores[0])), (second, kept[2])):
        other = planes_of(befores[2 * frame.index + 1])
        for plane, one, two in zip(planes_of(frame.pasted.before), first, other, strict=True):
            np.testing.assert_array_equal(plane[later::2], two[later::2])
            np.testing.assert_array_equal(plane[1 - later :: 2], one[1 - later :: 2])
    rows = [{face.corner_px[1] + int(row) for row in np.nonzero(face.weight.any(axis=1))[0]}
            for face in (*both.pasted.faces, *second.pasted.faces)]  # fmt: skip
    first = set(range(4, 10, 2)) if order == "tff" else set(range(3, 10, 2))
    last = set(range(5, 11, 2)) if order == "tff" else set(range(4, 11, 2))
    assert rows == [first, last, last]
    assert (weight == 0.5).all()


def test_the_movies_are_interlaced_as_their_source_and_have_its_times(tmp_path):
    plain = tape(tmp_path / "coded.mkv", "bff")
    source = tmp_path / "tape.mov"
    sources.ffmpeg("-i", plain, "-c copy -timecode 10:00:00:20", source)
    restored(source, tmp_path / "out.mkv", layer=tmp_path / "layer")
    for name in ("tape.fill.mov", "tape.matte.mov"):
        path = tmp_path / "layer" / name
        assert frame_times(path) == frame_times(source)
        info = probe(path).info
        assert (info.codec, info.width, info.height) == ("prores", *SIZE)
        assert info.field_order == probe(source).info.field_order == "bff"
        assert all(f.image.interlaced_frame for f in decode(path, DecodeErrors()))
        with av.open(str(path)) as container:
            tags = [container.metadata, *(stream.metadata for stream in container.streams)]
        assert next(tag["timecode"] for tag in tags if "timecode" in tag) == "10:00:00:20"
    fills, mattes = (all_rgb(tmp_path / "layer" / f"tape.{s}.mov") for s in ("fill", "matte"))
    off = [
        np.abs((was + (fill - was) * matte).clip(0, 1) - now.clip(0, 1)) * 255
        for was, now, fill, matte in zip(
            all_rgb(source), all_rgb(tmp_path / "out.mkv"), fills, mattes, strict=True
        )
    ]
    assert np.percentile(off, 99.9) <= 1.5


LONG = 40


@pytest.mark.long
def test_a_layer_of_fields_in_segments_and_after_a_crash_is_that_of_one(tmp_path):
    source = tape(tmp_path / "tape.mkv", "tff", frames=LONG)
    options: dict[str, Any] = {"layer.format": "tiff", "encode.check": False}
    found = []
    for name, short in (("whole", 1000), ("parts", 48)):
        folder, target = tmp_path / name, tmp_path / f"{name}.mkv"
        options["job.segment_frames"] = short
        if name == "parts":
            with pytest.raises(OutputError, match="a defect"):
                restored(source, target, restorer=Own(breaks_at=60), layer=folder, **options)
            assert not folder.exists()
        again = Own()
        restored(source, target, restorer=again, layer=folder, **options)
        files = {p.name: p.read_bytes() for p in sorted(folder.iterdir())}
        assert len(files) == 2 * LONG
        found.append((hashes(target), files))
    assert again.faces < 2 * LONG - 20
    assert found[0] == found[1]


def swapped(index: int) -> np.ndarray:
    """(h, w) True where the swap put its face in the picture of a field."""
    place = np.zeros(SIZE[::-1], np.uint8)
    cv2.ellipse(place, (92 + index % 9, 64), (20, 28), 0, 0, 360, 1, -1)
    return place.astype(bool)


def before_and_after(count: int, photos=(None,)) -> tuple[list[Any], list[Any]]:
    """Pictures of fields, of one shot for each photo."""
    rgb = [picture for photo in photos
           for picture in footage.pan(count // len(photos), *SIZE, photo=photo)]  # fmt: skip
    after = []
    for i, picture in enumerate(rgb):
        face = np.clip(picture[:, ::-1].astype(int) // 2 + 90, 0, 255).astype(np.uint8)
        after.append(np.where(swapped(i)[..., None], face, picture))
    return footage.images(rgb, "yuv444p"), footage.images(after, "yuv444p")


def swap_tapes(folder: Path, order: str, frames: int = FRAMES, photos=(None,)) -> tuple[Path, Path]:
    """(before, after) as files, of other clocks."""
    both = before_and_after(2 * frames, photos)
    return tuple(
        footage.film(folder / name, footage.woven_by_hand(pictures, order), flag=flag,
                     lossless=True)
        for name, pictures, flag in zip(
            ("before.mp4", "after.mkv"), both, ("progressive", order), strict=True
        )
    )  # fmt: skip


def lines_of(order: str, index: int) -> slice:
    """The lines of a field of a frame, by its number from the beginning."""
    is_later = index % 2 == 1
    return slice(int(is_later == (order == "tff")), None, 2)


@pytest.mark.parametrize("order", ["tff", "bff"])
def test_only_what_the_swap_changed_in_a_field_is_restored_in_it(tmp_path, order):
    before, after = swap_tapes(tmp_path, order)
    target = tmp_path / "out.mkv"
    summary = restored(after, target, restorer=Painter(), before_swap=before, **AS_PAINTED)
    assert summary.faces == 2 * FRAMES
    assert summary.identical_outside == FRAMES
    assert probe(target).info.field_order == order
    check_fields(frames_of(after), frames_of(target), order)


def check_fields(before: list[Any], after: list[Any], order: str, first: int = 0) -> None:
    """In each field all that the swap put there is touched, and nothing else."""
    for i, (was, now) in enumerate(zip(before, after, strict=True), first):
        touched = np.any([a != b for a, b in zip(was, now, strict=True)], axis=0)
        for index in (2 * i, 2 * i + 1):
            lines, place = lines_of(order, index), swapped(index)
            assert not touched[lines][~place[lines]].any()
            deep = cv2.erode(place.astype(np.uint8), np.ones((13, 13))).astype(bool)[lines]
            assert deep.sum() > 200
            assert touched[lines][deep].mean() > 0.99


@pytest.mark.parametrize("mode", ["bob", "frame"])
def test_a_swap_is_found_in_frames_that_are_made_of_fields(tmp_path, mode):
    before, after = swap_tapes(tmp_path, "tff")
    options = AS_PAINTED | {"encode.check": False}
    shown = []
    for name, restorer in (("out", Painter()), ("same", Unrestored())):
        target = tmp_path / f"{name}.mkv"
        restored(after, target, mode, restorer=restorer, before_swap=before, **options)
        shown.append(frames_of(target))
    each = 1 if mode == "bob" else 2
    for i, (now, was) in enumerate(zip(*shown, strict=True)):
        touched = np.any([a != b for a, b in zip(was, now, strict=True)], axis=0)
        # Between the lines of a field the filter looks two lines further.
        wide = cv2.dilate(swapped(i * each).astype(np.uint8), np.ones((9, 21))).astype(bool)
        deep = cv2.erode(swapped(i * each).astype(np.uint8), np.ones((17, 17))).astype(bool)
        assert not touched[~wide].any()
        assert touched[deep].mean() > 0.99


class Unrestored(Painter):
    """Leaves every face as it is."""

    cache_key = "unrestored"

    def __call__(self, windows):
        return windows[:, 0].clone()


def pulled_down(film: list[Any], order: str) -> list[Any]:
    """Frames of 3:2 pulldown."""
    pictures = [each for a, b, c, d in zip(*[iter(film)] * 4, strict=True)
                for each in (a, a, b, b, b, c, c, d, d, d)]  # fmt: skip
    return footage.woven_by_hand(pictures, order)


def test_a_swap_is_found_in_the_frames_of_film(tmp_path):
    both = before_and_after(24)
    before, after = (
        footage.film(tmp_path / name, pulled_down(pictures, "tff"), flag="tff", rate=30,
                     lossless=True)
        for name, pictures in zip(("before.mkv", "after.mkv"), both, strict=True)
    )  # fmt: skip
    target = tmp_path / "out.mkv"
    summary = restored(after, target, "film", restorer=Painter(), before_swap=before, **AS_PAINTED)
    assert summary.frames == summary.faces == 24
    wanted = [planes_of(image) for image in both[1]]
    for i, now in list(enumerate(frames_of(target)))[2:-2]:
        touched = np.any([a != b for a, b in zip(wanted[i], now, strict=True)], axis=0)
        assert not touched[~swapped(i)].any()
        assert touched.sum() > 500


@pytest.mark.long
def test_segments_crashes_and_redone_shots_of_a_swap_in_fields_give_one_result(tmp_path):
    photos = (None, data.astronaut())
    before, after = swap_tapes(tmp_path, "tff", LONG, photos)
    whole, parts, again = (tmp_path / f"{name}.mkv" for name in ("whole", "parts", "again"))
    common = {"before_swap": before, "encode.check": False}
    restored(after, whole, **common)
    short = {"job.segment_frames": 48}
    with pytest.raises(OutputError, match="a defect"):
        restored(after, parts, restorer=Own(breaks_at=60), **common, **short)
    counted = Own()
    restored(after, parts, restorer=counted, **common, **short)
    assert counted.faces < 2 * LONG - 20
    assert hashes(parts) == hashes(whole)
    restored(after, again, restorer=Painter(), keep_job=True, **common)
    first = hashes(again)
    summary = restored(after, again, redo_shots="2", keep_job=True, **common)
    assert summary.redone_shots == (2,)
    assert hashes(again)[: LONG // 2] == first[: LONG // 2]
    assert hashes(again)[LONG // 2 :] == hashes(whole)[LONG // 2 :]


@pytest.mark.long
def test_a_part_of_fields_is_compared_with_the_same_part(tmp_path):
    before, after = swap_tapes(tmp_path, "tff", 40)
    span = TimeRange(Fraction("0.4"), Fraction("0.8"))
    summary = restored(
        after, tmp_path / "out.mkv", restorer=Painter(), before_swap=before, span=span, **AS_PAINTED
    )  # fmt: skip
    assert summary.frames == summary.identical_outside == 10
    check_fields(frames_of(after)[10:20], frames_of(tmp_path / "out.mkv"), "tff", first=10)


def test_a_video_before_the_swap_of_other_frames_is_refused(tmp_path):
    before, after = swap_tapes(tmp_path, "tff")
    short = tmp_path / "short.mp4"
    sources.ffmpeg("-i", before, "-c copy -frames:v 9", short)
    with pytest.raises(InputError, match=r"ends after 9 frames, but .* has a frame 9"):
        restored(after, tmp_path / "out.mkv", before_swap=short)
    gray = write_video(
        tmp_path / "gray.mkv",
        footage.woven_by_hand(footage.images(footage.pan(2 * FRAMES, *SIZE), "gray12le"), "tff"),
    )
    with pytest.raises(UsageError, match="is in gray12le, in which pictures of fields cannot be"):
        restored(after, tmp_path / "out.mkv", before_swap=gray)
    assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize(
    ("mode", "option", "words"),
    [
        ("keep", "plate", "--plate cannot be combined with the restoration of fields"),
        ("bob", "plate", "--plate cannot be combined with the restoration of fields"),
        ("bob", "layer", "--layer belongs to its own frames"),
        ("frame", "layer", "--layer belongs to its own frames"),
        ("keep", "scale", "woven into larger frames, so --scale .* add --deinterlace bob"),
    ],
)
@pytest.mark.parametrize("is_known", [False, True])
def test_what_cannot_go_with_fields_is_refused_before_any_work(
    tmp_path, mode, option, words, is_known
):
    source = tape(tmp_path / "tape.mkv", "tff")
    options = {"scale.factor": 2} if option == "scale" else {}
    beside = {"plate": source, "layer": tmp_path / "layer"}
    more: dict[str, Any] = {} if option == "scale" else {option: beside[option]}
    if is_known:
        how = {"detect.detector": "haar", "fields.deinterlace": mode, "detect.remember": False}
        more["analysis"] = replace(analyze_video(source, load_settings(options=how)))
    with pytest.raises(UsageError, match=words):
        restored(source, tmp_path / "out.mkv", mode, **more, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["tape.mkv"]
