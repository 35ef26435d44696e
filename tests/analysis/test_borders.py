"""Black borders and the noise of head switching are measured, and no detector sees them."""

from dataclasses import replace
from functools import cache

import av
import cv2
import numpy as np
import pytest
from helpers import footage
from helpers.events import messages
from helpers.media import AS_PAINTED, Painter, Unchanged, info_of, random_image, write_video
from skimage import data

from vidrestore.analysis import storage
from vidrestore.analysis.borders import NO_MARGINS, Margins, MarginScan
from vidrestore.analysis.description import as_dict, facts_of
from vidrestore.analysis.detection import FirstLook, detect
from vidrestore.analysis.interlacing import inspect_samples
from vidrestore.analysis.pipeline import analyze_video
from vidrestore.api import restore_video
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Detect
from vidrestore.imaging.frame import Frame
from vidrestore.imaging.geometry import upright
from vidrestore.media.probe import probe
from vidrestore.models.detectors import Detector, detection

LARGE, SMALL = (720, 480), (360, 288)
FRAMES = 12


def measured(pictures, pixel_format="yuv420p", *, order=None):
    images = footage.images(pictures, pixel_format)
    if order:
        images = footage.woven_by_hand(images, order)
    scan = MarginScan(info_of(images[0].width, images[0].height, pixel_format))
    for pair in zip(images[::2], images[1::2], strict=False):
        scan.add(*pair)
    return scan.margins()


def tape(pictures, left, right, lines, *, seed=0, **noise):
    random = np.random.default_rng(seed)
    worn = [footage.taped(picture, random, **noise) for picture in pictures]
    return framed(worn, left, right, lines, random)


def framed(worn, left, right, lines, random):
    worn = [footage.borders(picture, left, right, random) for picture in worn]
    return [footage.switched(picture, lines, random) if lines else picture for picture in worn]


PHOTOS = {"coffee": data.coffee, "astronaut": data.astronaut, "cat": data.chelsea,
          "rocket": data.rocket, "gravel": lambda: cv2.cvtColor(data.gravel(), 8)}  # fmt: skip


@cache
def worn_pan(photo, size):
    random = np.random.default_rng(0)
    pictures = footage.pan(FRAMES, *size, photo=PHOTOS[photo]())
    return [footage.taped(picture, random) for picture in pictures]


@pytest.mark.parametrize(
    ("photo", "size"), [*zip(PHOTOS, [LARGE, SMALL] * 3, strict=False), ("coffee", SMALL)]
)
@pytest.mark.parametrize(
    ("left", "right", "lines"),
    [(10, 14, 8), pytest.param(0, 8, 6, marks=pytest.mark.long), (16, 0, 12)],
)
def test_margins_of_a_tape_are_measured_to_two_lines(photo, size, left, right, lines):
    pictures = framed(worn_pan(photo, size), left, right, lines, np.random.default_rng(1))
    for order in (None, "tff"):
        found = measured(pictures, order=order)
        assert abs(found.left_px - left) <= 1
        assert abs(found.right_px - right) <= 1
        assert (found.top_px, found.noise_lines) == (0, found.bottom_px)
        assert abs(found.noise_lines - lines) <= 1


def test_a_bar_above_and_below_is_a_border_also_with_noise_in_it():
    pictures = [cv2.copyMakeBorder(p, 60, 60, 0, 0, cv2.BORDER_CONSTANT)
                for p in footage.pan(FRAMES, 720, 360)]  # fmt: skip
    assert measured(pictures) == Margins(0, 60, 0, 60)
    random = np.random.default_rng(0)
    torn = [footage.switched(picture, 8, random) for picture in pictures]
    assert measured(torn) == Margins(0, 60, 0, 60, noise_lines=8)


@pytest.mark.parametrize("pixel_format", ["yuv444p10le", "gbrp", "gray", "yuvj420p"])
def test_every_kind_of_samples_is_read(pixel_format):
    pictures = tape(footage.pan(FRAMES, 360, 288), 12, 8, 8)
    if pixel_format == "yuvj420p":
        images = footage.images(pictures, pixel_format)
        assert images[0].to_ndarray()[:288, :8].mean() < 8  # no offset for black
    found = measured(pictures, pixel_format)
    assert abs(found.left_px - 12) <= 1
    assert abs(found.noise_lines - 8) <= 1


@pytest.mark.parametrize("photo", PHOTOS)
@pytest.mark.parametrize("worn", [False, True])
def test_clean_footage_has_none(photo, worn):
    pictures = footage.pan(FRAMES, 360, 288, photo=PHOTOS[photo]())
    assert measured(tape(pictures, 0, 0, 0) if worn else pictures) == NO_MARGINS


