from fractions import Fraction

import numpy as np
import pytest
import torch
from helpers.media import info_of

from vidrestore.imaging.geometry import (
    apply,
    compose,
    covering_rect,
    crop_matrix,
    crop_side_px,
    fit_similarity,
    invert,
    template,
    upright,
)
from vidrestore.imaging.resample import warp


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        ((1, 0, 0, 1), (0, 0)),
        ((0, -1, 1, 0), (3, 0)),  # a quarter turn: the first pixel goes to the top right
        ((-1, 0, 0, -1), (5, 3)),
        ((0, 1, -1, 0), (0, 5)),
        ((-1, 0, 0, 1), (5, 0)),  # mirrored
        ((0, 1, 1, 0), (0, 0)),
    ],
)
def test_upright_moves_pixels_as_turning_the_picture_does(orientation, expected):
    view = upright(info_of(6, 4, display_orientation=orientation))
    picture = np.zeros((4, 6), int)
    picture[0, 0] = 1
    picture[1, 4] = 2
    turned = view.turn(picture)
    for value, at in ((1, (0, 0)), (2, (4, 1))):
        x, y = apply(view.matrix, np.array([at], float))[0]
        assert turned[round(y), round(x)] == value
    assert tuple(np.argwhere(turned == 1)[0][::-1]) == expected


def test_upright_makes_pixels_square_and_keeps_outer_edges():
    info = info_of(720, 480, sample_aspect_ratio=Fraction(8, 9))
    view = upright(info)
    assert view.coded_size == (720, 540)
    edges = apply(view.matrix, np.array([[-0.5, -0.5], [719.5, 479.5]]))
    np.testing.assert_allclose(edges, [[-0.5, -0.5], [719.5, 539.5]])
    small = upright(info, 360)
    assert small.coded_size == (360, 270)


def test_similarity_is_recovered_exactly_and_noise_does_not_bias_it():
    random = np.random.default_rng(1)
    target = template("gpen")
    angle, scale, shift = 0.3, 180.0, np.array([40.0, -7.0])
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = target @ turn.T + shift
    matrix = fit_similarity(points[None], target)[0]
    np.testing.assert_allclose(apply(matrix, points), target, atol=1e-12)
    assert crop_side_px(matrix) == pytest.approx(scale)
    noisy = points + random.normal(0, 2, (4000, 5, 2))
    np.testing.assert_allclose(
        apply(fit_similarity(noisy, target), points).mean(axis=0), target, atol=2e-3
    )


def test_templates_are_the_published_points():
    np.testing.assert_allclose(template("gpen")[0] * 512, [202.0407, 242.8840], atol=1e-3)
    np.testing.assert_allclose(template("gpen")[4] * 2048, [1203.5645, 1465.3452], atol=1e-3)
    np.testing.assert_allclose(template("ffhq")[2] * 2048, [1026.5366, 1256.0774], atol=1e-2)


def test_compose_and_invert():
    random = np.random.default_rng(2)
    first, second = random.normal(size=(2, 2, 3))
    points = random.normal(size=(7, 2))
    np.testing.assert_allclose(
        apply(compose(second, first), points), apply(second, apply(first, points))
    )
    np.testing.assert_allclose(apply(compose(invert(first), first), points), points)


def test_warp_there_and_back_returns_a_smooth_picture():
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    picture = torch.stack([torch.sin(x / 9), torch.cos(y / 7), torch.sin((x + y) / 11)])
    unit = np.array([[np.cos(0.2), np.sin(0.2), -12.0], [-np.sin(0.2), np.cos(0.2), 2.0]]) / 70
    matrix = crop_matrix(unit, 128).astype(float)
    crop = warp(picture, invert(matrix), 128, 128, mode="bicubic")
    back = warp(crop, matrix, 96, 128, mode="bicubic")
    inside = warp(torch.ones(1, 128, 128), matrix, 96, 128, mode="bilinear")
    corners = apply(matrix, np.array([[50.0, 40.0], [70.0, 60.0]]))
    assert (corners > 0).all()
    assert (corners < 127).all()
    assert inside.shape == (1, 96, 128)
    # Both ways round positions to 1/32 of a pixel, and the picture spans 2, not 1.
    assert (back - picture)[:, 40:60, 50:70].abs().max() < 5e-3


def test_shrinking_does_not_alias():
    """White noise at a tenth of the size must become nearly flat; bilinear sampling keeps it."""
    noise = torch.from_numpy(np.random.default_rng(3).normal(0, 30, (1, 1024, 1024))).float()
    matrix = np.array([[10.0, 0, 4.5], [0, 10.0, 4.5]])
    small = warp(noise, matrix, 100, 100, mode="bilinear")
    assert small.std() < 4


def test_warp_keeps_pixel_centres_when_it_halves():
    ramp = torch.arange(256.0).expand(1, 256, 256)
    matrix = np.array([[4.0, 0, 1.5], [0, 4.0, 1.5]])
    small = warp(ramp, matrix, 64, 64, mode="bilinear")
    np.testing.assert_allclose(small[0, 10, 1:-1], (np.arange(64) * 4 + 1.5)[1:-1], atol=1e-3)


def test_covering_rect_lies_on_the_chroma_grid_and_inside_the_frame():
    info = info_of(101, 75)
    rect = covering_rect(np.array([[3.2, 5.9], [99.0, 80.0]]), info, grid=(2, 2), margin_px=1)
    assert (rect.x0, rect.y0, rect.x1, rect.y1) == (2, 4, 101, 75)
    outside = covering_rect(np.array([[200.0, 5.0], [210.0, 9.0]]), info, grid=(2, 2))
    assert outside.is_empty
