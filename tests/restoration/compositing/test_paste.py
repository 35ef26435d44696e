"""Crop and paste together: what changes, and what must not."""

import numpy as np
import pytest
import torch
from helpers.media import (
    PLANAR_FORMATS,
    Painter,
    Unchanged,
    frames_of,
    info_of,
    mild_image,
    plain_track,
    planes_of,
    random_image,
)
from helpers.pasting import paste

from vidrestore.common.settings import Restore
from vidrestore.imaging import color
from vidrestore.imaging.geometry import Rect, apply, crop_matrix
from vidrestore.restoration.batching import restore
from vidrestore.restoration.compositing.masks import face_mask, mask_rect
from vidrestore.restoration.crop import crop
from vidrestore.restoration.statistics import RestorationStats

WIDTH, HEIGHT = 96, 80


def through(images, tracks, restorer, info, *, strength=1.0, largest_px=2048):
    """Crop, restore and paste; the planes afterwards and the tally."""
    tally = RestorationStats()
    cut = crop(frames_of(images), tracks, info, largest_px=largest_px, device=torch.device("cpu"))
    done = restore(cut, restorer, tally, how=Restore(batch_size=3, max_waiting_frames=4))
    out = [planes_of(f.image) for f in paste(done, info, tally, strength=strength)]
    return out, tally


@pytest.mark.parametrize("pixel_format", PLANAR_FORMATS)
def test_a_restorer_that_returns_its_input_changes_no_sample(pixel_format):
    info = info_of(WIDTH, HEIGHT, pixel_format)
    images = [random_image(WIDTH, HEIGHT, pixel_format, i) for i in range(3)]
    before = [planes_of(image) for image in images]
    track = plain_track(3, centre=(50, 40), side=47.3)
    after, tally = through(images, [track], Unchanged(), info)
    assert tally.faces == 3
    for was, now in zip(before, after, strict=True):
        for a, b in zip(was, now, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("pixel_format", PLANAR_FORMATS)
@pytest.mark.parametrize("centre", [(50, 40), (3, 75)])  # inside, and cut by the corner
def test_paint_stays_inside_the_box_of_its_mask(pixel_format, centre):
    info = info_of(WIDTH, HEIGHT, pixel_format)
    image = random_image(WIDTH, HEIGHT, pixel_format, 1)
    before, grid = planes_of(image), color.layout(image).grid
    track = plain_track(1, centre=centre, side=40.0)
    (after,), _ = through([image], [track], Painter(), info)
    box = mask_rect(crop_matrix(track.matrices[0], 64), 64, info, grid)
    assert box.width < WIDTH * 0.8
    for was, now in zip(before, after, strict=True):
        part = box if was.shape == before[0].shape else color.chroma_rect(box, grid)
        outside = np.ones(was.shape, bool)
        outside[part.y0 : part.y1, part.x0 : part.x1] = False
        np.testing.assert_array_equal(was[outside], now[outside])
    assert (before[0] != after[0]).sum() > 100


def test_the_middle_of_the_mask_takes_the_painted_colour_and_strength_scales_it():
    info = info_of(WIDTH, HEIGHT)
    middle = Rect(48, 40, 52, 44)
    levels = []
    for strength in (0.0, 0.5, 1.0):
        image = mild_image(WIDTH, HEIGHT, "yuv420p", 2)
        for index, value in enumerate((120, 128, 128)):
            color.plane(image, index)[...] = value
        track = plain_track(1, centre=(50, 40), side=48.0)
        through([image], [track], Painter((0.8, 0.6, 0.5)), info, strength=strength)
        levels.append(color.region_rgb(image, middle, info).mean(dim=(1, 2)))
    torch.testing.assert_close(levels[2], torch.tensor([0.8, 0.6, 0.5]), atol=0.005, rtol=0)
    torch.testing.assert_close(levels[1], (levels[0] + levels[2]) / 2, atol=0.006, rtol=0)


def test_faces_of_no_strength_and_outside_the_frame_are_not_cut():
    info = info_of(WIDTH, HEIGHT)
    away = plain_track(1, centre=(500, 40), side=40.0)
    cut = list(crop(frames_of([random_image(WIDTH, HEIGHT, "yuv420p", 0)]), [away], info,
                    largest_px=2048, device=torch.device("cpu")))  # fmt: skip
    assert cut[0].faces == ()


def test_the_crop_shows_the_face_upright_at_its_place():
    info = info_of(WIDTH, HEIGHT, "yuv444p")
    image = mild_image(WIDTH, HEIGHT, "yuv444p", 0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    color.plane(image, 0)[...] = (60 + x + y / 2).astype(np.uint8)
    for index in (1, 2):
        color.plane(image, index)[...] = 128
    track = plain_track(1, centre=(50, 40), side=32.0)
    (frame,) = crop(frames_of([image]), [track], info, largest_px=2048, device=torch.device("cpu"))
    face = frame.faces[0]
    at = np.array([[44.0, 38.0], [60.0, 50.0]])
    luma = (face.source.mean(dim=0) * 219 + 16).numpy()
    for (u, v), (px, py) in zip(apply(face.matrix, at), at, strict=True):
        assert luma[round(v), round(u)] == pytest.approx(60 + px + py / 2, abs=1.5)


def test_the_mask_is_soft_and_empty_at_the_border():
    mask = face_mask(128)[0]
    assert mask.max() == 1
    assert mask.min() == 0
    assert mask[0].max() == mask[-1].max() == mask[:, 0].max() == mask[:, -1].max() == 0
    assert mask.diff(dim=0).abs().max() < 0.2
