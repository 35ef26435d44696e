"""What networks are shown of a noisy tape is clean, and everything else still meets the source."""

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
import torch
from helpers import footage, simulation
from helpers.media import (
    AS_PAINTED,
    analysis_of,
    analysis_of_file,
    info_of,
    mild_image,
    plain_face,
    plain_track,
    planes_of,
    random_image,
    write_video,
)
from skimage import data

from vidrestore.api import restore_video
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Restore
from vidrestore.imaging.frame import Frame
from vidrestore.media.codecs import Encoding
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.models.restorers import Restorer
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.models.restorers.denoise import Denoise
from vidrestore.restoration.batching import restore
from vidrestore.restoration.crop_cache import CropCache
from vidrestore.restoration.faces import FaceFrame
from vidrestore.restoration.pipeline import reach_frames
from vidrestore.restoration.segments import Segment, segment_key
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.review import metrics

SIDE, FRAMES = 256, 13
# Noise of luma and of colours, standard deviations in levels of 8 bits; the face is 160 px high.
GOOD, WORN = (5, 9), (8, 14)


class Sharp(Restorer):
    """A network to which noise is a feature: it makes the most of every contrast."""

    name, size, reach_frames, template, cache_key = "sharp", SIDE, 0, "gpen", "sharp"

    def __init__(self):
        self.shapes = []

    def __call__(self, windows):
        self.shapes.append(tuple(windows.shape))
        return torch.from_numpy(sharpened(windows[:, 0].permute(0, 2, 3, 1).numpy())).permute(
            0, 3, 1, 2
        )


def sharpened(pictures):
    return np.stack(
        [np.clip(p + 1.5 * (p - cv2.blur(p, (17, 17))), 0, 1) for p in pictures]
    ).astype(np.float32)


@cache
def clip(frames=FRAMES):
    return simulation.synthetic(frames, SIDE, 0)


