"""The broad colours of a restored face are those of its source."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.media import Unchanged, frames_of, info_of, mild_image, plain_track, planes_of
from helpers.pasting import Finish, paste
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.filters import gaussian

from vidrestore.common.settings import Restore
from vidrestore.imaging import color
from vidrestore.imaging.geometry import Rect, apply, template
from vidrestore.restoration.batching import restore
from vidrestore.restoration.compositing import masks
from vidrestore.restoration.crop import crop
from vidrestore.restoration.statistics import RestorationStats
from vidrestore.review import portrait

SIDE = 256
FOLLOW = Finish(color=1.0)
BT709 = np.array([0.2126, 0.7152, 0.0722])


class Tinting(Unchanged):
    """A restorer that is yellowish, paler, lighter on the left, and sharpens a little."""

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        crops = windows[:, 0]
        fine = crops - torch.nn.functional.avg_pool2d(crops, 5, 1, 2)
        slope = torch.linspace(1.1, 0.95, crops.shape[-1])
        tint = torch.tensor([1.06, 1.0, 0.85])[:, None, None]
        return ((crops + fine) * 0.9 * tint * slope + 0.06).clamp(0, 1)


def scene(curve=lambda rgb: rgb):
    """(256, 256, 3) the portrait in [0, 1], which fills the frame, and the track of its face."""
    picture, landmarks = portrait.clean_portrait()
    matrix = portrait.place_in_crop(landmarks, template("gpen"), SIDE)
    shown = portrait.cut(picture, matrix, SIDE).permute(1, 2, 0).numpy()
    track = plain_track(3, centre=(SIDE / 2, SIDE / 2), side=float(SIDE), work_px=SIDE)
    points = apply(matrix, landmarks)[None].repeat(3, axis=0)
    return curve(shown), replace(track, landmarks=points.astype(np.float32))


def frame_image(rgb, pixel_format):
    """A frame of full range and BT.709."""
    image = mild_image(SIDE, SIDE, pixel_format, 0)
    luma = rgb @ BT709
    step = 2 if pixel_format == "yuv420p" else 1
    chroma = [((rgb[..., c] - luma) / k)[::step, ::step] for c, k in ((2, 1.8556), (0, 1.5748))]
    for index, plane in enumerate([255 * luma, *(128 + 255 * each for each in chroma)]):
        color.plane(image, index)[...] = np.clip(np.rint(plane), 0, 255)
    return image


def restored(rgb, track, pixel_format="yuv444p", finish=FOLLOW, restorer=None):
    """Source and result (3, 256, 256) in [0, 1] of the middle one of three frames; its planes."""
    info = info_of(SIDE, SIDE, pixel_format, full_range=True)
    images = [frame_image(rgb, pixel_format) for _ in range(3)]
    whole = Rect(0, 0, SIDE, SIDE)
    before = color.region_rgb(images[1], whole, info)
    cut = crop(frames_of(images), [track], info, largest_px=2048, device=torch.device("cpu"))
    done = restore(
        cut,
        restorer or Tinting(),
        RestorationStats(),
        how=Restore(batch_size=1, max_waiting_frames=1),
    )
    after = list(paste(done, info, RestorationStats(), strength=1, tracks=[track], finish=finish))[
        1
    ]
    return before, color.region_rgb(after.image, whole, info), planes_of(after.image)


def face() -> np.ndarray:
    """(256, 256) True where the mask is 1."""
    distance = masks.hull_distance(masks.hull_support(masks.usual_landmarks()), 0.06)
    inside = masks.soft(torch.from_numpy(distance), 0.06)
    return torch.nn.functional.interpolate(inside[None, None], (SIDE, SIDE))[0, 0].numpy() == 1


def difference(before: torch.Tensor, after: torch.Tensor) -> float:
    """Mean CIEDE2000 of the low-passed faces."""
    low = [rgb2lab(gaussian(each.permute(1, 2, 0).numpy().clip(0, 1), 12, channel_axis=-1))
           for each in (before, after)]  # fmt: skip
    return float(deltaE_ciede2000(*low)[face()].mean())


@pytest.mark.parametrize("light", [1.0, 0.25])
def test_a_tint_is_taken_back(light):
    rgb, track = scene(lambda shown: shown * light)
    before, after, _ = restored(rgb, track)
    assert difference(before, after) < 1
    _, tinted, _ = restored(rgb, track, finish=Finish())
    assert difference(before, tinted) > 3
    fine = [
        each - torch.nn.functional.avg_pool2d(each[None], 5, 1, 2)[0] for each in (before, after)
    ]
    was, now = (float(each[:, torch.from_numpy(face())].std()) for each in fine)
    assert now > 1.2 * was  # what was restored is still there


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p"])
def test_grey_film_stays_exactly_grey(pixel_format):
    rgb, track = scene(lambda shown: np.repeat(shown @ BT709[:, None], 3, axis=2))
    _, _, (luma, *chroma) = restored(rgb, track, pixel_format)
    assert all((plane == 128).all() for plane in chroma)
    assert (luma != planes_of(frame_image(rgb, pixel_format))[0]).sum() > 1000


def test_sepia_film_stays_sepia():
    toned = np.array([1.05, 0.95, 0.75])
    rgb, track = scene(lambda shown: np.clip((shown @ BT709[:, None]) * toned, 0, 1))
    _, after, _ = restored(rgb, track)
    picture = after.permute(1, 2, 0).numpy()[face()]
    luma = picture @ BT709
    wanted = luma[:, None] * toned / (toned @ BT709)
    # Chroma of 8 bits is rounded to about this.
    assert np.abs(picture - wanted).mean() < 1.5 / 255


def test_colours_of_a_face_are_not_taken_for_toning():
    rgb, track = scene()
    before, after, _ = restored(rgb, track, restorer=Sharper())
    spread = [(each[0] - each[2])[torch.from_numpy(face())].std() for each in (before, after)]
    assert spread[1] > 0.97 * spread[0]


class Sharper(Unchanged):
    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        crops = windows[:, 0]
        return (2 * crops - torch.nn.functional.avg_pool2d(crops, 5, 1, 2)).clamp(0, 1)


def test_what_is_blown_out_stays_so():
    rgb, track = scene(lambda shown: np.clip(shown * 2.2, 0, 1))
    before, after, _ = restored(rgb, track)
    white = (torch.nn.functional.avg_pool2d(before.amin(0)[None], 21, 1, 10)[0] > 0.998).numpy()
    assert (white & face()).sum() > 100
    assert (after.amin(0).numpy()[white & face()] > 0.99).mean() > 0.98


def test_half_of_it_is_half_way():
    rgb, track = scene()
    results = [restored(rgb, track, finish=Finish(color=share))[1] for share in (0.0, 0.5, 1.0)]
    middle = torch.from_numpy(face())
    half = ((results[0] + results[2]) / 2 - results[1])[:, middle]
    assert half.abs().mean() < 0.02
