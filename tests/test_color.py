import itertools

import numpy as np
import pytest
import torch
from media import PLANAR_FORMATS, info_of, mild_image, planes_of, random_image

from vidrestore import color
from vidrestore.errors import InputError
from vidrestore.geometry import Rect

# R'G'B' -> Y'CbCr code values, 8 bit, worked out from the definitions of the three standards.
KNOWN = [
    ("bt601", False, (1, 0, 0), (81.481, 90.203, 240.0)),
    ("bt709", False, (1, 0, 0), (62.559, 102.336, 240.0)),
    ("bt709", False, (0, 0, 1), (31.812, 240.0, 117.684)),
    ("bt2020", False, (0, 1, 0), (164.482, 47.346, 24.985)),
    ("bt601", True, (1, 0, 0), (76.245, 84.972, 255.5)),
    ("bt709", False, (1, 1, 1), (235, 128, 128)),
    ("bt709", True, (0, 0, 0), (0, 128, 128)),
]


@pytest.mark.parametrize(("matrix", "full", "rgb", "ycc"), KNOWN)
def test_painted_colours_have_the_code_values_of_the_standards(matrix, full, rgb, ycc):
    info = info_of(16, 16, "yuv444p", matrix=matrix, full_range=full)
    image = random_image(16, 16, "yuv444p", 0)
    for index, value in enumerate((16, 128, 128) if not full else (0, 128, 128)):
        color.plane(image, index)[...] = value
    whole = Rect(0, 0, 16, 16)
    assert color.region_rgb(image, whole, info).abs().max() < 1e-6
    wanted = torch.tensor(rgb).float()[:, None, None].expand(3, 16, 16)
    color.blend_rgb(image, whole, wanted, torch.ones(1, 16, 16), info)
    got = [int(plane[8, 8]) for plane in planes_of(image)]
    np.testing.assert_allclose(got, np.clip(ycc, 0, 255), atol=0.51)


@pytest.mark.parametrize(
    ("pixel_format", "matrix", "full"),
    list(itertools.product(PLANAR_FORMATS, ("bt601", "bt709", "bt2020"), (False, True))),
)
def test_a_patch_of_known_rgb_comes_back_within_one_code_value(pixel_format, matrix, full):
    info = info_of(48, 32, pixel_format, matrix=matrix, full_range=full)
    image = mild_image(48, 32, pixel_format, 7)
    wanted = torch.tensor([0.7, 0.5, 0.3] if pixel_format != "gray" else [0.5] * 3)[:, None, None]
    rect = Rect(8, 8, 40, 24)
    color.blend_rgb(image, rect, wanted.expand(3, 16, 32), torch.ones(1, 16, 32), info)
    how = color.layout(image)
    # The chroma samples of a flat picture are known exactly; compare planes, not R'G'B'.
    ideal = mild_image(48, 32, pixel_format, 8)
    whole = Rect(0, 0, 48, 32)
    color.blend_rgb(ideal, whole, wanted.expand(3, 32, 48), torch.ones(1, 32, 48), info)
    for index in how.planes:
        part = (
            rect
            if color.plane(image, index).shape == (32, 48)
            else color.chroma_rect(rect, how.grid)
        )
        got = color.plane(image, index)[part.y0 : part.y1, part.x0 : part.x1].astype(int)
        flat = color.plane(ideal, index)[part.y0 : part.y1, part.x0 : part.x1].astype(int)
        assert np.abs(got - flat).max() <= 1, f"plane {index}"
    got = color.region_rgb(image, rect, info)
    # One code value off in Y', Cb or Cr moves B' by up to 1 + 2 (1 - kb) of them.
    assert (got - wanted).abs().max() * (2**how.bits - 1) < 2.1


@pytest.mark.parametrize("pixel_format", PLANAR_FORMATS)
def test_no_weight_changes_no_sample_not_even_an_illegal_one(pixel_format):
    info = info_of(35, 21, pixel_format)
    image = random_image(35, 21, pixel_format, 3)
    before = planes_of(image)
    color.blend_rgb(image, Rect(4, 4, 35, 21), torch.rand(3, 17, 31), torch.zeros(1, 17, 31), info)
    for was, now in zip(before, planes_of(image), strict=True):
        np.testing.assert_array_equal(was, now)


@pytest.mark.parametrize("pixel_format", PLANAR_FORMATS)
def test_only_the_rectangle_changes(pixel_format):
    info = info_of(64, 48, pixel_format)
    image = random_image(64, 48, pixel_format, 5)
    before, grid = planes_of(image), color.layout(image).grid
    rect = Rect(16, 8, 48, 40)
    color.blend_rgb(image, rect, torch.rand(3, 32, 32), torch.ones(1, 32, 32), info)
    changed = 0
    for index, (was, now) in enumerate(zip(before, planes_of(image), strict=True)):
        part = rect if was.shape == before[0].shape else color.chroma_rect(rect, grid)
        outside = np.ones(was.shape, bool)
        outside[part.y0 : part.y1, part.x0 : part.x1] = False
        np.testing.assert_array_equal(was[outside], now[outside], err_msg=f"plane {index}")
        changed += int((was != now).sum())
    assert changed > 0


def test_whiter_than_white_stays_on_top_of_what_is_pasted():
    info = info_of(16, 16)
    image = mild_image(16, 16, "yuv420p", 0)
    for index, value in enumerate((250, 128, 128)):  # 235 is white
        color.plane(image, index)[...] = value
    color.blend_rgb(image, Rect(0, 0, 16, 16), torch.ones(3, 16, 16), torch.ones(1, 16, 16), info)
    assert (planes_of(image)[0] == 250).all()


def test_chroma_of_420_lies_left_in_mpeg_and_in_the_middle_in_jpeg():
    image = random_image(16, 16, "yuv420p", 0)
    color.plane(image, 0)[...] = 128
    color.plane(image, 1)[...] = 128
    ramp = color.plane(image, 2)
    ramp[...] = 100 + 8 * np.arange(8)[None, :]
    whole = Rect(0, 0, 16, 16)
    left = color.region_rgb(image, whole, info_of(16, 16))[0, 8]
    middle = color.region_rgb(image, whole, info_of(16, 16, codec="mjpeg"))[0, 8]
    # Sample j stands over luma column 2j, or between 2j and 2j + 1: a quarter of a step apart.
    assert left[4] - middle[4] == pytest.approx(0.25 * (left[6] - left[4]).item(), abs=1e-5)


def test_what_a_file_leaves_unsaid_is_guessed_by_size_and_said():
    ask = {"pixel_format": "yuv420p", "codec": "h264", "range_tag": 0, "matrix_tag": 2}
    assert color.resolve(**ask, width=720, height=576) == (
        "bt601", False, frozenset({"range", "matrix"}),
    )  # fmt: skip
    assert color.resolve(**ask, width=1920, height=1080)[0] == "bt709"
    told = ask | {"range_tag": 2, "matrix_tag": 9}
    assert color.resolve(**told, width=640, height=480) == ("bt2020", True, frozenset())
    assert color.resolve(**(ask | {"pixel_format": "yuvj420p"}), width=640, height=480)[1]


def test_formats_that_cannot_be_changed_in_place_are_refused():
    with pytest.raises(InputError, match="nv12"):
        color.layout(random_image(16, 16, "nv12", 0))
