"""The restored faces by themselves: source + layer x matte is the output."""

import shutil
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from helpers import sources
from helpers.media import (
    AS_PAINTED,
    Painter,
    all_rgb,
    analysis_of_file,
    frame_times,
    mild_image,
    plain_track,
    planes_of,
    random_image,
    write_video,
)

from vidrestore.analysis.edl import later
from vidrestore.api import restore_video
from vidrestore.common.errors import OutputError, UsageError
from vidrestore.common.profiles import load_settings
from vidrestore.jobs import layer_output
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.probe import probe
from vidrestore.models.restorers import Restorer

SIZE = (160, 128)
FRAMES = 4
RGB = (0.7, 0.45, 0.35)


class Sharp(Restorer):
    """Another picture for every crop, with fine detail in all colours."""

    name, size, reach_frames, template = "sharp", None, 0, "gpen"
    cache_key, is_cheap = "sharp", True

    def __init__(self, *, breaks_at: int | None = None) -> None:
        self.faces, self._breaks_at = 0, breaks_at

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        self.faces += len(windows)
        if self._breaks_at is not None and self.faces > self._breaks_at:
            raise OSError("a defect of the restorer")
        crops = windows[:, 0]
        noise = torch.rand(crops.shape, generator=torch.Generator().manual_seed(1))
        return (0.6 * crops + 0.4 * noise).clamp(0.02, 0.98)


def source_of(path: Path, pixel_format: str = "yuv420p", count: int = FRAMES, **options) -> Path:
    images = [mild_image(*SIZE, pixel_format, i) for i in range(count)]
    return write_video(path, images, **options)


def two_faces(count: int) -> list:
    """That lie over each other in part."""
    return [
        plain_track(count, centre=(62, 64), side=100, work_px=128),
        plain_track(count, centre=(104, 66), side=80, work_px=128, track_id=1),
    ]


def layered(source: Path, target: Path, folder: Path, *, restorer=None, tracks=None, **options):
    span, overwrite = options.pop("span", None), options.pop("overwrite", False)
    plate = options.pop("plate", None)
    # The pictures show no faces, and sharpened they are less like the source than a face is.
    settings = load_settings(options={"encode.codec": "ffv1", "guard.features": 0.7} | options)
    analysis = analysis_of_file(source, span=span)
    faces = two_faces(analysis.frame_count) if tracks is None else tracks
    return restore_video(
        source, target, settings, restorer=restorer or Sharp(), span=span, plate=plate,
        analysis=replace(analysis, tracks=tuple(faces)), layer=folder, overwrite=overwrite,
    )  # fmt: skip


def tiffs(folder: Path, stream: str) -> list[np.ndarray]:
    found = sorted(folder.glob(f"{stream}_*.tif"))
    assert [path.name for path in found] == [f"{stream}_{i:06d}.tif" for i in range(len(found))]
    pictures = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in found]
    assert all(picture.dtype == np.uint16 for picture in pictures)
    return [picture[..., ::-1] / 65535 if picture.ndim == 3 else picture / 65535
            for picture in pictures]  # fmt: skip


def errors(source: Path, target: Path, fills, mattes) -> np.ndarray:
    """Of the composition against the output, in code values of the source's depth."""
    codes = 2 ** probe(source).info.bit_depth - 1
    found = []
    for was, now, fill, matte in zip(all_rgb(source), all_rgb(target), fills, mattes, strict=True):
        # What no RGB picture can show is cut off in the source and the output alike.
        was, now = was.clip(0, 1), now.clip(0, 1)
        made = (was + (fill - was) * matte[..., None]).clip(0, 1)
        found.append(np.abs(made - now) * codes)
    return np.array(found)


@pytest.mark.parametrize(
    "pixel_format", ["yuv420p", "yuv411p", "yuv420p10le", "yuv444p12le", "gbrp10le", "gray"]
)
def test_source_and_layer_give_the_output_to_one_code_value(tmp_path, pixel_format):
    """With the whole finish: grain, colours, occluders, two faces over each other."""
    source, target = source_of(tmp_path / "tape.mkv", pixel_format), tmp_path / "out.mkv"
    summary = layered(source, target, tmp_path / "layer", **{"layer.format": "tiff"})
    assert summary.faces == 2 * FRAMES
    fills, mattes = (tiffs(tmp_path / "layer", stream) for stream in ("fill", "matte"))
    assert len(fills) == len(mattes) == FRAMES
    assert errors(source, target, fills, mattes).max() <= 1
    before, after = all_rgb(source), all_rgb(target)
    assert max(np.abs(a - b).max() for a, b in zip(before, after, strict=True)) > 0.1
    for matte, was, now in zip(mattes, before, after, strict=True):
        assert (np.abs(was - now).max(axis=2)[matte == 0] < 1 / 255).all()
        assert matte[0].max() == 0
        assert matte.max() > 0.9


