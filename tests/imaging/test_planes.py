"""Packed pictures taken apart: every sample at its place with its value."""

from fractions import Fraction
from itertools import product

import av
import numpy as np
import pytest
import torch
from helpers.media import PLANAR_FORMATS, planes_of, random_image, write_video

from vidrestore.common.errors import InputError
from vidrestore.imaging import planes
from vidrestore.imaging.geometry import Rect
from vidrestore.imaging.planes import add, layout, planar_format, samples, to_planar

# Pixels in one plane: planar format, dtype of a word, which word each plane takes, as letters.
PIXELS = {
    "vyu444": ("yuv444p", "u1", "vyu", "yuv"),
    "vuyx": ("yuv444p", "u1", "vuyx", "yuv"),
    "vuya": ("yuva444p", "u1", "vuya", "yuva"),
    "ayuv": ("yuva444p", "u1", "ayuv", "yuva"),
    "uyva": ("yuva444p", "u1", "uyva", "yuva"),
    "xv48le": ("yuv444p16le", "<u2", "uyvx", "yuv"),
}
for rgb in ("rgb", "bgr"):
    PIXELS[f"{rgb}24"] = ("gbrp", "u1", rgb, "gbr")
    for packed in (f"{rgb}0", f"0{rgb}"):
        PIXELS[packed] = ("gbrp", "u1", packed, "gbr")
    for packed in (f"{rgb}a", f"a{rgb}"):
        PIXELS[packed] = ("gbrap", "u1", packed, "gbra")
    for end, word in (("le", "<u2"), ("be", ">u2")):
        PIXELS[f"{rgb}48{end}"] = ("gbrp16le", word, rgb, "gbr")
        PIXELS[f"{rgb}a64{end}"] = ("gbrap16le", word, f"{rgb}a", "gbra")

# Three samples of 10 bits in a word: the lowest bit of each plane's.
FIELDS = {
    "x2rgb10le": ("gbrp10le", (10, 0, 20)),
    "x2bgr10le": ("gbrp10le", (10, 20, 0)),
    "xv30le": ("yuv444p10le", (10, 0, 20)),
    "v30xle": ("yuv444p10le", (12, 2, 22)),
}
# Two pixels in four words; samples are at the top of a word.
PAIRS = {
    "yuyv422": ("yuv422p", "u1", 8, "yuzv"),
    "uyvy422": ("yuv422p", "u1", 8, "uyvz"),
    "yvyu422": ("yuv422p", "u1", 8, "yvzu"),
    "y210le": ("yuv422p10le", "<u2", 10, "yuzv"),
    "y212le": ("yuv422p12le", "<u2", 12, "yuzv"),
    "y216le": ("yuv422p16le", "<u2", 16, "yuzv"),
}
# Luma in one plane, pairs of chroma samples in another; in words of 16 bits, at the top.
PAIRED_CHROMA = {"nv12": "yuv420p", "nv21": "yuv420p", "nv16": "yuv422p", "nv24": "yuv444p",
                 "nv42": "yuv444p"}  # fmt: skip
for (code, grid), bits, end in product(
    (("0", "420"), ("2", "422"), ("4", "444")), ("10", "12", "16"), ("le", "be")
):
    PAIRED_CHROMA[f"p{code}{bits}{end}"] = f"yuv{grid}p{bits}le"

# Grey with alpha, as luma and alpha of full range beside chroma that is none.
GREY = {"ya8": ("yuva444p", "u1"), "ya16le": ("yuva444p16le", "<u2"),
        "ya16be": ("yuva444p16le", ">u2")}  # fmt: skip

BIG_ENDIAN = ("gray10be", "gray16be", "yuv420p10be", "yuv422p12be", "yuv444p16be", "yuva420p10be",
              "gbrp10be", "gbrp16be", "gbrap12be")  # fmt: skip

SIZES = ((64, 16), (33, 7), (258, 34))


def rows(image, index, dtype):
    """All words of a plane, the padding at the ends of rows with them."""
    return np.frombuffer(image.planes[index], dtype).reshape(image.planes[index].height, -1)


