"""Gray faces get colors, and nothing else changes; footage with colors is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from helpers.media import (
    analysis_of_file,
    frames_of,
    plain_face,
    plain_track,
    planes_of,
    write_video,
)
from skimage import data

from vidrestore.analysis.result import Analysis
from vidrestore.api import restore_video
from vidrestore.common.errors import UsageError
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Deflicker, Restore
from vidrestore.imaging.frame import Frame
from vidrestore.imaging.luma import BT601_WEIGHTS, KR_KB, luma_of, with_luma
from vidrestore.imaging.planes import with_chroma
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.models.restorers import Restorer
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration.batching import restore
from vidrestore.restoration.colorization import check_holds_color, check_is_gray, untinted_levels
from vidrestore.restoration.faces import FaceFrame
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.restoration.temporal import deflicker

SIDE = 160
FACE = np.s_[60:100, 60:100]
SURROUNDINGS = np.s_[:, :20]
Picture = np.ndarray
Change = Callable[[Picture], Picture]


class Colorizer(Restorer):
    """Stands in for the network: paints skin, and repaints the luma, too."""

    name, template, cache_key = "colorizer", "gpen", "colorizer 1"
    colorizes = True

    def __init__(self, flicker: float = 0.0) -> None:
        self.flicker, self.calls = flicker, 0

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        luma = 0.9 * windows[:, 0].mean(dim=1, keepdim=True) + 0.02
        sway = self.flicker * (-1) ** self.calls
        skin = torch.tensor([0.12 + sway, -0.02, -0.08])[:, None, None]
        return (luma + skin).clamp(0, 1)


def gray(rgb: Picture) -> Picture:
    return np.repeat((rgb @ BT601_WEIGHTS)[..., None], 3, axis=2)


def sepia(rgb: Picture) -> Picture:
    luma = gray(rgb) / 255
    tinted = luma ** [0.9, 1.0, 1.25] * [1.0, 0.95, 0.8] + [0.03, 0.01, 0.0]
    return np.clip(255 * tinted, 0, 255)


def taped(rgb: Picture, seed: int = 0, levels: float = 6.0) -> Picture:
    """Gray with the chroma noise of a tape, in wide blotches that differ from frame to frame."""
    random, noisy = np.random.default_rng(seed), gray(rgb)
    for channel in (0, 2):
        noise = cv2.GaussianBlur(random.normal(size=rgb.shape[:2]), (0, 0), 6, sigmaY=1)
        noisy[..., channel] += levels * noise / noise.std()
    return np.clip(noisy, 0, 255)


def faded(rgb: Picture) -> Picture:
    return 0.7 * gray(rgb) + 0.3 * rgb


def portrait() -> Picture:
    face = data.astronaut()[20:220, 120:320]
    return cv2.resize(face, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)


def film(
    path: Path, change: Change, pixel_format: str = "yuv420p", count: int = 8
) -> tuple[Path, Analysis]:
    images = []
    for i in range(count):
        picture = taped(portrait(), i) if change is taped else change(portrait())
        noise = np.random.default_rng(i).normal(0, 2, (SIDE, SIDE, 1))  # the film's grain
        values = np.clip(picture + noise, 0, 255).astype(np.uint8)
        image = av.VideoFrame.from_ndarray(values, "rgb24").reformat(format=pixel_format)
        images.append(image)
    source = write_video(path / "film.mkv", images)
    track = plain_track(count, centre=(80, 80), side=110, work_px=128)
    return source, analysis_of_file(source, [track])


def colorized(path: Path, source: Path, analysis: Analysis, *changes: str, **more: Any) -> Any:
    settings = load_settings(None, ["encode.codec=ffv1", *changes])
    target = path / "out.mkv"
    done = restore_video(source, target, settings, restorer=more.pop("restorer", Colorizer()),
                         analysis=analysis, overwrite=True, **more)  # fmt: skip
    return done, [planes_of(frame.image) for frame in decode(target, DecodeErrors())]


@pytest.mark.parametrize("change", [gray, sepia, taped], ids=lambda change: change.__name__)
def test_the_chroma_of_the_face_changes_and_no_other_sample(tmp_path: Path, change: Change) -> None:
    source, analysis = film(tmp_path, change)
    done, after = colorized(tmp_path, source, analysis)
    before = [planes_of(frame.image) for frame in decode(source, DecodeErrors())]
    assert done.identical_outside == len(before)
    half = np.s_[30:50, 30:50]
    for was, now in zip(before, after, strict=True):
        assert np.array_equal(was[0], now[0])
        # The skin of the stand-in: less blue, more red than gray, whatever the tint was.
        assert now[1][half].mean() < 128 - 8
        assert now[2][half].mean() > 128 + 10
        assert np.array_equal(was[1][:, :8], now[1][:, :8])
        assert np.array_equal(was[2][:, :8], now[2][:, :8])


def test_other_restorers_leave_gray_film_gray(tmp_path: Path) -> None:
    class Usual(Colorizer):
        colorizes = False

    source, analysis = film(tmp_path, gray)
    _, after = colorized(tmp_path, source, analysis, restorer=Usual())
    assert np.abs(after[3][2].astype(int) - 128).max() <= 2


def test_pictures_in_red_green_and_blue_keep_their_luma(tmp_path: Path) -> None:
    source, analysis = film(tmp_path, gray, "bgr0")
    _, after = colorized(tmp_path, source, analysis)
    before = next(decode(source, DecodeErrors())).image
    was, now = (np.stack([p[i] for i in (2, 0, 1)]).astype(float) for p in (
        planes_of(before), after[0],
    ))  # fmt: skip
    matrix = analysis.info.matrix
    kr, kb = KR_KB[matrix]
    assert now[0][FACE].mean() > now[2][FACE].mean() + 20
    luma = [kr * p[0] + (1 - kr - kb) * p[1] + kb * p[2] for p in (was, now)]
    assert np.abs(luma[1] - luma[0]).max() <= 1
    assert np.array_equal(was[:, *SURROUNDINGS], now[:, *SURROUNDINGS])


@pytest.mark.parametrize("pixel_format", ["gray", "gray10le"])
def test_film_that_is_stored_without_chroma_gets_planes_for_it(
    tmp_path: Path, pixel_format: str
) -> None:
    source, analysis = film(tmp_path, gray, pixel_format)
    done, after = colorized(tmp_path, source, analysis)
    # The check compares the output with the source as it gets its planes.
    assert done.identical_outside == len(after)
    before = [planes_of(frame.image)[0] for frame in decode(source, DecodeErrors())]
    middle = 128 if pixel_format == "gray" else 512
    for was, now in zip(before, after, strict=True):
        assert np.array_equal(was, now[0])
        assert now[1].shape == (SIDE // 2, SIDE // 2)
        assert (now[1][:, :8] == middle).all()
        assert now[2][30:50, 30:50].mean() > middle * 1.07
    with pytest.raises(UsageError, match="holds no colors"):
        colorized(tmp_path, source, analysis, f"encode.pixel_format={pixel_format}")


def test_the_samples_of_luma_stay_where_chroma_is_added() -> None:
    for width, height, name, target in ((16, 8, "gray", "yuv420p"), (15, 8, "gray", "yuv444p"),
                                        (16, 8, "gray12le", "yuv420p12le")):  # fmt: skip
        image = av.VideoFrame(width, height, name)
        values = planes_of(image)[0]
        made = with_chroma(image)
        assert made.format.name == target
        assert np.array_equal(planes_of(made)[0], values)
        assert with_chroma(made) is made


def test_footage_with_colors_is_refused_with_the_reason(tmp_path: Path) -> None:
    for change in (np.array, faded):
        source, analysis = film(tmp_path, change)
        with pytest.raises(UsageError) as error:
            colorized(tmp_path, source, analysis)
        assert str(error.value) == (
            f"{source} has colors in 8 of 8 places with faces, first at 0:00:00, and colorizer is "
            "for gray film, whose faces it gives new colors; use another --restorer, or leave out "
            "what has colors by --start and --end or --shots"
        )
        assert not (tmp_path / "out.mkv").exists()


def test_only_the_faces_that_get_colors_are_looked_at(tmp_path: Path) -> None:
    source, analysis = film(tmp_path, np.array)
    usual = Colorizer()
    usual.colorizes = False
    check_is_gray(source, analysis, None, Assignment([(0, usual)]))
    with pytest.raises(UsageError):
        check_is_gray(source, analysis, None, Assignment([(0, usual), (4, Colorizer())]))
    (track,) = analysis.tracks
    unseen = replace(analysis, tracks=(replace(track, strength=0 * track.strength),))
    check_is_gray(source, unseen, None, Assignment([(0, Colorizer())]))
    check_holds_color("gray", Assignment([(0, usual)]))


def test_a_colored_logo_makes_no_color_film() -> None:
    picture = gray(cv2.resize(portrait(), (128, 96))).astype(np.float32) / 255
    picture[:16, :24] = (0.9, 0.1, 0.1)
    levels = untinted_levels(picture)
    assert levels.shape == (12, 16)
    assert np.percentile(levels, 90) < 1
    assert levels[:2, :3].min() > 50


def test_no_sample_of_color_leaves_the_range() -> None:
    random = np.random.default_rng(0)
    rgb = random.random((3, 40, 40)).astype(np.float32)
    luma = random.random((40, 40)).astype(np.float32)
    luma[0], luma[1] = 0, 1
    result = with_luma(rgb, luma, "bt709")
    assert result.min() >= 0
    assert result.max() <= 1
    np.testing.assert_allclose(luma_of(result, "bt709"), luma, atol=1e-5)
    dim = np.full((40, 40), 0.5, np.float32)
    pale = (0.5 + 0.1 * (rgb - 0.5)).astype(np.float32)
    chroma = [each - luma_of(each, "bt709") for each in (pale, with_luma(pale, dim, "bt709"))]
    np.testing.assert_allclose(*chroma, atol=1e-5)


@pytest.mark.long
def test_segments_do_not_change_the_colors(tmp_path: Path) -> None:
    source, analysis = film(tmp_path, taped, count=100)
    results = [
        colorized(tmp_path, source, analysis, f"job.segment_frames={most}", "encode.check=false")[1]
        for most in (48, 300)
    ]
    for one, other in zip(*results, strict=True):
        assert all(map(np.array_equal, one, other))


def test_colors_that_flicker_are_steadied() -> None:
    picture = np.ascontiguousarray(gray(portrait()).transpose(2, 0, 1), np.float32) / 255
    image = av.VideoFrame(SIDE, SIDE, "gray")
    given = [FaceFrame(Frame(i, i, image), (plain_face(torch.from_numpy(picture)),))
             for i in range(9)]  # fmt: skip
    # Without `repeats`, each frame runs through the network, whose red sways.
    restored = list(restore(iter(given), Colorizer(flicker=0.04), RestorationStats(),
                            Restore(repeats=False)))  # fmt: skip
    steady = list(deflicker(iter(restored), Deflicker()))
    sways = []
    for frames in (restored, steady):
        assert all(face.colorized for frame in frames for face in frame.faces)
        reds = [float(frame.faces[0].restored[0][FACE].mean()) for frame in frames]
        sways.append(np.abs(np.diff(reds)).mean())
    assert sways[0] == pytest.approx(0.08, abs=0.01)
    assert sways[1] < 0.3 * sways[0]


def test_the_faces_of_a_colorizer_are_marked() -> None:
    picture = torch.rand(3, 32, 32)
    given = [FaceFrame(frame, (plain_face(picture),))
             for frame in frames_of([av.VideoFrame(32, 32, "gray")])]  # fmt: skip
    usual = Colorizer()
    usual.colorizes = False
    for restorer in (usual, Colorizer()):
        (frame,) = restore(iter(given), restorer, RestorationStats(), Restore())
        assert frame.faces[0].colorized == restorer.colorizes
        assert restorer.described().colorizes == restorer.colorizes
