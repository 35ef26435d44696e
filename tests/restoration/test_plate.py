"""Faces restored from one version of a video, pasted onto another one of it."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from helpers.media import (
    AS_PAINTED,
    Painter,
    Unchanged,
    analysis_of_file,
    frame_times,
    info_of,
    mild_image,
    plain_track,
    planes_of,
    write_video,
)

from vidrestore.api import restore_video
from vidrestore.cli import main
from vidrestore.common.errors import InputError, UsageError
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.geometry import apply, upright
from vidrestore.media.decode import DecodeErrors, TimeRange, decode
from vidrestore.media.framemd5 import frame_md5
from vidrestore.media.probe import probe
from vidrestore.models.restorers import Restorer
from vidrestore.restoration.companion import pair, target_from_source
from vidrestore.restoration.plate import grade_between, graded

SIZE = 128
FRAMES = 5
SIGMA_PX = 2.0
SIDE, CENTRE = 120.0, 64.5
# At the landmarks of the face.
DOTS = plain_track(1, centre=(CENTRE, CENTRE), side=SIDE).landmarks[0].tolist()


def background(index: int, scale: int = 1) -> np.ndarray:
    """(h, w) grey in [0, 1], the same at any scale but for how finely it is sampled."""
    centres = (np.arange(SIZE * scale) + 0.5) / scale - 0.5
    x, y = centres, centres[:, None]
    return 0.45 + 0.08 * np.sin(x / 9 + index / 3) * np.cos(y / 11) + 0.05 * np.sin(y / 5)


def image_of(grey: np.ndarray, pixel_format: str = "gray") -> av.VideoFrame:
    rgb = np.repeat(np.round(255 * grey.clip(0, 1)).astype(np.uint8)[..., None], 3, axis=2)
    return av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=pixel_format)


def video(path: Path, images, **options) -> Path:
    return write_video(path, images, **options)


class Dotted(Restorer):
    """Paints soft dots where the source of the crop has the middle of the face."""

    name, size, reach_frames, template = "dotted", None, 0, "gpen"

    def __init__(self, side: float, centre: float) -> None:
        self.side, self.corner = side, centre - side / 2

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        n = windows.shape[-1]
        where = self.corner + (torch.arange(n) + 0.5) / n * self.side - 0.5
        dots = torch.zeros(n, n)
        for x, y in DOTS:
            away = (where - x) ** 2 + ((where - y) ** 2)[:, None]
            dots += 0.25 * torch.exp(-away / (2 * SIGMA_PX**2))
        return (windows[:, 0] + dots + 0.004).clamp(0, 1)


def restored(
    source: Path, target: Path, plate: Path | None = None, *, restorer=None, tracks=None, **options
):
    span = options.pop("span", None)
    settings = load_settings(options=AS_PAINTED | {"encode.codec": "ffv1"} | options)
    analysis = analysis_of_file(source, span=span)
    track = plain_track(analysis.frame_count, centre=(CENTRE, CENTRE), side=SIDE, work_px=128)
    analysis = replace(analysis, tracks=tuple(tracks or [track]))
    return restore_video(source, target, settings, restorer=restorer or Dotted(SIDE, CENTRE),
                         analysis=analysis, plate=plate, span=span)  # fmt: skip


def greys(path: Path) -> list[np.ndarray]:
    return [planes_of(frame.image)[0].astype(np.float64) for frame in decode(path, DecodeErrors())]


def hashes(path: Path) -> list[str]:
    return [frame_md5(frame.image) for frame in decode(path, DecodeErrors())]


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_faces_land_within_a_fifth_of_a_pixel_on_a_larger_plate(tmp_path, scale):
    source = video(tmp_path / "source.mkv", [image_of(background(i)) for i in range(FRAMES)])
    plate = video(tmp_path / "plate.mkv", [image_of(background(i, scale)) for i in range(FRAMES)])
    # The dots stand still while what is behind them moves, which would lead them away.
    summary = restored(source, tmp_path / "out.mkv", plate, **{"deflicker.amount": 0})
    assert summary.faces == FRAMES
    assert summary.identical_outside == FRAMES
    worst = 0.0
    for was, now in zip(greys(plate), greys(tmp_path / "out.mkv"), strict=True):
        assert now.shape == (SIZE * scale, SIZE * scale)
        gained = now - was
        for x, y in DOTS:
            x, y = (scale * (v + 0.5) - 0.5 for v in (x, y))
            reach = round(2 * SIGMA_PX * scale)
            low = round(x) - reach, round(y) - reach
            part = gained[low[1] : low[1] + 2 * reach + 1, low[0] : low[0] + 2 * reach + 1]
            part = (part - np.percentile(part, 10)).clip(min=0) ** 2
            down, across = np.mgrid[: part.shape[0], : part.shape[1]]
            found = [low[0] + (part * across).sum() / part.sum(),
                     low[1] + (part * down).sum() / part.sum()]  # fmt: skip
            worst = max(worst, float(np.hypot(found[0] - x, found[1] - y)))
    assert worst < 0.2


def test_the_source_as_its_own_plate_changes_nothing(tmp_path):
    """With the whole finish, too."""
    images = [mild_image(SIZE, SIZE, "yuv420p", i) for i in range(FRAMES)]
    source = video(tmp_path / "source.mkv", images)
    plate = video(tmp_path / "plate.mkv", images, options={"slices": "4"})
    finish = {"paste.color": 1, "paste.sharpness": 1, "grain.match": 0.5, "paste.occluders": True}
    restored(source, tmp_path / "without.mkv", **finish)
    restored(source, tmp_path / "with.mkv", plate, **finish)
    assert hashes(tmp_path / "with.mkv") == hashes(tmp_path / "without.mkv")
    assert hashes(tmp_path / "with.mkv") != hashes(source)


GRADES = {
    "darker": np.array([[0.5, 0, 0, 0.1], [0, 0.5, 0, 0.1], [0, 0, 0.5, 0.1]]),
    "warm": np.array([[1.1, 0.05, 0, 0.02], [0, 0.95, 0, 0.0], [0.02, 0, 0.75, 0.0]]),
    "grey": np.array([[0.3, 0.5, 0.2, 0]] * 3),
}


@pytest.mark.parametrize("color", [0, 1])
@pytest.mark.parametrize("name", GRADES)
def test_the_result_follows_the_grade_of_the_plate(tmp_path, name, color):
    """It is what grading the result on the source gives."""
    rgb = [
        0.5
        + 4
        * cv2.GaussianBlur(np.random.default_rng(i).uniform(-0.5, 0.5, (SIZE, SIZE, 3)), (0, 0), 4)
        for i in range(3)
    ]

    def images(change):
        return [
            av.VideoFrame.from_ndarray(
                np.round(255 * change(p).clip(0, 1)).astype(np.uint8), "rgb24"
            ).reformat(format="yuv444p")
            for p in rgb
        ]

    grade = GRADES[name]
    source = video(tmp_path / "source.mkv", images(lambda p: p))
    plate = video(
        tmp_path / "plate.mkv", images(lambda p: p.clip(0, 1) @ grade[:, :3].T + grade[:, 3])
    )
    restored(source, tmp_path / "plain.mkv", **{"paste.color": color})
    restored(source, tmp_path / "out.mkv", plate, **{"paste.color": color})
    plain, out, clean = (
        [f.image.to_ndarray(format="rgb24") / 255 for f in decode(tmp_path / p, DecodeErrors())]
        for p in ("plain.mkv", "out.mkv", "plate.mkv")
    )
    inner = np.s_[30:100, 30:100]
    for was, now, bare in zip(plain, out, clean, strict=True):
        expected = was @ grade[:, :3].T + grade[:, 3]
        assert np.abs(now - expected)[inner].mean() < 2 / 255
        assert np.abs(now - bare)[inner].max() > 20 / 255


def test_a_grade_is_found_where_the_colours_tell_it():
    picture = 0.8 * torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    for grade in GRADES.values():
        found = grade_between(picture, graded(picture, grade))
        np.testing.assert_allclose(found, grade, atol=0.01)
    flat = torch.full((3, 64, 64), 0.5)
    np.testing.assert_allclose(grade_between(flat, flat), np.eye(3, 4), atol=1e-6)


def test_what_was_left_alone_stays_the_plate(tmp_path):
    source = video(tmp_path / "source.mkv", [image_of(background(i)) for i in range(FRAMES)])
    plate = video(
        tmp_path / "plate.mkv", [image_of(0.6 * background(i, 2) + 0.2) for i in range(FRAMES)]
    )
    restored(source, tmp_path / "out.mkv", plate, restorer=Unchanged())
    assert hashes(tmp_path / "out.mkv") == hashes(plate)


def test_everything_else_is_the_plates(tmp_path):
    """Its times, its tags, its pixel format; and a part of both is the same part."""
    source = video(tmp_path / "source.mkv", [image_of(background(i)) for i in range(12)])
    begin = 9000
    plate = video(
        tmp_path / "plate.mov",
        [image_of(background(i, 2), "yuv422p10le") for i in range(12)],
        codec="prores_ks",
        pts=[1001 * i + begin for i in range(12)],
        time_base=Fraction(1, 25025),
        prepare=lambda stream: stream.metadata.update({"language": "fra"}),
    )
    options = {"encode.codec": "prores", "encode.provenance": False}
    summary = restored(source, tmp_path / "out.mov", plate, **options)
    assert summary.codec == "prores"
    info, was = probe(tmp_path / "out.mov").info, probe(plate).info
    assert (info.width, info.height, info.pixel_format) == (2 * SIZE, 2 * SIZE, was.pixel_format)
    times = [[f.pts * probe(p).info.time_base for f in decode(p, DecodeErrors())]
             for p in (tmp_path / "out.mov", plate)]  # fmt: skip
    assert times[0] == times[1]
    with av.open(str(tmp_path / "out.mov")) as container:
        assert container.streams.video[0].metadata["language"] == "fra"
    span = TimeRange(Fraction("0.121"), Fraction("0.35"))
    part = restored(source, tmp_path / "part.mov", plate, span=span, **options)
    assert part.frames == part.faces == 5
    for now, whole in zip(
        greys(tmp_path / "part.mov"), greys(tmp_path / "out.mov")[4:9], strict=True
    ):
        assert np.abs(now - whole).mean() < 2


def test_segments_of_a_plate_have_its_own_times(tmp_path):
    source = video(tmp_path / "source.mkv", [image_of(background(i)) for i in range(100)])
    plate = video(
        tmp_path / "plate.mov",
        [image_of(background(i, 2), "yuv420p") for i in range(100)],
        codec="libx264",
        pts=[1001 * i + 9000 for i in range(100)],
        time_base=Fraction(1, 25025),
        options={"preset": "ultrafast"},
    )
    options = {"encode.codec": "h264", "encode.preset": "ultrafast", "job.segment_frames": 48}
    face = plain_track(4, centre=(CENTRE, CENTRE), side=SIDE, first_frame=32)
    summary = restored(source, tmp_path / "out.mov", plate, tracks=[face], **options)
    assert summary.frames == 100
    assert frame_times(tmp_path / "out.mov") == frame_times(plate)


@pytest.mark.parametrize(
    ("source", "target", "point", "expected"),
    [
        (info_of(100, 80), info_of(200, 160), (10, 20), (20.5, 40.5)),
        (info_of(100, 80, display_orientation=(0, -1, 1, 0)), info_of(160, 200),
         (0, 0), (158.5, 0.5)),
        (info_of(72, 80, sample_aspect_ratio=Fraction(10, 9)), info_of(160, 160),
         (35.5, 39.5), (79.5, 79.5)),
    ],
)  # fmt: skip
def test_places_lead_from_one_picture_to_the_other(source, target, point, expected):
    matrix = target_from_source(target, source)
    np.testing.assert_allclose(apply(matrix, np.array([point], float))[0], expected, atol=1e-9)
    assert upright(target).coded_size


def test_a_larger_plate_gets_larger_crops(tmp_path):
    source = video(tmp_path / "source.mkv", [image_of(background(0))] * 3)
    plate = video(tmp_path / "plate.mkv", [image_of(background(0, 2))] * 3)
    track = plain_track(3, centre=(64, 64), side=120, work_px=128)
    analysis = replace(analysis_of_file(source), tracks=(track,))
    paired = pair(source, analysis, None, before_swap=None, plate=probe(plate))
    assert paired.plate is not None
    (large,) = paired.plate.analysis.tracks
    assert large.work_px == 256
    np.testing.assert_allclose(large.landmarks, 2 * track.landmarks + 0.5, atol=1e-4)


@pytest.mark.parametrize("count", [FRAMES - 1, FRAMES + 1])
def test_frames_that_do_not_match_are_refused(tmp_path, count):
    source = video(tmp_path / "source.mkv", [image_of(background(0))] * FRAMES)
    plate = video(tmp_path / "plate.mkv", [image_of(background(0, 2))] * count)
    with pytest.raises(InputError, match=f"a frame {min(count, FRAMES)},"):
        restored(source, tmp_path / "out.mkv", plate)


def test_another_shape_is_refused_before_any_work(tmp_path):
    source = video(tmp_path / "source.mkv", [image_of(background(0))] * FRAMES)
    plate = video(tmp_path / "plate.mkv", [mild_image(320, 180, "gray", 0)] * FRAMES)
    with pytest.raises(UsageError, match=r"320 x 180 .* 128 x 128.* another aspect ratio"):
        restore_video(source, tmp_path / "out.mkv", restorer=Painter(), plate=plate)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--plate", "none.mkv"], "none.mkv does not exist"),
        (["--before-swap", "none.mkv"], "none.mkv does not exist"),
        (["--plate", "source.mkv", "--overwrite"], "out.mkv is the input itself"),
        (["--layer", "source.mkv"], "source.mkv is not a folder; give the name of a folder"),
    ],
)
def test_the_command_line_knows_them(tmp_path, monkeypatch, capsys, options, said):
    monkeypatch.chdir(tmp_path)
    images = [image_of(background(0), "yuv420p")] * 2
    source = video(tmp_path / "source.mkv", images)
    if "itself" in said:
        (tmp_path / "out.mkv").hardlink_to(source)
        source = video(tmp_path / "other.mkv", images)
    with pytest.raises(SystemExit) as leaving:
        main(["restore", source.name, "out.mkv", "--restorer", "fusion", "--detector", "haar",
              *options])  # fmt: skip
    assert leaving.value.code
    assert said in capsys.readouterr().err