def randomized(name, size, dtype="u1", mask=None):
    """A frame of random words, limited to the bits of `mask`."""
    image = av.VideoFrame(*size, name)
    random = np.random.default_rng(len(name) + sum(size))
    for index, part in enumerate(image.planes):
        words = random.integers(0, 256, part.buffer_size, np.uint8).view(dtype)
        if mask is not None:
            words = (words & np.array(mask, dtype)).astype(dtype)
        part.update(words.tobytes())
        assert (rows(image, index, dtype).ravel() == words).all()
    return image


def assert_planes(image, target, expected):
    assert planar_format(image.format.name) == target
    for color_range in (0, 1, 2):
        image.color_range = color_range
        copy = to_planar(image)
        assert copy.format.name == target
        for got, wanted in zip(planes_of(copy), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PIXELS)
def test_pixels_of_whole_words_are_taken_apart(name, size):
    target, word, order, letters = PIXELS[name]
    image = randomized(name, size, word)
    pixels = rows(image, 0, word)[:, : size[0] * len(order)].reshape(size[1], size[0], len(order))
    assert_planes(image, target, [pixels[..., order.index(letter)] for letter in letters])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", FIELDS)
def test_pixels_of_three_samples_in_a_word_are_taken_apart(name, size):
    target, lowest = FIELDS[name]
    image = randomized(name, size)
    words = rows(image, 0, "<u4")[:, : size[0]]
    assert_planes(image, target, [words >> bit & 1023 for bit in lowest])


def test_packed_12_bit_444_is_taken_apart():
    image = randomized("xv36le", (33, 7), "<u2")
    words = rows(image, 0, "<u2")[:, : 33 * 4].reshape(7, 33, 4) >> 4
    assert_planes(image, "yuv444p12le", [words[..., 1], words[..., 0], words[..., 2]])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAIRS)
