"""`--scale`: the picture larger by Lanczos, faces pasted into it from the detail of their crops."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch
from helpers import sources
from helpers.events import messages
from helpers.media import (
    AS_PAINTED,
    Painter,
    Unchanged,
    analysis_of_file,
    frame_times,
    info_of,
    mild_image,
    packets,
    plain_track,
    planes_of,
    random_image,
    write_video,
)

from vidrestore.analysis.result import Fields
from vidrestore.api import restore_video
from vidrestore.common.errors import OutputError, UsageError
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.color import chroma_site
from vidrestore.imaging.frame import VideoInfo
from vidrestore.imaging.geometry import apply
from vidrestore.imaging.planes import layout
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.framemd5 import frame_md5
from vidrestore.media.probe import probe
from vidrestore.models.restorers import Restorer
from vidrestore.restoration.companion import target_from_source
from vidrestore.restoration.upscaling import Scaler, scaled_info

FRAMES = 3
SIDE, CENTRE = 80.0, (62.0, 50.0)
SIGMA_PX = 2.0
DOTS = plain_track(1, centre=CENTRE, side=SIDE).landmarks[0].tolist()


def larger(image: Any, factor: int, info: VideoInfo) -> Any:
    return Scaler(info, scaled_info(info, factor), None)(image)


def by_formula(samples: npt.NDArray[Any], places: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    """The samples along an axis at places counted in them; steps of less than one."""
    taps = np.arange(-3, 4) + np.round(places).astype(int)[:, None]
    x = places[:, None] - taps
    weights = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    moved = np.moveaxis(samples.astype(np.float64), axis, -1)
    found = (moved[..., taps.clip(0, moved.shape[-1] - 1)] * weights).sum(axis=-1)
    return np.moveaxis(found, -1, axis)


def luma_places(count: int, grid: int, site: float, factor: int) -> npt.NDArray[Any]:
    """Where samples of an enlarged plane lie, in samples of the plane it was made from."""
    at = np.arange(count) * grid + site
    return ((at + 0.5) / factor - 0.5 - site) / grid


@pytest.mark.parametrize("location", ["left", "center", "topleft", "bottom"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv411p", "yuv422p10le", "gbrp", "yuva420p"])
@pytest.mark.parametrize(("size", "factor"), [((64, 48), 2), ((97, 65), 2), ((35, 21), 4)])
def test_every_plane_is_what_the_formula_gives(pixel_format, location, size, factor):
    info = info_of(*size, pixel_format, chroma_location=location)
    image = random_image(*size, pixel_format, 7)
    how, most = layout(image), 2**info.bit_depth - 1
    site = chroma_site(info, how.grid)
    for index, (was, now) in enumerate(
        zip(planes_of(image), planes_of(larger(image, factor, info)), strict=True)
    ):
        is_chroma = not how.is_rgb and index in (1, 2)
        (x, y), (left, top) = (how.grid, site) if is_chroma else ((1, 1), (0, 0))
        rows = luma_places(len(now), y, top, factor)
        columns = luma_places(now.shape[1], x, left, factor)
        exact = by_formula(by_formula(was, rows, 0), columns, 1).clip(0, most)
        assert now.shape == exact.shape
        # Half a code value is rounding; the rest is that of the weights.
        assert np.abs(now - exact).max() < 0.5 + most * 1e-4


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "gbrp", "gray"])
@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(16, 15), Fraction(8, 9), Fraction(1, 5)])
def test_a_constant_stays_constant(pixel_format, aspect):
    info = info_of(97, 65, pixel_format, sample_aspect_ratio=aspect)
    image = av.VideoFrame(97, 65, pixel_format)
    codes = [17, 91, 2**info.bit_depth - 1]
    for code, index in zip(codes, range(len(image.planes)), strict=False):
        planes = np.frombuffer(image.planes[index], np.uint8 if info.bit_depth == 8 else np.uint16)
        planes[...] = code
    found = larger(image, 2, info)
    assert (found.width, found.height) == (2 * round(97 * aspect), 130)
    for code, plane in zip(codes, planes_of(found), strict=False):
        assert (plane == code).all()


@pytest.mark.parametrize("location", ["left", "center", "topleft"])
def test_chroma_stays_where_it_is(location):
    """A dot of colour, sampled where the chroma samples lie, is where the picture shows it."""
    info = info_of(97, 65, "yuv420p", chroma_location=location)
    x0, y0 = chroma_site(info, (2, 2))
    image = random_image(97, 65, "yuv420p", 1)
    blob = chroma(image)
    x, y = 2 * np.arange(blob.shape[1]) + x0, 2 * np.arange(blob.shape[0])[:, None] + y0
    blob[...] = np.round(128 + 100 * np.exp(-((x - 41.3) ** 2 + (y - 30.8) ** 2) / 72))
    found = chroma(larger(image, 2, info)).astype(np.float64) - 128
    rows, columns = np.mgrid[: found.shape[0], : found.shape[1]]
    at = [(found * (2 * columns + x0)).sum(), (found * (2 * rows + y0)).sum()] / found.sum()
    np.testing.assert_allclose(at, [2 * 41.3 + 0.5, 2 * 30.8 + 0.5], atol=0.05)


def chroma(image: Any) -> npt.NDArray[Any]:
    plane = image.planes[1]
    samples = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return samples[:, : plane.width]


class Dotted(Restorer):
    """Paints soft dots where the source of the crop has the middle of the face."""

    name, size, reach_frames, template = "dotted", None, 0, "gpen"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        n = windows.shape[-1]
        across, down = (c - SIDE / 2 + (torch.arange(n) + 0.5) / n * SIDE - 0.5 for c in CENTRE)
        dots = torch.zeros(n, n)
        for x, y in DOTS:
            away = (across - x) ** 2 + ((down - y) ** 2)[:, None]
            dots += 0.25 * torch.exp(-away / (2 * SIGMA_PX**2))
        return (windows[:, 0] + dots + 0.004).clamp(0, 1)


class Sharp(Restorer):
    """Gives every face the same fine pattern."""

    name, size, reach_frames, template = "sharp", 512, 0, "gpen"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        n = windows.shape[-1]
        u = (torch.arange(n) + 0.5) / n
        return pattern(u, u).float().expand(len(windows), 3, n, n).clone()


def pattern(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(len(v), len(u)) at places of the unit crop: 20 and 48 cycles."""
    coarse, fine = (torch.sin(2 * torch.pi * n * u) * torch.sin(2 * torch.pi * n * v)[:, None]
                    for n in (20, 48))  # fmt: skip
    return 0.5 + 0.15 * coarse + 0.25 * fine