def test_the_fill_is_not_premultiplied(tmp_path):
    source = source_of(tmp_path / "tape.mkv", "yuv444p")
    layered(source, tmp_path / "out.mkv", tmp_path / "layer", restorer=Painter(RGB),
            **AS_PAINTED | {"layer.format": "tiff", "deflicker.amount": 0})  # fmt: skip
    for fill, matte in zip(*(tiffs(tmp_path / "layer", s) for s in ("fill", "matte")), strict=True):
        some = matte > 0.05
        assert np.abs(fill[matte > 0.5] - RGB).max() < 6 / 255
        assert 0.2 < some.mean() < 0.8
        edge = (matte > 0) & (matte < 0.2)
        assert edge.any()
        assert np.abs(fill[edge] - RGB).mean() < 2 / 255
        assert (fill[matte == 0] == 0).all()


def test_colours_that_no_rgb_picture_can_show_do_no_harm(tmp_path):
    """Y'CbCr holds more than R'G'B': here most samples are such."""
    images = [random_image(*SIZE, "yuv420p", i) for i in range(2)]
    source, target = write_video(tmp_path / "tape.mkv", images), tmp_path / "out.mkv"
    layered(source, target, tmp_path / "layer", **{"layer.format": "tiff"})
    fills, mattes = (tiffs(tmp_path / "layer", stream) for stream in ("fill", "matte"))
    assert errors(source, target, fills, mattes).max() <= 1


@pytest.mark.parametrize(("pixel_format", "most"), [("yuv420p", 1.0), ("yuv422p10le", 3.5)])
def test_prores_gives_the_output_nearly(tmp_path, pixel_format, most):
    """Ten bits of a lossy codec; the run says that it is one."""
    source, target = source_of(tmp_path / "tape.mkv", pixel_format), tmp_path / "out.mkv"
    summary = layered(source, target, tmp_path / "layer")
    assert any("ProRes, which is lossy" in warning for warning in summary.warnings)
    names = sorted(path.name for path in (tmp_path / "layer").iterdir())
    assert names == ["tape.fill.mov", "tape.matte.mov"]
    fills, mattes = (all_rgb(tmp_path / "layer" / name) for name in names)
    off = errors(source, target, fills, [matte[..., 0] for matte in mattes])
    assert np.percentile(off, 99.9) <= most


@pytest.mark.long
def test_the_movies_have_the_size_times_and_time_code_of_the_source(tmp_path):
    source = tmp_path / "tape.mov"
    sources.ffmpeg(sources.picture("160x128", frames=12),
                   "-c:v libx264 -timecode 09:58:59;28 -r 30000/1001", source)  # fmt: skip
    tracks = two_faces(len(frame_times(source)))
    layered(source, tmp_path / "out.mov", tmp_path / "a", tracks=tracks,
            **{"encode.codec": "prores", "encode.pixel_format": "yuv422p10le"})  # fmt: skip
    span = TimeRange(Fraction("0.1"), Fraction("0.3"))
    layered(source, tmp_path / "part.mov", tmp_path / "b", tracks=two_faces(6), span=span,
            **{"encode.codec": "prores", "encode.pixel_format": "yuv422p10le"})  # fmt: skip
    for name in ("tape.fill.mov", "tape.matte.mov"):
        assert frame_times(tmp_path / "a" / name) == frame_times(source)
        assert frame_times(tmp_path / "b" / name) == frame_times(tmp_path / "part.mov")
        info = probe(tmp_path / "a" / name).info
        assert (info.codec, info.width, info.height) == ("prores", 160, 128)
        assert not info.full_range
        assert time_code(tmp_path / "a" / name) == "09:58:59;28"
        assert time_code(tmp_path / "b" / name) == "09:59:00;03"


def time_code(path: Path) -> str:
    with av.open(str(path)) as container:
        tags = [container.metadata, *(stream.metadata for stream in container.streams)]
    return next(tag["timecode"] for tag in tags if "timecode" in tag)


