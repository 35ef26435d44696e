"""A restored face moves, blurs and ends with its picture; amounts of nothing change nothing."""

from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.media import (
    Unchanged,
    analysis_of_file,
    frames_of,
    info_of,
    mild_image,
    plain_track,
    planes_of,
    random_image,
    write_video,
)
from helpers.moving_face import (
    CPU,
    SIZE,
    WORK_PX,
    frame_of,
    moving_track,
    pasted,
    picture,
    shown,
    true_crop,
)
from helpers.pasting import Finish, paste
from skimage import data

from vidrestore.api import restore_video
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Restore
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.models.restorers import Restorer
from vidrestore.restoration.batching import restore
from vidrestore.restoration.compositing import motion_blur
from vidrestore.restoration.compositing.paste import REACH_FRAMES
from vidrestore.restoration.crop import crop
from vidrestore.restoration.faces import Face, FaceFrame
from vidrestore.restoration.statistics import RestorationStats

ALL = Finish(occluders=True, color=1.0, grain=1.0, sharpness=1.0, focus=1.0)


def shifted_back(plane: np.ndarray, offset) -> np.ndarray:
    across, down = (np.fft.fftfreq(n) for n in plane.shape[::-1])
    phase = np.exp(2j * np.pi * (across * offset[0] + down[:, None] * offset[1]))
    return np.fft.ifft2(np.fft.fft2(plane) * phase).real


@pytest.mark.parametrize("finish", [None, replace(ALL, grain=0.5)], ids=["none", "as by default"])
def test_a_face_that_moves_by_parts_of_pixels_is_as_steady_as_its_source(finish):
    large, offsets = picture(), np.random.default_rng(2).uniform(0, 2, (8, 2))
    track = moving_track(offsets)
    frames = [frame_of(shown(large, offset), i) for i, offset in enumerate(offsets)]
    source = [planes_of(frame.image)[0].astype(np.float64) for frame in frames]
    crops = [true_crop(large, track, i, offset) for i, offset in enumerate(offsets)]
    result = pasted(frames, track, crops, finish)
    inner, unrest = np.s_[130:200, 130:190], []
    for planes in (source, result):
        still = [shifted_back(plane, o)[inner] for plane, o in zip(planes, offsets, strict=True)]
        unrest.append(np.abs(np.diff(still, axis=0)).mean())
    assert np.abs(result - source).max() > 2  # the face was pasted
    assert unrest[1] <= 1.1 * unrest[0]


def blurred(plane: torch.Tensor, length_px: float) -> torch.Tensor:
    rows = plane[0].numpy()
    return torch.from_numpy(motion_blur.smeared(rows, np.array([length_px, 0.0])))[None]


def sharpness(plane: np.ndarray, other: np.ndarray, part) -> float:
    """Amplitude of the gradient along the motion against that of another picture of the same."""
    own, others = (np.diff(cv2.GaussianBlur(p, (0, 0), 0.7), axis=1)[part] for p in (plane, other))
    return float(np.sqrt((own**2).mean() / (others**2).mean()))


def worn(plane: torch.Tensor, softness_px: float, noise: float) -> torch.Tensor:
    """As a tape shows it."""
    soft = plane[0].numpy()
    if softness_px:
        soft = cv2.GaussianBlur(soft, (0, 0), softness_px)
    grain = np.random.default_rng(5).normal(0, noise / 255, soft.shape)
    return torch.from_numpy((soft + grain).astype(np.float32))[None]


