import dataclasses
import itertools

import numpy as np
import pytest
import torch
from helpers.media import (
    PLANAR_FORMATS,
    frames_of,
    info_of,
    mild_image,
    plain_face,
    planes_of,
    random_image,
)
from helpers.pasting import paste
from helpers.standards import LUMA, luma, rgb_codes, ycc_codes

from vidrestore.common.errors import InputError
from vidrestore.imaging import color
from vidrestore.imaging.color_properties import Meaning, resolve
from vidrestore.imaging.geometry import Rect
from vidrestore.restoration.faces import FaceFrame
from vidrestore.restoration.statistics import RestorationStats

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
    middle = color.region_rgb(image, whole, info_of(16, 16, chroma_location="center"))[0, 8]
    # Sample j stands over luma column 2j, or between 2j and 2j + 1: a quarter of a step apart.
    assert left[4] - middle[4] == pytest.approx(0.25 * (left[6] - left[4]).item(), abs=1e-5)


# Where a chroma sample lies in its group, as shares of the way from the first pixel to the last.
LOCATIONS = {"left": (0, 0.5), "center": (0.5, 0.5), "topleft": (0, 0), "top": (0.5, 0),
             "bottomleft": (0, 1), "bottom": (0.5, 1)}  # fmt: skip
# Luma pixels per chroma sample, (x, y).
GRIDS = {"yuv420p16le": (2, 2), "yuv422p16le": (2, 1), "yuv440p12le": (1, 2), "yuv444p16le": (1, 1),
         "yuv411p": (4, 1), "yuv410p": (4, 4)}  # fmt: skip
PAINTED = [(0.7, 0.5, 0.3), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1.0, 0.0, 0.0), (0.1, 0.3, 0.9)]


def plane_of_chroma(x, y):
    """Cr of a ramp over luma pixels, which stays in range over 48 x 32."""
    return (2.0 * x + 1.0 * y - 60) / 224