@pytest.mark.parametrize(
    ("code", "frames", "rate", "expected"),
    [
        ("01:00:00:00", 0, Fraction(25), "01:00:00:00"),
        ("01:00:59:24", 1, Fraction(25), "01:01:00:00"),
        ("23:59:59:24", 1, Fraction(25), "00:00:00:00"),
        ("00:00:59;29", 1, Fraction(30000, 1001), "00:01:00;02"),
        ("00:09:59;29", 1, Fraction(30000, 1001), "00:10:00;00"),
        ("00:00:00;00", 17982, Fraction(30000, 1001), "00:10:00;00"),
        ("00:00:59;59", 1, Fraction(60000, 1001), "00:01:00;04"),
        ("00:00:59:29", 1, Fraction(30000, 1001), "00:01:00:00"),
        ("no time code", 5, Fraction(25), "no time code"),
    ],
)
def test_a_time_code_goes_on(code, frames, rate, expected):
    assert later(code, frames, rate) == expected


def digest(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.long
@pytest.mark.parametrize("form", ["tiff", pytest.param("prores", marks=pytest.mark.long)])
def test_a_layer_in_segments_is_that_of_one(tmp_path, form):
    source = source_of(tmp_path / "tape.mkv", count=100)
    faces = [plain_track(14, centre=(62, 64), side=60, first_frame=27)]
    options = {"layer.format": form, "encode.check": False}
    for name, most in (("whole", 1000), ("cut", 48)):
        layered(source, tmp_path / f"{name}.mkv", tmp_path / name, tracks=faces,
                **options | {"job.segment_frames": most})  # fmt: skip
    if form == "tiff":
        assert digest(tmp_path / "whole") == digest(tmp_path / "cut")
        return
    for name in ("tape.fill.mov", "tape.matte.mov"):
        paths = tmp_path / "whole" / name, tmp_path / "cut" / name
        assert frame_times(paths[0]) == frame_times(paths[1])
        for a, b in zip(*(decode(path, DecodeErrors()) for path in paths), strict=True):
            for was, now in zip(planes_of(a.image), planes_of(b.image), strict=True):
                np.testing.assert_array_equal(was, now)


@pytest.mark.long
def test_what_is_done_is_not_done_again_unless_its_layer_lacks(tmp_path):
    source, target = source_of(tmp_path / "tape.mkv", count=100), tmp_path / "out.mkv"
    faces = [plain_track(100, centre=(62, 64), side=40)]
    options = {"job.segment_frames": 48, "encode.check": False, "layer.format": "tiff"}
    with pytest.raises(OutputError, match="a defect"):
        layered(source, target, tmp_path / "layer", restorer=Sharp(breaks_at=100), tracks=faces,
                **options)  # fmt: skip
    assert not (tmp_path / "layer").exists()
    (matte,) = (tmp_path / "out.mkv.vidrestore" / "segments").glob("0001.matte.mkv")
    matte.unlink()
    again = Sharp()
    layered(source, target, tmp_path / "layer", restorer=again, tracks=faces, **options)
    assert 67 <= again.faces <= 67 + 32
    assert len(tiffs(tmp_path / "layer", "fill")) == 100
    assert not (tmp_path / "out.mkv.vidrestore").exists()


def test_a_layer_of_a_plate_is_of_its_size(tmp_path):
    source = source_of(tmp_path / "tape.mkv")
    plate = write_video(
        tmp_path / "plate.mkv", [mild_image(320, 256, "yuv420p", i) for i in range(FRAMES)]
    )
    layered(source, tmp_path / "out.mkv", tmp_path / "layer", plate=plate,
            **{"layer.format": "tiff"})  # fmt: skip
    fills, mattes = (tiffs(tmp_path / "layer", stream) for stream in ("fill", "matte"))
    assert fills[0].shape == (256, 320, 3)
    assert errors(plate, tmp_path / "out.mkv", fills, mattes).max() <= 1


@pytest.mark.parametrize("form", ["tiff", "prores"])
def test_files_that_are_there_are_not_written_over_unasked(tmp_path, form):
    source = source_of(tmp_path / "tape.mkv")
    options = {"layer.format": form}
    layered(source, tmp_path / "a.mkv", tmp_path / "layer", **options)
    extra = tmp_path / "layer" / "matte_000099.tif"
    extra.write_bytes(b"old")
    with pytest.raises(UsageError, match="exists already; add --overwrite"):
        layered(source, tmp_path / "b.mkv", tmp_path / "layer", **options)
    assert not (tmp_path / "b.mkv").exists()
    layered(source, tmp_path / "b.mkv", tmp_path / "layer", overwrite=True, **options)
    assert extra.exists() == (form == "prores")


def test_a_folder_that_cannot_be_one_is_refused(tmp_path):
    source = source_of(tmp_path / "tape.mkv")
    with pytest.raises(UsageError, match="is not a folder; give the name of a folder"):
        layered(source, tmp_path / "out.mkv", source)
    with pytest.raises(OutputError, match="for the layer does not exist"):
        layered(source, tmp_path / "out.mkv", tmp_path / "none" / "layer")
    with pytest.raises(UsageError, match="would replace a file of this run"):
        layered(source, tmp_path / "tape.fill.mov", tmp_path, **{"encode.codec": "auto"})


def test_a_second_run_with_the_same_layer_is_refused_and_mixes_nothing(tmp_path):
    source, folder = source_of(tmp_path / "tape.mkv"), tmp_path / "layer"
    said = []

    class Meanwhile(Sharp):
        def __call__(self, windows: torch.Tensor) -> torch.Tensor:
            if not said:
                with pytest.raises(UsageError) as raised:
                    layered(source, tmp_path / "b.mkv", folder, restorer=Painter(RGB),
                            **{"layer.format": "tiff"})  # fmt: skip
                said.append(str(raised.value))
            return super().__call__(windows)

    layered(source, tmp_path / "a.mkv", folder, restorer=Meanwhile(), **{"layer.format": "tiff"})
    assert said == [
        f"another run is writing the layer {folder}; wait for it or choose another folder"
    ]
    assert not (tmp_path / "b.mkv").exists()
    fills, mattes = (tiffs(folder, stream) for stream in ("fill", "matte"))
    assert errors(source, tmp_path / "a.mkv", fills, mattes).max() <= 1
    assert len(list(folder.iterdir())) == 2 * FRAMES


@pytest.mark.parametrize("form", ["tiff", "prores"])
def test_a_full_disk_leaves_the_old_layer(tmp_path, disk, form):
    source, folder = source_of(tmp_path / "tape.mkv"), disk.folder / "layer"
    options = {"layer.format": form}
    layered(source, tmp_path / "a.mkv", folder, restorer=Painter(RGB), **options)
    before = digest(folder)
    # Not enough for the new fill, or only for a part of the second file.
    room = sum(path.stat().st_size for path in folder.iterdir())
    disk.remount(f"size={-(-room // 4096) * 4096 + 4096 * 15}")
    with pytest.raises(OutputError) as raised:
        layered(source, tmp_path / "b.mkv", folder, overwrite=True, **options)
    assert str(raised.value) == (
        f"no space is left in {folder}; make room and run the same command again"
    )
    assert not (tmp_path / "b.mkv").exists()
    assert digest(folder) == before
    disk.remount("size=64m")
    layered(source, tmp_path / "b.mkv", folder, overwrite=True, **options)
    after = digest(folder)
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in after if "fill" in name)


