"""One picture: upright by its tag, with all that its file carries, in every kind of file."""

import struct
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.events import messages
from helpers.media import OneFace, Painter
from helpers.scans import (
    RGB,
    changed_box,
    decoded,
    encoded,
    exif,
    planar_image,
    png_chunk,
    read,
    restored,
    samples,
)

from vidrestore.common.errors import InputError, OutputError
from vidrestore.common.profiles import load_settings
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.images import dpx, files, jpeg, kind_of, png, tiff
from vidrestore.media.images import exif as tags
from vidrestore.media.images.header import Metadata
from vidrestore.media.probe import probe

PROFILE = bytes(range(256)) * 300  # more than one segment of a JPEG holds


class Upright(OneFace):
    """Sees the face of `OneFace` only in a picture that is bright in the upper left corner."""

    def __call__(self, picture):
        found = super().__call__(picture)
        corners = [picture[:12, :12].mean(), picture[:12, -12:].mean(), picture[-12:, :12].mean()]
        return found if corners[0] > 200 > max(corners[1:]) else []


@pytest.fixture(autouse=True)
def a_face(monkeypatch):
    monkeypatch.setattr("vidrestore.models.factory.open_detector", lambda *a, **k: Upright())


def photo(
    kind: str, orientation: int = 1, *, carried: Metadata | None = None, order: str = "<"
) -> bytes:
    """A picture that is bright in a corner, stored turned as Exif says."""
    upright = np.full((120, 160, 3), 100, np.uint8)
    upright += np.random.default_rng(0).integers(0, 8, upright.shape, dtype=np.uint8)
    upright[:16, :16] = 250
    a, b, c, d = tags.orientation_matrix(orientation)
    stored = upright if a else upright.transpose(1, 0, 2)
    # Where a column or row of the stored picture leads the other way in the upright one.
    stored = stored[:, :: a or c][:: b or d]
    beside = carried or Metadata(PROFILE, exif(orientation, order))
    if kind == "jpeg":
        plain = cv2.imencode(".jpg", np.ascontiguousarray(stored[..., ::-1]))[1].tobytes()
        return jpeg.new_file(plain, beside)
    return {"png": png.new_file, "tiff": tiff.new_file}[kind](np.ascontiguousarray(stored), beside)


SUFFIX = {"jpeg": ".jpg", "png": ".png", "tiff": ".tif"}


@pytest.mark.parametrize("kind", SUFFIX)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_upright_for_the_detector_and_by_its_tag(tmp_path, kind, orientation):
    source, target = tmp_path / f"a{SUFFIX[kind]}", tmp_path / f"b{SUFFIX[kind]}"
    source.write_bytes(photo(kind, orientation))
    assert restored(source, target).faces == 1
    with files.open_picture(source) as was, files.open_picture(target) as now:
        assert files.read_metadata(now, kind) == files.read_metadata(was, kind)
    assert files.read_header(target).orientation == orientation
    shown = cv2.imread(str(target), cv2.IMREAD_COLOR)  # turned by its tag, but in TIFF
    if kind != "tiff":
        assert shown.shape == (120, 160, 3)
        assert shown[60, 80] / 255 == pytest.approx(RGB[::-1], abs=0.02)
        assert shown[:12, :12].mean() > 240


@pytest.mark.parametrize("target_kind", SUFFIX)
@pytest.mark.parametrize("kind", SUFFIX)
@pytest.mark.parametrize("order", ["<", ">"])
def test_profile_and_exif_go_into_another_kind_of_file(tmp_path, kind, target_kind, order):
    source, target = tmp_path / f"a{SUFFIX[kind]}", tmp_path / f"b{SUFFIX[target_kind]}"
    source.write_bytes(photo(kind, 6, order=order))
    told: list[dict] = []
    restored(source, target, on_event=told.append)
    with files.open_picture(target) as data:
        carried = files.read_metadata(data, target_kind)
    assert carried.icc == PROFILE
    found = tags.parse(carried.exif)
    assert found.orientation == 6
    assert found.first.entries[0x9285].raw == b"a note of another maker"
    said = messages(told)
    assert any("Exif data are kept" in message for message in said) == (kind != target_kind)
    assert any("which is lossy" in message for message in said) == (target_kind == "jpeg")
    before, after = decoded(source).astype(int), decoded(target).astype(int)
    corner = np.s_[-20:, :20]
    assert np.abs(before[corner] - after[corner]).mean() < (2 if target_kind == "jpeg" else 0.01)