def clip(path: Path, size=(125, 97), pixel_format="yuv420p", frames=FRAMES, **options) -> Path:
    plain = av.VideoFrame(*size, pixel_format)
    step = 2 ** (plain.format.components[0].bits - 8)
    images = []
    for i in range(frames):
        image = mild_image(*size, pixel_format, i)
        for plane, level in zip(planes_in(image), (90, 128, 128), strict=False):
            ramp = np.linspace(-10, 10, plane.shape[1]) + i
            plane[...] = (level * step + ramp * step).astype(plane.dtype)
        images.append(image)
    return write_video(path, images, **options)


def anamorphic(aspect: Fraction) -> dict[str, Any]:
    """For `clip`, with a codec that can say it."""

    def prepare(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = aspect

    return {"codec": "libx264", "options": {"qp": "0"}, "prepare": prepare}


def planes_in(image: Any) -> Iterator[npt.NDArray[Any]]:
    from vidrestore.imaging.planes import plane

    for index in range(len(image.planes)):
        yield plane(image, index)


def scaled(source: Path, target: Path, factor: int = 2, *, restorer=None, tracks=None, **options):
    given = {"encode.codec": "ffv1", "scale.factor": factor, "deflicker.amount": 0}
    extra = {name: options.pop(name) for name in list(options) if "." not in name}
    settings = load_settings(options=AS_PAINTED | given | options)
    analysis = extra.pop("analysis", None) or analysis_of_file(source)
    if tracks is None:
        tracks = [plain_track(analysis.frame_count, centre=CENTRE, side=SIDE, work_px=128)]
    analysis = replace(analysis, tracks=tuple(tracks))
    return restore_video(source, target, settings, restorer=restorer or Dotted(),
                         analysis=analysis, **extra)  # fmt: skip


def greys(path: Path) -> list[npt.NDArray[Any]]:
    return [planes_of(frame.image)[0].astype(np.float64) for frame in decode(path, DecodeErrors())]


def hashes(path: Path) -> list[str]:
    return [frame_md5(frame.image) for frame in decode(path, DecodeErrors())]


@pytest.mark.parametrize(
    ("pixel_format", "size", "factor", "aspect"),
    [("gray", (128, 96), 2, 1), ("yuv420p", (125, 97), 2, 1), ("yuv422p10le", (125, 97), 4, 1),
     ("yuv420p", (124, 98), 2, Fraction(16, 15))],
)  # fmt: skip
def test_faces_land_within_a_fifth_of_a_pixel(tmp_path, pixel_format, size, factor, aspect):
    shape = {} if aspect == 1 else anamorphic(aspect)
    source = clip(tmp_path / "source.mkv", size, pixel_format, **shape)
    summary = scaled(source, tmp_path / "out.mkv", factor)
    assert summary.faces == FRAMES
    assert summary.identical_outside == FRAMES
    info, now = probe(source).info, probe(tmp_path / "out.mkv").info
    assert now.sample_aspect_ratio == 1
    assert (now.width, now.height) == (2 * round(size[0] * aspect * factor / 2), size[1] * factor)
    to_large = target_from_source(now, info)
    step = 2 ** (info.bit_depth - 8)
    for frame, found in zip(
        decode(source, DecodeErrors()), greys(tmp_path / "out.mkv"), strict=True
    ):
        was = planes_of(larger(frame.image, factor, info))[0]
        gained = (found - was) / step
        for x, y in apply(to_large, np.array(DOTS)):
            reach = round(2 * SIGMA_PX * factor)
            x0, y0 = round(x) - reach, round(y) - reach
            part = gained[y0 : y0 + 2 * reach + 1, x0 : x0 + 2 * reach + 1]
            part = (part - np.percentile(part, 10)).clip(min=0) ** 2
            down, across = np.mgrid[: part.shape[0], : part.shape[1]]
            at = x0 + (part * across).sum() / part.sum(), y0 + (part * down).sum() / part.sum()
            assert np.hypot(at[0] - x, at[1] - y) < 0.2


def test_a_face_shows_more_of_its_crop_than_one_that_is_enlarged_with_the_picture(tmp_path):
    source = clip(tmp_path / "source.mkv", (128, 96), "gray")
    large, small = tmp_path / "large.mkv", tmp_path / "small.mkv"
    scaled(source, large, restorer=Sharp())
    scaled(source, small, 1, restorer=Sharp())
    info = probe(small).info
    # 20 px around the middle of the face, in both twice as large.
    x, y = (2 * round(c) for c in CENTRE)
    inner = np.s_[y - 20 : y + 20, x - 20 : x + 20]
    u, v = (((torch.arange(c - 20, c + 20) + 0.5) / 2 - middle) / SIDE + 0.5
            for c, middle in ((x, CENTRE[0]), (y, CENTRE[1])))  # fmt: skip
    low, high = (0, 255) if info.full_range else (16, 235)
    truth = low + (high - low) * pattern(u.double(), v.double()).numpy()
    details, errors = [], []
    enlarged = [planes_of(larger(f.image, 2, info))[0] for f in decode(small, DecodeErrors())]
    for pictures in (greys(large), enlarged):
        part = np.array([picture[inner] for picture in pictures], np.float64)
        fine = part - (np.roll(part, 1, 1) + np.roll(part, -1, 1)) / 2
        details.append(float(np.square(fine[:, 1:-1]).mean()))
        errors.append(float(np.square(part - truth).mean()))
    # 48 cycles on 80 px are more than these can show, and 160 px can.
    assert details[0] > 8 * details[1]
    assert errors[0] < 0.4 * errors[1]


def test_segments_are_the_whole_and_times_and_sound_stay(tmp_path, make_video):
    source = make_video(frames=100, size=(64, 48), audio=True)
    face = plain_track(8, centre=(31.5, 23.5), side=40, first_frame=44, work_px=64)
    common = {"restorer": Painter(), "tracks": [face], "encode.codec": "ffv1"}
    whole, parts, cut = (tmp_path / name for name in ("whole.mkv", "parts.mkv", "mp4.mp4"))
    scaled(source, whole, **common)
    summary = scaled(source, parts, **common | {"job.segment_frames": 48})
    assert summary.frames == summary.identical_outside == 100
    assert hashes(parts) == hashes(whole)
    scaled(source, cut, **common | {"encode.codec": "h264", "encode.preset": "ultrafast"})
    assert frame_times(cut) == frame_times(source)
    assert packets(cut, 1) == packets(source, 1)


def test_once_as_large_is_as_it_was(tmp_path):
    source = clip(tmp_path / "source.mkv", (124, 98), **anamorphic(Fraction(16, 15)))
    scaled(source, tmp_path / "out.mkv", 1, restorer=Unchanged())
    assert hashes(tmp_path / "out.mkv") == hashes(source)
    assert probe(tmp_path / "out.mkv").info.sample_aspect_ratio == pytest.approx(16 / 15, abs=1e-3)


def test_the_listing_has_the_hashes_of_the_source_and_the_samples_are_compared(tmp_path):
    source, out, listing = (tmp_path / n for n in ("source.mkv", "out.mkv", "list.txt"))
    clip(source)
    summary = scaled(source, out, framemd5=listing, tracks=[])
    assert summary.enlarged == 2
    assert summary.identical_frames == FRAMES
    lines = listing.read_text().splitlines()
    assert "#source_format: 125x97 yuv420p" in lines
    assert "#output_format: 250x194 yuv420p" in lines
    rows = [line.split(", ") for line in lines if line[0] != "#"]
    assert [row[2] for row in rows] == hashes(source)
    assert [row[3] for row in rows] == hashes(out)


def test_a_guessed_matrix_is_said_where_the_size_would_lead_to_another_guess(tmp_path):
    source = clip(tmp_path / "source.mkv", (400, 300), frames=1)
    assert "matrix" in probe(source).info.guessed
    scaled(source, tmp_path / "out.mkv", 4, tracks=[])
    found = probe(tmp_path / "out.mkv").info
    assert found.matrix == probe(source).info.matrix == "bt601"
    assert "matrix" not in found.guessed


def test_the_layer_is_as_large_as_the_output(tmp_path):
    source = clip(tmp_path / "source.mkv")
    scaled(source, tmp_path / "out.mkv", layer=tmp_path / "layer", **{"layer.format": "tiff"})
    import cv2

    fill = cv2.imread(str(tmp_path / "layer" / "fill_000001.tif"), cv2.IMREAD_UNCHANGED)
    assert fill is not None
    assert fill.shape == (194, 250, 3)


def test_fields_are_not_woven_into_larger_frames(tmp_path):
    source = clip(tmp_path / "source.mkv")
    known = analysis_of_file(source)
    fields = Fields("keep", "tff", known.info, known.pts, known.crc32)
    with pytest.raises(UsageError, match=r"is interlaced, .*add --deinterlace bob"):
        scaled(source, tmp_path / "out.mkv", analysis=replace(known, fields=fields))


def test_fields_that_nobody_looked_at_are_said(tmp_path):
    source = clip(
        tmp_path / "source.mp4", (128, 96), codec="libx264",
        options={"x264-params": "tff=1", "flags": "+ildct"},
    )  # fmt: skip
    assert probe(source).info.field_order == "tff"
    summary = scaled(source, tmp_path / "out.mkv", tracks=[], **{"fields.deinterlace": "off"})
    assert any("enlarged them as whole pictures" in said for said in summary.warnings)
    assert probe(tmp_path / "out.mkv").info.field_order == "progressive"


def test_light_levels_in_a_header_are_of_the_larger_picture(tmp_path):
    source = sources.build("hdr10_mkv", tmp_path)
    scaled(source, tmp_path / "out.mkv", tracks=[])
    was, now = probe(source).info, probe(tmp_path / "out.mkv").info
    assert (now.width, now.height) == (2 * was.width, 2 * was.height)
    assert was.mastering_display is not None
    assert (now.mastering_display, now.content_light) == (was.mastering_display, was.content_light)


def test_what_a_swap_changed_is_enlarged_with_the_rest(tmp_path):
    before = clip(tmp_path / "before.mkv")
    images = [frame.image for frame in decode(before, DecodeErrors())]
    for image in images:
        next(planes_in(image))[30:70, 40:85] += 60
    source = write_video(tmp_path / "source.mkv", images)
    summary = scaled(source, tmp_path / "out.mkv", restorer=Painter(), before_swap=before)
    assert summary.faces == summary.identical_outside == FRAMES
    info = probe(source).info
    for image, found in zip(images, greys(tmp_path / "out.mkv"), strict=True):
        changed = found != planes_of(larger(image, 2, info))[0]
        assert changed[70:130, 90:160].mean() > 0.9
        assert not changed[:56].any()
        assert not changed[:, :76].any()


def test_too_little_memory_is_said_with_its_figure_before_any_work(tmp_path, monkeypatch):
    source = clip(tmp_path / "source.mkv", frames=1)
    monkeypatch.setattr("vidrestore.jobs.memory.machine_memory", lambda: 2**20)
    with pytest.raises(
        OutputError, match=r"250 x 194 pixels takes about 0\.0 GiB .* has 0\.0 GiB; use a smaller"
    ):
        scaled(source, tmp_path / "out.mkv")
    monkeypatch.setattr("vidrestore.jobs.memory.machine_memory", lambda: 16 * 2**30)
    heard: list[dict[str, Any]] = []
    scaled(source, tmp_path / "out.mkv", on_event=heard.append)
    said = messages(heard)
    assert any("frames of 250 x 194 pixels take about 0.0 GiB of memory" in s for s in said)
    assert any("enlarged to 250 x 194 pixels by Lanczos" in s for s in said)


def test_what_no_encoder_takes_is_said_before_the_work(tmp_path):
    source = clip(tmp_path / "source.mkv", (4100, 16), frames=1)
    with pytest.raises(OutputError, match="no encoder accepts 16400 x 64 pixels"):
        scaled(source, tmp_path / "out.mkv", 4, tracks=[], **{"encode.codec": "h264"})