@pytest.mark.parametrize("name", ["gravel", "grass", "brick"])
@pytest.mark.parametrize("speed_px", [0, 2.6])
def test_fine_texture_at_the_bottom_is_no_noise(name, speed_px):
    texture = cv2.cvtColor(getattr(data, name)(), cv2.COLOR_GRAY2RGB)
    above = footage.pan(FRAMES, 720, 480, speed_px=speed_px)
    below = footage.pan(FRAMES, 720, 480, photo=texture, speed_px=speed_px)
    both = [np.concatenate([a[:-12], b[-12:]]) for a, b in zip(above, below, strict=True)]
    assert measured(both) == measured(tape(both, 0, 0, 0)) == NO_MARGINS


def in_the_dark(picture, x):
    light = np.exp(-(((np.arange(picture.shape[1]) - x) / 40) ** 2))
    return (picture * light[:, None]).astype(np.uint8)


def test_a_dark_scene_is_no_border():
    pictures = footage.pan(FRAMES, 360, 288)
    assert measured([(p * 0.04).astype(np.uint8) for p in pictures]) == NO_MARGINS
    assert measured([in_the_dark(p, 240) for p in pictures]) == NO_MARGINS
    half = [p.copy() for p in pictures]
    for picture in half[: FRAMES // 2]:
        picture[:, :100] = 0  # black in one of two shots
    assert measured(half) == NO_MARGINS


def test_one_damaged_place_hides_no_border():
    pictures = tape(footage.pan(FRAMES, 360, 288), 12, 8, 8)
    pictures[4:6] = [np.full_like(pictures[0], 128)] * 2
    found = measured(pictures)
    assert abs(found.left_px - 12) <= 1
    assert abs(found.noise_lines - 8) <= 1


@pytest.mark.parametrize(
    "name",
    ["derived_interlaced_h264.mp4", "hamilton_short.mp4", "lp_s18.mp4", "vrt_1.mp4",
     "intel_asl_thanks.mkv", "torchcodec_nasa.mp4"],
)  # fmt: skip
def test_real_clips_have_none(shared, name):
    path = shared / "clips" / name
    assert inspect_samples(probe(path), load_settings()).margins == NO_MARGINS


@pytest.mark.long
def test_long_videos_are_measured_at_places_all_through_them(tmp_path):
    pictures = tape(footage.pan(24, 360, 288), 12, 8, 8)
    images = footage.images(pictures, "yuv420p") * 11
    path = write_video(tmp_path / "long.mp4", images, codec="libx264", options={"g": "50"})
    found = inspect_samples(probe(path), load_settings()).margins
    assert abs(found.left_px - 12) <= 1
    assert abs(found.noise_lines - 8) <= 1
    assert not inspect_samples(probe(path), load_settings(None, ["detect.margins=false"])).margins


@pytest.mark.parametrize("orientation", [(1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, 1, 0)])
@pytest.mark.parametrize("size_px", [None, 200])
def test_a_view_shows_nothing_of_the_noise_and_loses_little_else(orientation, size_px):
    info = info_of(352, 288, display_orientation=orientation, sample_aspect_ratio=16 / 15)
    view = upright(info, size_px)
    frame = np.full((288, 352, 3), 100, np.uint8)
    frame[:, :8] = 0
    frame[-13:] = 255
    seen = view.turn(cv2.resize(frame, view.coded_size, interpolation=cv2.INTER_AREA))
    covered = Margins(8, 0, 0, 13, 13).covered(np.ascontiguousarray(seen), view.matrix, info)
    assert covered.max() == 100
    assert 0.04 < np.mean(covered != seen) < 0.07  # 13 of 288 lines, and what is mixed with them
    bar = Margins(8, 0, 0, 13, 4).covered(np.ascontiguousarray(seen), view.matrix, info)
    assert 0.02 < np.mean(bar == 0) - np.mean(covered == 0) < 0.07
    assert Margins(8, 0, 0, 13).covered(seen, view.matrix, info) is seen


def with_a_face(x, y, *, width=720, height=480):
    """A pan over a picture with a face whose left cheek, or chin, lies at a margin."""
    face = cv2.resize(data.astronaut(), None, fx=1.5, fy=1.5)
    pictures = footage.pan(2 * FRAMES, width, height)
    for i, picture in enumerate(pictures):
        part = face[: height - y, 270 + i // 4 :][:, : width - x]
        picture[y : y + len(part), x : x + part.shape[1]] = part
    return pictures


@pytest.mark.long
@pytest.mark.parametrize(("x", "y", "mode"), [(14, 40, "off"), (200, 190, "bob")])
def test_a_face_at_the_border_is_found_where_it_is(tmp_path, shared, x, y, mode):
    pictures = tape(with_a_face(x, y), 14, 14, 10)
    images = footage.images(pictures, "yuv420p")
    if mode == "bob":
        images = footage.woven_by_hand(images, "tff")
    found = {}
    for margins in (True, False):
        path = write_video(tmp_path / "tape.mkv", images)
        options = {"detect.detector": "yunet", "weights.folder": shared / "models",
                   "fields.deinterlace": mode, "detect.margins": margins}  # fmt: skip
        said = []
        found[margins] = analyze_video(path, load_settings(options=options), on_event=said.append)
        told = messages(said)
        assert any("head-switching noise" in message for message in told) == margins
    (track,), (plain,) = (analysis.tracks for analysis in found.values())
    assert found[False].margins is None
    assert abs(found[True].margins.noise_lines - 10) <= 1
    assert track.detected.all()
    shared_frames = min(len(track.landmarks), len(plain.landmarks))
    apart = track.landmarks[:shared_frames] - plain.landmarks[:shared_frames]
    assert np.abs(apart).max() < 4  # of a face 200 px high


class SeesNoise(Detector):
    """A detector that takes what is torn, wherever that is, for a face; and one real face."""

    coarse = False

    def __init__(self):
        self.pictures = []

    def __call__(self, picture):
        self.pictures.append(picture)
        height = len(picture)
        grey = picture.mean(axis=2)
        rough = np.abs(np.diff(grey, axis=0)).mean(axis=1)
        found = [[40, 40, 90, 100]]
        if rough[-6:].mean() > 3 * rough.mean():
            found.append([60, height - 12, 84, height + 12])
        points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
        return [detection(b, b[:2] + points * np.subtract(b[2:], b[:2]), 0.9) for b in found]


def test_noise_is_no_face_and_what_lies_in_a_margin_is_counted():
    (picture,) = tape(footage.pan(1, 360, 288), 12, 8, 10)
    info = info_of(360, 288)
    frame = Frame(0, 0, *footage.images([picture], "yuv420p"))
    margins = Margins(12, 0, 8, 10, 10)

    def faces(shown, counted):
        detector = SeesNoise()
        first = FirstLook(detector, info, Detect(), margins=shown)
        how = Detect(again_seconds=9)
        seen = detect(iter([first(frame)]), detector, info, how, margins=counted)
        ((_, observation),) = seen
        return len(observation.detections), observation.in_margins

    assert faces(NO_MARGINS, NO_MARGINS) == (2, 0)
    assert faces(margins, margins) == (1, 0)
    assert faces(NO_MARGINS, margins) == (1, 1)


def test_a_box_that_leaves_the_frame_is_held_by_no_margin_it_hardly_touches():
    info, margins = info_of(360, 288), Margins(12, 0, 0, 10, 10)
    assert not margins.hold(np.array([-60, 50, 40, 150], np.float32), info)
    assert margins.hold(np.array([-60, 50, 18, 150], np.float32), info)
    assert margins.hold(np.array([100, 270, 124, 300], np.float32), info)
    assert not NO_MARGINS.hold(np.array([100, 270, 124, 400], np.float32), info)


@pytest.mark.long
def test_the_analysis_says_and_keeps_it_and_the_output_keeps_its_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr("vidrestore.models.factory.open_detector", lambda *a, **k: SeesNoise())
    pictures = tape(footage.pan(24, 360, 288), 12, 8, 10)
    source = write_video(tmp_path / "tape.mkv", footage.images(pictures, "yuv420p"))
    settings = load_settings(
        options={"detect.detector": "haar", "encode.quality": "archive", **AS_PAINTED}
    )
    analysis = analyze_video(source, settings)
    storage.save(analysis, tmp_path / "a.npz")
    assert storage.load(tmp_path / "a.npz").margins == analysis.margins
    assert as_dict(analysis)["margins"]["noise_lines"] == analysis.margins.noise_lines
    said = dict(facts_of(analysis))["margins"]
    assert "px at the left" in said
    assert "lines of head-switching noise" in said
    assert len(analysis.tracks) == 1
    summary = restore_video(source, tmp_path / "same.mkv", settings, restorer=Unchanged())
    assert summary.identical_frames == 24
    summary = restore_video(source, tmp_path / "out.mkv", settings, restorer=Painter())
    assert (summary.identical_frames, summary.identical_outside) == (0, 24)


@pytest.mark.parametrize("size", [(16, 16), (97, 99), (96, 20), (20, 300)])
def test_small_pictures_are_no_captures(size):
    scan = MarginScan(replace(info_of(*size), frame_rate=25))
    for seed in range(4):
        scan.add(random_image(*size, "yuv420p", seed), random_image(*size, "yuv420p", seed + 9))
    black = av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8), "rgb24")
    assert scan.margins() == NO_MARGINS
    scan.add(black.reformat(format="yuv420p"), black.reformat(format="yuv420p"))
    assert scan.margins() == NO_MARGINS