class Killed(BaseException):
    """Stands for the end of the process: nothing after it is done."""


@pytest.mark.parametrize("form", ["tiff", "prores"])
def test_a_run_that_is_killed_in_the_swap_leaves_one_layer(tmp_path, monkeypatch, form):
    """At each step of it; the next run finds the old one, or the new one, and no other."""
    folder = tmp_path / "layer"
    names, there = {
        "tiff": (["fill_000000.tif", "matte_000000.tif"], ["fill_000000.tif", "fill_000007.tif"]),
        "prores": (["tape.fill.mov", "tape.matte.mov"], ["tape.fill.mov", "tape.matte.mov"]),
    }[form]
    ends = []
    replace_path = Path.replace
    for step in range(12):
        folder.mkdir()
        for each in there:
            (folder / each).write_bytes(b"old")
        old = digest(folder)
        left = [step]

        def killed(self, target, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return replace_path(self, target)

        staging = layer_output._Staging.made_in(folder)
        for each in names:
            (staging.new / each).write_bytes(b"new")
        with monkeypatch.context() as during:
            during.setattr(Path, "replace", killed)
            try:
                staging.swap([folder / each for each in old])
                staging.commit()
                ended = True
            except Killed:
                ended = False
        # A second one is killed while it puts that in order.
        with monkeypatch.context() as during:
            during.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(Killed()))
            with suppress(Killed):
                staging.undo()
        with layer_output.layer_folder(folder):
            pass
        assert digest(folder) == (dict.fromkeys(names, b"new") if ended else old)
        ends.append(ended)
        shutil.rmtree(folder)
    assert set(ends) == {True, False}