def test_pixels_that_share_their_chroma_are_taken_apart(name, size):
    target, word, bits, order = PAIRS[name]
    image = randomized(name, size, word)
    across = -(-size[0] // 2)
    words = rows(image, 0, word)[:, : across * 4].reshape(size[1], across, 4)
    y, u, z, v = (words[..., order.index(x)] >> 8 * words.itemsize - bits for x in "yuzv")
    luma = np.stack([y, z], axis=-1).reshape(size[1], -1)[:, : size[0]]
    assert_planes(image, target, [luma, u, v])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", [*PAIRED_CHROMA, "nv20le", "nv20be"])
def test_chroma_in_pairs_is_taken_apart(name, size):
    target = PAIRED_CHROMA.get(name, "yuv422p10le")
    word = "u1" if name[2:] in ("12", "21", "16", "24", "42") else ">u2" if "be" in name else "<u2"
    bits = av.VideoFormat(target).components[0].bits
    up = 0 if name.startswith("nv") else 16 - bits
    image = randomized(name, size, word, ((1 << bits) - 1) << up)
    height, width = planes_of(av.VideoFrame(*size, target))[1].shape
    pairs = rows(image, 1, word)[:, : 2 * width].reshape(height, width, 2) >> up
    first, second = (1, 0) if name in ("nv21", "nv42") else (0, 1)
    luma = rows(image, 0, word)[:, : size[0]] >> up
    assert_planes(image, target, [luma, pairs[..., first], pairs[..., second]])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", BIG_ENDIAN)
def test_big_endian_samples_are_turned_round(name, size):
    target = name.replace("be", "le")
    bits = av.VideoFormat(name).components[0].bits
    image = randomized(name, size, ">u2", (1 << bits) - 1)
    widths = [part.shape[1] for part in planes_of(av.VideoFrame(*size, target))]
    assert_planes(image, target, [rows(image, i, ">u2")[:, :w] for i, w in enumerate(widths)])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", GREY)
def test_grey_with_alpha_is_taken_apart(name, size):
    target, word = GREY[name]
    image = randomized(name, size, word)
    grey, alpha = np.moveaxis(rows(image, 0, word)[:, : 2 * size[0]].reshape(size[1], -1, 2), -1, 0)
    none = np.full_like(grey, 2 ** (8 * grey.dtype.itemsize - 1))
    assert_planes(image, target, [grey, none, none, alpha])
    assert to_planar(image).color_range == 2


def test_every_packed_format_has_its_test():
    tested = {*PIXELS, *FIELDS, "xv36le", *PAIRS, *PAIRED_CHROMA, "nv20le", "nv20be", "pal8", *GREY}
    assert tested == set(" ".join(planes._UNPACKED.values()).split())


def palette_image(alpha):
    random = np.random.default_rng(0)
    index = random.integers(0, 256, (7, 33), np.uint8)
    palette = random.integers(0, 256, (256, 4), np.uint8)
    palette[:, 0] = alpha
    return av.VideoFrame.from_ndarray((index, palette), "pal8"), index, palette


@pytest.mark.parametrize("alpha", [255, 0])
def test_a_palette_is_looked_up(alpha):
    image, index, palette = palette_image(alpha)
    _, red, green, blue = np.moveaxis(palette[index], -1, 0)
    assert_planes(image, "gbrp", [green, blue, red])


def test_a_palette_with_transparent_colours_is_refused():
    image, _, _ = palette_image(np.arange(256) % 2 * 255)
    with pytest.raises(InputError, match="transparent"):
        to_planar(image)


@pytest.mark.parametrize("name", PLANAR_FORMATS)
def test_a_planar_frame_is_handed_on_as_it_is(name):
    image = random_image(33, 7, name, 0)
    assert to_planar(image) is image


@pytest.mark.parametrize(
    "name",
    ["gbrpf32le", "gbrpf32be", "grayf32le", "grayf16be", "monow", "monob", "xyz12le", "rgb8",
     "rgb565le", "gbrp10msble", "yuv444p12msbbe", "gray32le", "bayer_rggb8", "cuda"],
)  # fmt: skip
def test_other_formats_are_refused(name):
    assert planar_format(name) is None
    if name not in ("cuda", "gbrp10msble", "yuv444p12msbbe", "gray32le"):
        image = av.VideoFrame(32, 8, name)
        for refused in (to_planar, layout):
            with pytest.raises(InputError, match=f"does not support the pixel format {name} "):
                refused(image)


def test_what_a_frame_says_of_itself_comes_along(tmp_path):
    def turned_and_interlaced(stream):
        stream.codec_context.flags |= 1 << 18 | 1 << 29  # interlaced DCT and motion
        stream.set_display_matrix([0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30])

    source = write_video(tmp_path / "source.mp4", [random_image(64, 48, "yuv420p", 0)],
                         codec="mpeg4", prepare=turned_and_interlaced)  # fmt: skip
    with av.open(str(source)) as container:
        decoded = next(container.decode(video=0))
    assert decoded.interlaced_frame
    image = decoded.reformat(format="nv12")
    image.pts, image.time_base, image.duration = 7, Fraction(1, 50), 3
    tags = {"color_range": 1, "colorspace": 5, "color_primaries": 9, "color_trc": 16}
    for tag, value in tags.items():
        setattr(image, tag, value)
    copy = to_planar(image)
    assert (copy.pts, copy.time_base, copy.duration) == (7, Fraction(1, 50), 3)
    assert {tag: getattr(copy, tag) for tag in tags} == tags
    assert copy.interlaced_frame
    matrix = bytes(copy.side_data.get("DISPLAYMATRIX"))
    assert matrix == bytes(decoded.side_data.get("DISPLAYMATRIX"))


@pytest.mark.parametrize(("name", "packed"), [("gbrp", "bgr0"), ("gbrap", "bgra")])
def test_rgb_survives_the_packing_that_ffv1_wants(name, packed):
    image = random_image(33, 7, name, 1)
    again = to_planar(image.reformat(format=packed))
    for was, now in zip(planes_of(image), planes_of(again), strict=True):
        np.testing.assert_array_equal(was, now)


def test_a_change_is_rounded_by_itself_and_cut_at_the_ends():
    image = av.VideoFrame(4, 2, "gray10le")
    rect = Rect(0, 0, 4, 1)
    add(image, 0, rect, -samples(image, 0, rect), 10)
    add(image, 0, rect, torch.tensor([[3.4, 1022.6, 2000.0, -5.0]]), 10)
    assert samples(image, 0, rect).tolist() == [[3, 1023, 1023, 0]]
    add(image, 0, rect, torch.tensor([[0.4, -0.6, -0.4, 0.6]]), 10)
    assert samples(image, 0, rect).tolist() == [[3, 1022, 1023, 1]]