def test_every_segment_of_a_jpeg_about_anything_but_its_coding_stays(tmp_path):
    source, target = tmp_path / "a.jpg", tmp_path / "b.jpg"
    beside = [(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"), (0xED, b"Photoshop 3.0\0"),
              (0xFE, b"a comment")]  # fmt: skip
    plain = photo("jpeg")
    added = b"".join(
        bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
        for marker, content in beside
    )
    source.write_bytes(plain[:2] + added + plain[2:])
    restored(source, target)
    assert target.read_bytes().startswith(b"\xff\xd8" + added)


def test_what_lies_behind_a_jpeg_is_left_out_and_said(tmp_path):
    source, target = tmp_path / "a.jpg", tmp_path / "b.jpg"
    plain, preview = photo("jpeg"), photo("jpeg")
    index = b"MPF\0II*\0"
    source.write_bytes(plain[:2] + b"\xff\xe2" + struct.pack(">H", len(index) + 2) + index
                       + plain[2:] + preview)  # fmt: skip
    summary = restored(source, target)
    assert any("further pictures in the same file" in warning for warning in summary.warnings)
    assert index not in target.read_bytes()


@pytest.mark.parametrize("pixel_format", ["yuvj420p", "yuvj422p", "yuvj444p", "gray"])
def test_a_jpeg_changes_little_outside_the_face(tmp_path, monkeypatch, pixel_format):
    monkeypatch.setattr("vidrestore.models.factory.open_detector", lambda *a, **k: OneFace())
    source, target = tmp_path / "a.jpg", tmp_path / "b.jpg"
    image = planar_image(pixel_format, 1)
    if pixel_format == "gray":
        plain = cv2.imencode(".jpg", np.asarray(image.to_ndarray()))[1].tobytes()
    else:
        plain = encoded("mjpeg", image)
    source.write_bytes(plain)
    summary = restored(source, target)
    assert summary.codec == "jpeg"
    assert summary.psnr_outside_db > 48
    sampling = [next(decode(path, DecodeErrors())).image.format.name for path in (source, target)]
    assert sampling[0] == sampling[1]
    coarser = restored(source, tmp_path / "c.jpg", **{"encode.quality": "small"})
    coarsest = restored(source, tmp_path / "d.jpg", **{"encode.quality": "31"})
    assert summary.psnr_outside_db > coarser.psnr_outside_db > coarsest.psnr_outside_db
    sizes = [(tmp_path / f"{name}.jpg").stat().st_size for name in "bcd"]
    assert sizes[0] > sizes[1] > sizes[2]
    with pytest.raises(OutputError, match=r"must be from 1 \(best\) to 31"):
        restored(source, tmp_path / "e.jpg", **{"encode.quality": "40"})
    with pytest.raises(OutputError, match=r"never lossless; name the output \.png"):
        restored(source, tmp_path / "e.jpg", **{"encode.quality": "archive"})


def in_another_form(picture: np.ndarray, how: str) -> bytes:
    """A TIFF file of 16 bits, big-endian, in planes, compressed by LZW, or with a predictor."""
    if how in ("lzw", "predictor"):
        options = {
            "lzw": [cv2.IMWRITE_TIFF_COMPRESSION, 5],
            "predictor": [cv2.IMWRITE_TIFF_COMPRESSION, 8, cv2.IMWRITE_TIFF_PREDICTOR, 2],
        }
        return cv2.imencode(".tif", picture[..., ::-1], options[how])[1].tobytes()
    found = tags.parse(tiff.new_file(picture, Metadata()))
    if how == "big-endian":
        found = tags.parse(tiff.new_file(picture, Metadata(exif=exif(1, ">"))))
        return tiff.replace_pixels(tiff.new_file(picture, Metadata(exif=exif(1, ">"))), picture)
    assert how == "planes"
    stored = picture.transpose(2, 0, 1).astype("<u2").tobytes()
    each = len(stored) // 3
    found.set(259, 1, short=True)
    found.set(284, 2, short=True)
    found.set(278, picture.shape[0])
    found.set(273, *(8 + i * each for i in range(3)))
    found.set(279, each, each, each)
    found.drop([317])
    at = 8 + len(stored)
    return tags.tiff_header("<", at) + stored + tags.pack_directory(found.first, "<", at)


@pytest.mark.parametrize("how", ["big-endian", "planes", "lzw", "predictor"])
def test_tiff_files_of_every_form_come_back_with_their_tags(tmp_path, monkeypatch, how):
    monkeypatch.setattr("vidrestore.models.factory.open_detector", lambda *a, **k: OneFace())
    source, target = tmp_path / "a.tif", tmp_path / "b.tif"
    picture = samples()
    data = in_another_form(picture, how)
    source.write_bytes(data)
    assert np.array_equal(decoded(source), picture)
    summary = restored(source, target)
    assert summary.identical_outside == 1
    x, y, width, height = changed_box(picture, read(target)[..., ::-1])
    assert 30 < x < x + width < 130
    assert 5 < y < y + height < 115
    storage = {259, 273, 278, 279, 284, 317}
    was, now = (tags.parse(each).first.entries for each in (data, target.read_bytes()))
    assert {k: v for k, v in was.items() if k not in storage} == {
        k: v for k, v in now.items() if k not in storage
    }
    assert target.read_bytes()[:4] == data[:4]
    assert any("compressed by Deflate" in each for each in summary.warnings) == (how == "lzw")


def test_every_other_chunk_of_a_png_stays(tmp_path):
    source, target = tmp_path / "a.png", tmp_path / "b.png"
    plain = photo("png")
    added = [png_chunk(b"gAMA", struct.pack(">I", 45455)), png_chunk(b"tEXt", b"Title\0A face")]
    source.write_bytes(plain[:33] + b"".join(added) + plain[33:])
    restored(source, target)
    assert target.read_bytes()[:33] == plain[:33]
    assert b"".join(added) in target.read_bytes()


def cmyk(path: Path) -> str:
    found = tags.parse(tiff.new_file(samples(4, 8), Metadata()))
    data = bytearray(tiff.new_file(samples(4, 8), Metadata()))
    assert found.values(262) == (2,)
    at = data.index(struct.pack("<HHIH", 262, 3, 1, 2))
    data[at + 8] = 5
    path.with_suffix(".tif").write_bytes(data)
    return "is neither RGB nor gray, 0 being black, of 8 or 16 bits"


def cmyk_jpeg(path: Path) -> str:
    data = bytearray(photo("jpeg"))
    at = data.index(b"\xff\xc0")
    data[at + 9] = 4
    path.with_suffix(".jpg").write_bytes(data)
    return "is neither a color nor a gray JPEG file of 8 bits"


def palette(path: Path) -> str:
    header = png_chunk(b"IHDR", struct.pack(">IIBB3x", 4, 4, 8, 3))
    path.with_suffix(".png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IEND", b""))
    return "has a palette or few bits"