@cache
def on_tape(noise, frames=FRAMES):
    """The clip as frames of a tape show it, enlarged to the crop."""
    random, crops = np.random.default_rng(1), []
    for picture in clip(frames).truth:
        small = cv2.resize(picture, (160, 160), interpolation=cv2.INTER_AREA)
        levels = np.rint(255 * small).astype(np.uint8)
        worn = footage.taped(levels, random, luma=noise[0], chroma=noise[1], line_px=720)
        large = cv2.resize(worn.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
        crops.append(np.clip(large / 255, 0, 1))
    return np.stack(crops)


def denoised(pictures, amount=1.0):
    crops = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    denoise, last, reach = Denoise(amount), len(crops) - 1, range(-4, 5)
    shown = [denoise(crops[[min(max(i + d, 0), last) for d in reach]]) for i in range(len(crops))]
    return torch.stack(shown).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize(("noise", "least_db"), [(GOOD, 9), (WORN, 9)])
def test_noise_of_a_tape_is_taken_out_before_a_network_makes_it_a_feature(noise, least_db):
    mask, flows = simulation.face_mask(SIDE), clip().flows
    clean, noisy = on_tape((0, 0)), on_tape(noise)
    shown = denoised(noisy)

    def psnr_db(pictures, truth):
        return metrics.psnr_db(pictures, truth, mask)

    gained = psnr_db(shown, clean) - psnr_db(noisy, clean)
    assert gained.mean() > least_db
    assert gained.min() > least_db - 2
    best, plain, made = map(sharpened, (clean, noisy, shown))
    assert (psnr_db(made, best) - psnr_db(plain, best)).mean() > least_db
    flicker = [metrics.rms(metrics.flicker(p, best, flows, mask)) for p in (plain, made)]
    assert flicker[1] < 0.15 * flicker[0]
    detail = [metrics.ratio(metrics.true_detail(p, clean, mask)) for p in (noisy, shown)]
    assert detail[1] > 0.92 * detail[0]


def test_clean_crops_keep_their_detail():
    mask = simulation.face_mask(SIDE)
    for clean, least_db in ((on_tape((0, 0)), 41), (clip().truth, 37)):
        shown = denoised(clean)
        assert metrics.psnr_db(shown, clean, mask).mean() > least_db
        assert metrics.ratio(metrics.true_detail(shown, clean, mask)) > 0.9


def test_a_blink_stays_one():
    frames = 16
    eyes, clean = clip(frames).eyes, on_tape((0, 0), frames)
    blink = eyes.any(axis=(1, 2))
    assert 3 <= blink.sum() <= 8
    noisy, shown = (
        metrics.blink_psnr_db(p, clean, blink, eyes.astype(np.float32))
        for p in (on_tape(GOOD, frames), denoised(on_tape(GOOD, frames)))
    )
    assert shown > noisy + 5


def test_the_amount_is_a_share_and_grey_stays_grey():
    noisy = on_tape(GOOD)[:5]
    whole, half = denoised(noisy), denoised(noisy, 0.5)
    np.testing.assert_allclose(half, (noisy + whole) / 2, atol=1e-6)
    grey = denoised(np.repeat(noisy.mean(axis=3, keepdims=True), 3, axis=3))
    assert np.ptp(grey, axis=3).max() < 1e-4
    colors = np.ones((5, 64, 64, 3), np.float32) * [0.8, 0.3, 0.1]
    np.testing.assert_allclose(denoised(colors.astype(np.float32)), colors, atol=1e-4)


def face_frames(crops):
    image = random_image(16, 16, "yuv420p", 0)
    for i, crop in enumerate(crops):
        yield FaceFrame(Frame(i, i, image), (plain_face(crop),))


def test_the_network_alone_sees_it_and_faces_keep_their_source():
    crops = list(torch.rand(11, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    sharp, denoise = Sharp(), Denoise(1.0)
    out = list(
        restore(
            face_frames(crops), sharp, RestorationStats(),
            Restore(batch_size=2, max_waiting_frames=9), denoiser=denoise,
        )
    )  # fmt: skip
    assert set(sharp.shapes) == {(2, 1, 3, SIDE, SIDE), (1, 1, 3, SIDE, SIDE)}
    assert [frame.frame.index for frame in out] == list(range(11))
    for frame, crop in zip(out, crops, strict=True):
        assert frame.faces[0].source is crop
        assert frame.faces[0].restored is not None


def test_a_restorer_that_looks_at_several_frames_is_left_alone_and_that_is_said():
    class Mean(Sharp):
        name, size, reach_frames = "mean", None, 1

        def __call__(self, windows):
            return windows.mean(dim=1)

    crops = list(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    found = []
    for denoiser in (Denoise(1.0), None):
        tally = RestorationStats()
        how = Restore(batch_size=1, max_waiting_frames=9)
        out = restore(face_frames(crops), Mean(), tally, how, denoiser=denoiser)
        found.append([frame.faces[0].restored for frame in out])
        assert bool(tally.notes) == (denoiser is not None)
    assert all(map(torch.equal, *found))
    settings = load_settings(None, ["restore.denoise=0.5"])
    mean, sharp = (Assignment([(0, each)]) for each in (Mean(), Sharp()))
    assert reach_frames(mean, settings) == reach_frames(mean, load_settings())
    assert reach_frames(sharp, settings) == 4 + reach_frames(sharp, load_settings())


def test_repeats_and_kept_crops_know_of_it(tmp_path):
    levels = [0.1, 0.1, 0.1, 0.5, 0.5, *[0.3] * 12]
    faces = [torch.full((3, 16, 16), level) for level in levels]
    kept = CropCache(tmp_path, "")

    def run(amount, *, repeats=True, crops=None):
        sharp, tally = Sharp(), RestorationStats()
        denoiser = Denoise(amount) if amount else None
        how = Restore(batch_size=1, max_waiting_frames=9, repeats=repeats)
        out = list(restore(face_frames(faces), sharp, tally, how, denoiser=denoiser, crops=crops))
        return [frame.faces[0].restored for frame in out], len(sharp.shapes), tally

    plain, runs, _ = run(1.0, repeats=False)
    repeated, fewer, tally = run(1.0)
    assert (runs, fewer, tally.repeated) == (len(levels), len(levels) - tally.repeated, 7)
    assert all(map(torch.equal, plain, repeated))
    assert run(1.0, crops=kept)[1] == fewer
    assert run(1.0, crops=kept)[1] == 0
    assert run(0.5, crops=kept)[1] == fewer
    assert run(0, crops=kept)[1] == 3


def lively(count):
    images = [mild_image(96, 64, "yuv420p", 0) for _ in range(count)]
    for i, image in enumerate(images):
        level = np.frombuffer(bytes(image.planes[0]), np.uint8) // 2 + 3 * i % 97
        image.planes[0].update(level.astype(np.uint8).tobytes())
    return images


@pytest.mark.long
def test_frames_do_not_depend_on_segments(tmp_path):
    source = write_video(tmp_path / "tape.mkv", lively(100))
    analysis = analysis_of_file(source, [plain_track(100, centre=(48, 32), side=32)])
    found, runs = [], []
    for most in (300, 50):
        options = {"restore.denoise": 1, "job.segment_frames": most, "deflicker.amount": 0,
                   "guard.features": 0, "encode.quality": "archive"}  # fmt: skip
        target, restorer = tmp_path / f"{most}.mkv", Sharp()
        restorer.size = 64
        restore_video(source, target, load_settings(options=options), restorer=restorer,
                      analysis=analysis)  # fmt: skip
        frames = [planes_of(frame.image)[0] for frame in decode(target, DecodeErrors())]
        found.append(np.stack(frames))
        runs.append(len(restorer.shapes))
    np.testing.assert_array_equal(*found)
    assert runs[1] == runs[0]  # those around each segment are kept for the next


def test_another_amount_makes_another_segment():
    analysis = analysis_of(info_of(96, 64), 60, [plain_track(60, centre=(48, 32), side=32)])
    encoding = Encoding("e", "e", "p", ".mkv")
    hashes = {
        segment_key(Segment(0, 0, 60), analysis, 2, Assignment([(0, Sharp())]), "", load_settings(
            options={"restore.denoise": amount}), encoding)
        for amount in (0, 0.5, 0.5, 1)
    }  # fmt: skip
    assert len(hashes) == 3


def film(path, noise):
    """A face, 130 px high, in a tape's picture that trembles."""
    random, images = np.random.default_rng(0), []
    for i in range(FRAMES):
        shift = np.array([[1, 0, 40 + 0.7 * i], [0, 1, 5 + 2 * np.sin(i)]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        picture = cv2.warpAffine(data.astronaut(), shift, (320, 240), flags=flags)
        picture = footage.taped(picture, random, luma=noise[0], chroma=noise[1], line_px=720)
        images += footage.images([picture], "yuv444p")
    return write_video(path, images)


@pytest.mark.long
def test_a_film_of_a_tape_comes_closer_to_that_of_a_clean_one(tmp_path):
    track = plain_track(FRAMES, centre=(181, 122), side=180, work_px=256)
    rows, columns = slice(70, 170), slice(140, 220)
    pictures = {}
    for name, noise, amount in (("clean", (0, 0), 0), ("noisy", GOOD, 0), ("shown", GOOD, 1)):
        source = film(tmp_path / f"{name}.mkv", noise)
        options = {"restore.denoise": amount, "encode.quality": "archive", "deflicker.amount": 0,
                   **AS_PAINTED}  # fmt: skip
        target = tmp_path / f"{name} out.mkv"
        tracks = [replace(track, person_id=1)]
        summary = restore_video(source, target, load_settings(options=options), restorer=Sharp(),
                                analysis=analysis_of_file(source, tracks))  # fmt: skip
        assert summary.identical_outside == FRAMES
        pictures[name] = np.stack(
            [
                f.image.to_ndarray(format="rgb24")[rows, columns]
                for f in decode(target, DecodeErrors())
            ]
        ).astype(float)
    off = {name: np.sqrt(np.mean((pictures[name] - pictures["clean"]) ** 2))
           for name in ("noisy", "shown")}  # fmt: skip
    assert off["shown"] < 0.35 * off["noisy"]