def places(shape, grid, location):
    """Luma x, y of every chroma sample of a plane."""
    share = LOCATIONS[location]
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return (columns * grid[0] + share[0] * (grid[0] - 1), rows * grid[1] + share[1] * (grid[1] - 1))


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("pixel_format", GRIDS)
def test_chroma_is_read_from_where_it_lies(pixel_format, location):
    info = info_of(48, 32, pixel_format, chroma_location=location)
    image = random_image(48, 32, pixel_format, 0)
    step = 2 ** (image.format.components[0].bits - 8)
    color.plane(image, 0)[...] = 126 * step
    color.plane(image, 1)[...] = 128 * step
    cr = color.plane(image, 2)
    cr[...] = np.rint((plane_of_chroma(*places(cr.shape, GRIDS[pixel_format], location)) * 224
                       + 128) * step)  # fmt: skip
    red = color.region_rgb(image, Rect(0, 0, 48, 32), info)[0].numpy()
    got = (red - (126 - 16) / 219) / (2 * (1 - LUMA["bt709"][0])) * 224
    y, x = np.mgrid[:32, :48]
    inner = np.s_[4:-4, 4:-4]
    tolerance = 0.51 if step == 1 else 0.04
    np.testing.assert_allclose(got[inner], plane_of_chroma(x, y)[inner] * 224, atol=tolerance)


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("pixel_format", GRIDS)
def test_chroma_is_written_to_where_it_lies_and_a_ramp_survives(pixel_format, location):
    info = info_of(48, 32, pixel_format, chroma_location=location)
    image = mild_image(48, 32, pixel_format, 0)
    step = 2 ** (image.format.components[0].bits - 8)
    y, x = np.mgrid[:32, :48]
    kr, kb = LUMA["bt709"]
    red = 0.5 + 2 * (1 - kr) * plane_of_chroma(x, y)
    green = 0.5 - kr / (1 - kr - kb) * 2 * (1 - kr) * plane_of_chroma(x, y)
    rgb = torch.tensor(np.stack([red, green, np.full(red.shape, 0.5)]), dtype=torch.float32)
    assert rgb.min() > 0
    assert rgb.max() < 1
    color.blend_rgb(image, Rect(0, 0, 48, 32), rgb, torch.ones(1, 32, 48), info)
    cr = planes_of(image)[2] / step - 128
    wanted = plane_of_chroma(*places(cr.shape, GRIDS[pixel_format], location)) * 224
    grid = GRIDS[pixel_format]
    inner = np.s_[8 // grid[1] : -8 // grid[1], 8 // grid[0] : -8 // grid[0]]
    np.testing.assert_allclose(cr[inner], wanted[inner], atol=0.51 if step == 1 else 0.04)


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("pixel_format", GRIDS)
@pytest.mark.parametrize("size", [(48, 32), (47, 29)])
def test_a_constant_stays_constant_to_the_borders(pixel_format, location, size):
    width, height = size
    info = info_of(width, height, pixel_format, chroma_location=location)
    image = mild_image(width, height, pixel_format, 0)
    wanted = torch.tensor([0.7, 0.5, 0.3])[:, None, None].expand(3, height, width)
    color.blend_rgb(image, Rect(0, 0, width, height), wanted, torch.ones(1, height, width), info)
    codes = ycc_codes((0.7, 0.5, 0.3), "bt709", full=False, bits=image.format.components[0].bits)
    for part, code in zip(planes_of(image), codes, strict=True):
        assert np.abs(part - code).max() < 1


def painted(pixel_format, info, rgb):
    """The planes after a patch of `rgb` was pasted over the middle of random samples."""
    image = mild_image(64, 64, pixel_format, 7)
    face = plain_face(torch.full((3, 64, 64), -1.0))
    patch = torch.tensor(rgb, dtype=torch.float32)[:, None, None].expand(3, 64, 64).contiguous()
    faces = (dataclasses.replace(face, restored=patch),)
    (frame,) = paste(
        iter([FaceFrame(next(frames_of([image])), faces)]), info, RestorationStats(), strength=1.0
    )
    return planes_of(frame.image)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize(
    "pixel_format",
    ["yuv420p", "yuv422p", "yuv444p", "yuv411p", "yuva420p", "gbrp", "gbrap", "gray",
     "yuv420p10le", "yuv444p10le", "gbrp10le", "gray10le", "yuv420p12le", "yuv422p12le",
     "yuv444p16le", "gbrp16le", "gray16le"],
)  # fmt: skip
def test_a_pasted_patch_has_the_code_values_of_the_standards(pixel_format, matrix, full):
    info = info_of(64, 64, pixel_format, matrix=matrix, full_range=full)
    untouched = mild_image(64, 64, pixel_format, 7)
    bits = untouched.format.components[0].bits
    for rgb in PAINTED:
        planes = painted(pixel_format, info, rgb)
        if pixel_format.startswith("gbr"):
            codes = np.roll(rgb_codes(rgb, full=full, bits=bits), -1)
        else:
            grey = [luma(rgb, matrix)] * 3
            codes = ycc_codes(grey if "gray" in pixel_format else rgb, matrix, full=full, bits=bits)
        for part, code in zip(planes, codes, strict=False):
            rows, columns = (np.s_[size * 7 // 16 : size * 9 // 16] for size in part.shape)
            assert np.abs(part[rows, columns] - code).max() < 1
        if pixel_format in ("yuva420p", "gbrap"):
            np.testing.assert_array_equal(planes[3], planes_of(untouched)[3])


def test_what_a_file_leaves_unsaid_is_guessed_by_size_and_said():
    ask = {"pixel_format": "yuv420p", "codec": "h264", "tags": (0, 2, 2, 2)}
    assert resolve(**ask, width=720, height=576) == Meaning(
        "bt601", False, "sdr", "bt709", frozenset({"range", "matrix"})
    )
    assert resolve(**ask, width=1920, height=1080).matrix == "bt709"
    told = ask | {"tags": (2, 9, 9, 16)}
    assert resolve(**told, width=640, height=480) == Meaning(
        "bt2020", True, "pq", "bt2020", frozenset()
    )
    jpeg = resolve(**(ask | {"pixel_format": "yuvj420p"}), width=640, height=480)
    assert jpeg.full_range
    for name in ("gray10le", "gbrp", "rgb24", "bgr0", "0rgb", "argb", "abgr", "pal8", "x2rgb10le"):
        assert resolve(**(ask | {"pixel_format": name}), width=640, height=480).full_range


def test_formats_that_cannot_be_changed_in_place_are_refused():
    with pytest.raises(InputError, match="nv12"):
        color.layout(random_image(16, 16, "nv12", 0))


@pytest.mark.parametrize("matrix_tag", [8, 10, 14])
def test_colours_that_cannot_be_computed_are_refused(matrix_tag):
    ask = {"pixel_format": "yuv420p", "codec": "hevc", "width": 64, "height": 64}
    with pytest.raises(InputError, match=r"color matrix of this video, .* convert the video"):
        resolve(**ask, tags=(1, matrix_tag, 9, 16))


@pytest.mark.parametrize("location", ["left", "center", "topleft", "bottom"])
@pytest.mark.parametrize("grid", [(2, 2), (2, 1), (4, 1), (4, 4)])
@pytest.mark.parametrize("groups", [(1, 1), (7, 5)])
def test_chroma_goes_to_every_pixel_and_back_by_one_filter(location, grid, groups):
    info = info_of(64, 64, chroma_location=location)
    rect = Rect(0, 0, groups[0] * grid[0], groups[1] * grid[1])
    chroma = np.random.default_rng(0).random(groups[::-1], np.float32)
    there = color._upsampled(chroma, rect, grid, info)
    back = color._downsampled(there, grid, info)
    np.testing.assert_allclose(color._subsampled(chroma, rect, grid, info), back, atol=1e-6)