def transparent_colour(path: Path) -> str:
    data = png.new_file(samples(3, 8), Metadata())
    path.with_suffix(".png").write_bytes(data[:33] + png_chunk(b"tRNS", bytes(6)) + data[33:])
    return "makes one of its colors transparent"


def animation(path: Path) -> str:
    data = png.new_file(samples(3, 8), Metadata())
    path.with_suffix(".png").write_bytes(data[:33] + png_chunk(b"acTL", bytes(8)) + data[33:])
    return "animated PNG"


def misnamed(path: Path) -> str:
    path.with_suffix(".jpg").write_bytes(photo("png"))
    return "is not a JPEG file, despite its suffix"


def two_pages(path: Path) -> str:
    data = bytearray(tiff.new_file(samples(), Metadata()))
    (at,) = struct.unpack("<I", data[4:8])
    count = struct.unpack("<H", data[at : at + 2])[0]
    data[at + 2 + 12 * count : at + 6 + 12 * count] = struct.pack("<I", at)
    path.with_suffix(".tif").write_bytes(data)
    return "holds more than one picture"


def packed_dpx(path: Path) -> str:
    data = bytearray(encoded("dpx", planar_image("gbrp10le", 1)))
    data[804:806] = bytes(2)
    path.with_suffix(".dpx").write_bytes(data)
    return "packs 3 channels of 10 bits in a way that vidrestore does not write"


@pytest.mark.parametrize(
    "kind",
    [cmyk, cmyk_jpeg, palette, transparent_colour, animation, misnamed, two_pages, packed_dpx],
)
def test_a_picture_that_could_not_be_written_again_is_refused_in_a_sentence(tmp_path, kind):
    sentence = kind(tmp_path / "a")
    (source,) = tmp_path.iterdir()
    with pytest.raises(InputError, match=sentence) as refused:
        restored(source, tmp_path / f"b{source.suffix}", Painter())
    assert str(refused.value).startswith(str(source))
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


@pytest.mark.parametrize("kind", [jpeg, png, tiff, dpx])
def test_no_bytes_break_a_reader(tmp_path, kind):
    made = {"jpeg": photo("jpeg"), "png": photo("png"), "tiff": photo("tiff"),
            "dpx": encoded("dpx", planar_image("gbrp10le", 1))}  # fmt: skip
    name = kind.__name__.rpartition(".")[2]
    path = tmp_path / {"jpeg": "a.jpg", "png": "a.png", "tiff": "a.tif", "dpx": "a.dpx"}[name]
    assert kind_of(path) == name
    random, data = np.random.default_rng(1), made[name]
    for _ in range(150):
        harmed = bytearray(data[: random.integers(1, len(data))])
        for at in random.integers(0, min(len(harmed), 3000), 4):
            harmed[at] = random.integers(0, 256)
        path.write_bytes(harmed)
        with suppress(InputError):
            files.read_header(path)


def test_a_still_is_probed_as_one_frame(tmp_path):
    source = tmp_path / "a.jpg"
    source.write_bytes(photo("jpeg", 6))
    info = probe(source, load_settings()).info
    assert (info.width, info.height, info.frame_count_from_header) == (120, 160, 1)
    assert info.display_orientation == tags.orientation_matrix(6)