@pytest.mark.parametrize("wear", [(0, 0), (1.5, 4)])
@pytest.mark.parametrize("shutter", [0.5, 1.0])
def test_a_face_in_a_blurred_pan_is_hardly_sharper_than_its_surroundings(shutter, wear):
    """Than they would be without their wear, which is to be taken away."""
    large, speed = picture(), 12.0
    offsets = np.array([[speed * i - 24, 0] for i in range(5)])
    track = moving_track(offsets)
    pan = [blurred(shown(large, offset), speed * shutter) for offset in offsets]
    crops = [true_crop(large, track, i, offset) for i, offset in enumerate(offsets)]
    # The whole picture was blurred alike, so its face was as sharp as the surroundings are.
    face, results = np.s_[130:200, 130:190], []
    for finish in (Finish(sharpness=1.0), None):
        frames = [frame_of(worn(plane, *wear), i) for i, plane in enumerate(pan)]
        results.append(pasted(frames, track, crops, finish)[2])
    own, without = (sharpness(result, 255 * pan[2][0].numpy(), face) for result in results)
    assert 0.85 <= own <= 1.2
    assert without > 1.4


def test_a_fast_shutter_is_not_blurred():
    large = picture()
    offsets = np.array([[12.0 * i - 24, 0] for i in range(5)])
    track = moving_track(offsets)
    crops = [true_crop(large, track, i, offset) for i, offset in enumerate(offsets)]
    results = [
        pasted([frame_of(shown(large, o), i) for i, o in enumerate(offsets)], track, crops, finish)
        for finish in (None, Finish(sharpness=1.0))
    ]
    np.testing.assert_array_equal(*results)


class Mottled(Unchanged):
    """A restorer that changes every pixel, and differently in each frame."""

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        crops = windows[:, 0]
        return (0.93 * (2 * crops - F.avg_pool2d(crops, 5, 1, 2)) + 0.02).clamp(0, 1)


def through(images, track, finish, first: int = 0):
    """Planes of the frames from `first` on."""
    info = info_of(SIZE, SIZE, "yuv420p")
    frames = [replace(frame, index=i + first, pts=512 * (i + first))
              for i, frame in enumerate(frames_of(images))]  # fmt: skip
    cut = crop(iter(frames), [track], info, largest_px=2048, device=CPU)
    done = restore(
        cut, Mottled(), RestorationStats(), how=Restore(batch_size=1, max_waiting_frames=1)
    )
    out = paste(done, info, RestorationStats(), strength=0.9, tracks=[track], finish=finish)
    return [planes_of(frame.image) for frame in out]


def noisy_images(count: int):
    return [mild_image(SIZE, SIZE, "yuv420p", i) for i in range(count)]


def test_the_frames_of_a_part_are_those_of_the_whole():
    n, start = 9, 3
    track = moving_track(np.cumsum(np.full((n, 2), 1.3), axis=0))
    whole = through(noisy_images(n), track, ALL)
    part = through(noisy_images(n)[start:], track, ALL, first=start)
    for a, b in zip(whole[start + REACH_FRAMES :], part[REACH_FRAMES:], strict=True):
        for was, now in zip(a, b, strict=True):
            np.testing.assert_array_equal(was, now)


def test_frames_come_in_order_and_times_stay():
    info = info_of(SIZE, SIZE, "yuv420p")
    track = moving_track(np.zeros((4, 2)))
    frames = list(frames_of(noisy_images(6)))
    cut = crop(iter(frames), [track], info, largest_px=2048, device=CPU)
    done = restore(
        cut, Mottled(), RestorationStats(), how=Restore(batch_size=1, max_waiting_frames=1)
    )
    tally = RestorationStats()
    out = list(paste(done, info, tally, strength=1, tracks=[track], finish=ALL))
    assert [(f.index, f.pts) for f in out] == [(f.index, f.pts) for f in frames]
    assert tally.faces == 4


def test_amounts_of_nothing_change_nothing():
    track = moving_track(np.cumsum(np.full((3, 2), 5.0), axis=0))
    nothing = Finish(detail=1.0, regions={"eyes": 1.0, "skin": 1.0})
    plain, same = (through(noisy_images(3), track, finish) for finish in (None, nothing))
    for a, b in zip(plain, same, strict=True):
        for was, now in zip(a, b, strict=True):
            np.testing.assert_array_equal(was, now)


