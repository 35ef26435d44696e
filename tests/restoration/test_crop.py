"""A face in an anamorphic or turned picture reaches the restorer upright and undistorted.

The drawing is a function of the place in the upright picture with square pixels, so that every
coded picture is drawn by itself, from formulas of its own, and none is a resampled other.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from helpers.media import frames_of, info_of, write_video

from vidrestore.analysis.alignment import align
from vidrestore.analysis.tracks import RawTrack
from vidrestore.api import restore_video
from vidrestore.common.settings import Align, Settings
from vidrestore.imaging.frame import VideoInfo
from vidrestore.imaging.geometry import apply, invert, template, upright
from vidrestore.models.detectors import Detection, Detector
from vidrestore.models.restorers import Restorer
from vidrestore.restoration.crop import crop

SIDE = 480  # of the upright picture
WORK_PX = 512
DETECTOR_PX = 300
# Middles of the dots, measured from the picture's corner: a crop of about 330 pixels, turned a bit.
DOTS = np.array([[194.0, 201.0], [263.0, 212.0], [226.5, 246.0], [190.0, 284.0], [248.0, 293.0]])
DEPTHS = (0.7, 0.5, 0.6, 0.4, 0.3)
DOT_SIGMA = 4.0
TURNS = {
    "upright": (1, 0, 0, 1),
    "quarter turn": (0, -1, 1, 0),
    "half turn": (-1, 0, 0, -1),
    "three quarters": (0, 1, -1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside down mirrored": (1, 0, 0, -1),
    "turned and mirrored": (0, 1, 1, 0),
}
ASPECTS = ("16:15", "8:9", "32:27", "64:45", "2:1")
# Those that are tried with every aspect in the short run of the tests.
SHORT = ("upright", "quarter turn")


GROUND = 0.35


def drawing(x, y):
    """Luma in [0, 1] at places (x, y): a head, a hat on one side only, and five dots."""
    head = 1 / (1 + np.exp((np.hypot((x - 226) / 100, (y - 246) / 135) - 1) * 25))
    hat = 1 / (1 + np.exp((np.hypot((x - 290) / 45, (y - 130) / 30) - 1) * 10))
    picture = GROUND + 0.5 * head * (1 + 0.1 * np.sin(y / 60)) - 0.2 * hat
    for (cx, cy), depth in zip(DOTS, DEPTHS, strict=True):
        near = np.hypot(x - cx, y - cy) < 6 * DOT_SIGMA
        squares = (x[near] - cx) ** 2 + (y[near] - cy) ** 2
        picture[near] *= 1 - depth * np.exp(-squares / (2 * DOT_SIGMA**2))
    return picture


def is_drawn(x, y):
    """Whether a place differs from the ground by more than a thousandth."""
    head = np.hypot((x - 226) / 100, (y - 246) / 135) < 1.3
    return head | (np.hypot((x - 290) / 45, (y - 130) / 30) < 1.6)


@dataclass(frozen=True)
class Coding:
    """How the upright picture lies in the coded one."""

    aspect: Fraction
    turn: str

    @property
    def orientation(self):
        return TURNS[self.turn]

    @property
    def size(self):
        """Coded (width, height)."""
        return round(SIDE / self.aspect / 2) * 2, SIDE

    def shown(self, x, y):
        """Places in the upright picture of places in the coded one, both from the corner."""
        width, height = float(self.size[0] * self.aspect), self.size[1]
        x = x * float(self.aspect)
        return {
            "upright": (x, y),
            "quarter turn": (height - y, x),
            "half turn": (width - x, height - y),
            "three quarters": (y, width - x),
            "mirrored": (width - x, y),
            "upside down mirrored": (x, height - y),
            "turned and mirrored": (y, x),
        }[self.turn]

    def image(self):
        width, height = self.size
        y, x = np.mgrid[:height, :width] + 0.5
        # The mean over each pixel, by four places across and down.
        offsets = (np.arange(4) - 1.5) / 4
        drawn = is_drawn(*self.shown(x, y))
        x, y = x[drawn], y[drawn]
        parts = [drawing(*self.shown(x + dx, y + dy)) for dx in offsets for dy in offsets]
        luma = np.full((height, width), GROUND)
        luma[drawn] = np.mean(parts, axis=0)
        image = av.VideoFrame(width, height, "gray")
        plane = np.frombuffer(image.planes[0], np.uint8).reshape(height, -1)
        plane[:, :width] = np.rint(255 * luma)
        return image

    def info(self):
        width, height = self.size
        return info_of(width, height, "gray", full_range=True, sample_aspect_ratio=self.aspect,
                       display_orientation=self.orientation)  # fmt: skip


def seen_by_a_detector(info: VideoInfo):
    """The dots in pixels of the coded picture, by the way of the picture a detector is shown."""
    view = upright(info, DETECTOR_PX)
    width, height = view.coded_size if view.orientation[0] else view.coded_size[::-1]
    aspect = float(info.sample_aspect_ratio)
    shown_size = (info.width * aspect, info.height)
    if not view.orientation[0]:
        shown_size = shown_size[::-1]
    in_view = DOTS * [width / shown_size[0], height / shown_size[1]] - 0.5
    return apply(invert(view.matrix), in_view)


def crop_of(coding):
    """(512, 512) luma of the face, as the restorer gets it."""
    info = coding.info()
    landmarks = seen_by_a_detector(info)[None].astype(np.float32)
    raw = RawTrack(0, (0, 1), landmarks, np.ones(1, np.float32))
    aligned = align([raw], info, Align(), template_name="ffhq", coarse=False)
    # Flat pixels make crops larger, and pictures of one size are compared.
    tracks = [replace(track, work_px=WORK_PX) for track in aligned]
    cut = crop(frames_of([coding.image()]), tracks, info, largest_px=WORK_PX,
               device=torch.device("cpu"))  # fmt: skip
    (face,) = next(cut).faces
    return face.source[1].numpy()


def dots_in(picture):
    """(5, 2) places of the dots in a crop: the middle of what is missing around each."""
    found = []
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    for at in template("ffhq") * WORK_PX - 0.5:
        near = np.hypot(x - at[0], y - at[1]) < 24
        missing = np.where(near, np.median(picture[near]) - picture, 0)
        missing = np.where(missing > 0.25 * missing.max(), missing, 0)
        found.append([(missing * x).sum() / missing.sum(), (missing * y).sum() / missing.sum()])
    return np.array(found)


@pytest.fixture(scope="module")
def square():
    """The crop of the square, upright picture."""
    return crop_of(Coding(Fraction(1), "upright"))


def assert_same_face(picture, square):
    errors = np.linalg.norm(dots_in(picture) - dots_in(square), axis=1)
    assert errors.max() < 1
    assert np.abs(picture - square).mean() < 0.006
    assert np.abs(picture - square[:, ::-1]).mean() > 0.03


@pytest.mark.parametrize(
    ("aspect", "turn"),
    [
        pytest.param(aspect, turn, marks=pytest.mark.long if at > 1 and turn not in SHORT else ())
        for at, aspect in enumerate(["1:1", *ASPECTS])
        for turn in TURNS
    ],
)
def test_the_crop_is_that_of_the_square_upright_picture(aspect, turn, square):
    coding = Coding(Fraction(aspect.replace(":", "/")), turn)
    assert_same_face(crop_of(coding), square)


def test_the_reference_crop_has_its_dots_on_the_template(square):
    """As near as a similarity brings them, which must not be the same for any picture."""
    errors = np.linalg.norm(dots_in(square) - (template("ffhq") * WORK_PX - 0.5), axis=1)
    assert errors.max() < 12


class DotDetector(Detector):
    """Finds the five dots of the drawing in an upright picture."""

    coarse = False

    def __call__(self, picture):
        size = np.array(picture.shape[1::-1]) / SIDE
        grey = picture[..., 1].astype(float)
        y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
        points = []
        for at in DOTS * size - 0.5:
            near = np.hypot(x - at[0], y - at[1]) < 11 * size[0]
            missing = np.where(near, np.clip(np.median(grey[near]) - grey, 0, None), 0)
            missing = np.where(missing > 0.25 * missing.max(), missing, 0)
            points.append(
                [(missing * x).sum() / missing.sum(), (missing * y).sum() / missing.sum()]
            )
        box = np.array([126, 120, 326, 370], np.float32) * size.repeat(2)
        return [Detection(box.astype(np.float32), np.array(points, np.float32), 0.9)]


class Recorder(Restorer):
    """Keeps the crops it is given and returns them."""

    name, reach_frames, template = "recorder", 0, "ffhq"
    size = WORK_PX

    def __init__(self):
        self.crops = []

    def __call__(self, windows):
        self.crops.extend(windows[:, 0].cpu().numpy())
        return windows[:, 0].clone()


@pytest.mark.parametrize(
    ("aspect", "turn", "suffix", "codec"),
    [("1:1", "upright", "mkv", "ffv1"), ("64:45", "upright", "mkv", "libx264"),
     ("8:9", "upright", "mp4", "libx264"), ("1:1", "quarter turn", "mp4", "libx264"),
     ("16:15", "three quarters", "mp4", "libx264")],
)  # fmt: skip
def test_the_whole_way_from_a_file(aspect, turn, suffix, codec, square, tmp_path, monkeypatch):
    coding = Coding(Fraction(aspect.replace(":", "/")), turn)
    a, b, c, d = coding.orientation

    def as_coded(stream):
        stream.codec_context.sample_aspect_ratio = coding.aspect
        stream.codec_context.color_range = 1
        if turn != "upright":
            one = 65536  # the file's matrix is of columns, and moves the picture back into sight
            stream.set_display_matrix([a * one, c * one, 0, b * one, d * one, 0, 0, 0, 1 << 30])

    image = coding.image().reformat(format="yuv420p", src_color_range=2, dst_color_range=1)
    source = write_video(tmp_path / f"source.{suffix}", [image] * 3, codec=codec,
                         options={"crf": "4"} if codec == "libx264" else None,
                         prepare=as_coded)  # fmt: skip
    monkeypatch.setattr("vidrestore.models.factory.open_detector", lambda *a, **k: DotDetector())
    settings = Settings.model_validate(
        {
            "detect": {"detector": "haar"},
            "track": {"min_seconds": 0},
            "restore": {"repeats": False},
        }
    )
    recorder = Recorder()
    summary = restore_video(source, tmp_path / f"out.{suffix}", settings, restorer=recorder)
    assert summary.faces == len(recorder.crops) == 3
    for picture in recorder.crops:
        assert_same_face(picture.mean(axis=0), square)