def test_what_the_restorer_left_alone_is_not_touched():
    info, image = info_of(SIZE, SIZE, "yuv444p"), random_image(SIZE, SIZE, "yuv444p", 0)
    before = planes_of(image)
    track = moving_track(np.zeros((1, 2)))
    (frame,) = crop(frames_of([image]), [track], info, largest_px=2048, device=CPU)
    restored = frame.faces[0].source.clone()
    restored[:, :, : WORK_PX // 2] = 0.5
    face: Face = replace(frame.faces[0], restored=restored)
    list(paste(iter([FaceFrame(frame.frame, (face,))]), info, RestorationStats(), strength=1,
               tracks=[track], finish=replace(ALL, occluders=False)))  # fmt: skip
    for was, now in zip(before, planes_of(image), strict=True):
        assert (was[:, 120:160] != now[:, 120:160]).any()
        np.testing.assert_array_equal(was[:, 165:], now[:, 165:])


def test_no_detail_leaves_the_source_its_own():
    large = picture()
    track = moving_track(np.zeros((1, 2)))
    source = frame_of(shown(large, (0, 0)), 0)
    before = planes_of(source.image)[0].astype(np.float64)
    soft = F.avg_pool2d(true_crop(large, track, 0, (0, 0))[None], 9, 1, 4)[0] + 0.05
    results = [
        pasted([frame_of(shown(large, (0, 0)), 0)], track, [soft], Finish(detail=share))[0]
        for share in (0.0, 0.5, 1.0)
    ]
    inner = np.s_[130:200, 130:190]

    def fine(plane: np.ndarray) -> np.ndarray:
        return (plane - cv2.blur(plane, (3, 3)))[inner]

    kept = [float((fine(r) * fine(before)).sum() / (fine(before) ** 2).sum()) for r in results]
    assert kept[0] > 0.85
    assert kept[2] < 0.4
    assert kept[1] == pytest.approx((kept[0] + kept[2]) / 2, abs=0.05)
    assert results[0][inner].mean() == pytest.approx(results[2][inner].mean(), abs=1.5)


class Tinted(Restorer):
    """A restorer that makes every face redder and noiseless."""

    name, size, reach_frames, template = "tinted", None, 0, "gpen"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        soft = F.avg_pool2d(F.pad(windows[:, 0], (2, 2, 2, 2), mode="replicate"), 5, 1)
        return (soft + torch.tensor([0.1, 0.0, 0.0])[None, :, None, None]).clamp(0, 1)


# Settings, each of which must change what comes out.
EACH = ["paste.color=0", "paste.detail=0", "grain.match=0", "paste.regions.mouth=0.2",
        "paste.occluders=false", "deflicker.amount=off", "paste.strength=0.5",
        "deflicker.detail=0", "restore.denoise=1"]  # fmt: skip


@pytest.mark.long
def test_every_setting_reaches_the_picture(tmp_path):
    """Also the way from the settings to the stages is gone."""
    random = np.random.default_rng(0)
    face = cv2.resize(data.astronaut()[40:240, 120:320], (128, 128), interpolation=cv2.INTER_AREA)
    images = []
    for i in range(6):
        noisy = face + random.normal(0, 6, face.shape)
        noisy[60 + 2 * i : 90 + 2 * i, 30:60] = (40, 90, 200)  # something comes in between
        image = av.VideoFrame.from_ndarray(np.clip(noisy, 0, 255).astype(np.uint8), "rgb24")
        images.append(image.reformat(format="yuv444p"))
    source = write_video(tmp_path / "source.mkv", images)
    track = plain_track(6, centre=(64, 64), side=125, work_px=128)
    analysis = analysis_of_file(source, [track])

    def painted(*changes: str) -> list[bytes]:
        settings = load_settings(None, ["encode.codec=ffv1", "encode.check=false", *changes])
        target = tmp_path / "out.mkv"
        restore_video(source, target, settings, restorer=Tinted(), analysis=analysis,
                      overwrite=True)  # fmt: skip
        return [plane.tobytes() for frame in decode(target, DecodeErrors())
                for plane in planes_of(frame.image)]  # fmt: skip

    usual = painted()
    assert painted() == usual
    for change in EACH:
        assert painted(change) != usual, change
