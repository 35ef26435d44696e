"""`--scale` of stills and numbered pictures: larger, with all that their files say about size."""

import struct
from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pytest
from helpers.media import OneFace
from helpers.onnx_networks import repeating
from helpers.scans import (
    RGB,
    Breaks,
    OneFaceInBright,
    contents,
    decoded,
    encoded,
    planar_image,
    png_chunk,
    read,
    restored,
    samples,
    write_scans,
)

from vidrestore.cli import main
from vidrestore.common.errors import OutputError, UsageError
from vidrestore.imaging.planes import halves_of_codes
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.images import exif as tags
from vidrestore.media.images import exr, files, jpeg, png, tiff
from vidrestore.media.images.header import Metadata

LARGER = {"scale.factor": 2}
# Around the face of `OneFace`, in a picture of twice the size.
FACE = np.s_[10:230, 60:260]


@pytest.fixture(autouse=True)
def a_face(monkeypatch):
    monkeypatch.setattr(
        "vidrestore.models.factory.open_detector", lambda *a, **k: OneFaceInBright()
    )


@pytest.fixture
def out(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def enlarged(values: np.ndarray, factor: int = 2) -> np.ndarray:
    """(rows, columns, channels) by the formula of Lanczos-3."""
    for axis in (0, 1):
        length = values.shape[axis]
        places = (np.arange(factor * length) + 0.5) / factor - 0.5
        taps = np.arange(-3, 4) + np.round(places).astype(int)[:, None]
        x = places[:, None] - taps
        weights = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
        weights /= weights.sum(axis=1, keepdims=True)
        moved = np.moveaxis(values.astype(np.float64), axis, -1)
        found = (moved[..., taps.clip(0, length - 1)] * weights).sum(axis=-1)
        values = np.moveaxis(found, -1, axis)
    return values


def outside(picture: np.ndarray) -> np.ndarray:
    """The picture with the part around the face made black."""
    apart = picture.astype(np.float64)
    apart[FACE] = 0
    return apart


KINDS = [(".png", 1, 8), (".png", 2, 16), (".png", 3, 8), (".png", 4, 16), (".tif", 1, 16),
         (".tif", 2, 8), (".tif", 3, 16), (".tif", 4, 8)]  # fmt: skip


@pytest.mark.parametrize(("suffix", "channels", "bits"), KINDS)
def test_a_still_is_enlarged_in_all_its_channels_and_bits(tmp_path, out, suffix, channels, bits):
    source, target = tmp_path / f"a{suffix}", out / f"b{suffix}"
    before = samples(channels, bits)
    made = tiff.new_file if suffix == ".tif" else png.new_file
    source.write_bytes(made(before, Metadata()))
    summary = restored(source, target, **LARGER)
    assert (summary.faces, summary.identical_outside, summary.enlarged) == (1, 1, 2)
    header = files.read_header(target)
    assert (header.width, header.height, header.bits) == (320, 240, bits)
    assert header.channels == channels
    after, most = decoded(target), 2**bits - 1
    off = np.abs(outside(enlarged(before).clip(0, most)) - outside(after))
    assert off.max() < 0.5 + most * 1e-4
    luma = 0.299 * RGB[0] + 0.587 * RGB[1] + 0.114 * RGB[2]
    wanted = RGB if channels > 2 else [luma]
    assert after[120, 160, : len(wanted)] / most == pytest.approx(wanted, abs=0.03)
    if channels in (2, 4):
        np.testing.assert_allclose(after[..., -1], enlarged(before)[..., -1].clip(0, most), atol=8)
    shown = read(target)
    assert shown.shape[:2] == (240, 320)


def rational(order: str, *values: int) -> tags.Entry:
    return tags.Entry(5, 1, struct.pack(f"{order}II", *values))


def described(order: str) -> bytes:
    """Exif data of a picture of 160 x 120 pixels, with a note that must not move."""
    found = tags.Tags(order, tags.Directory(), False)
    found.set(256, 160, short=True)
    found.set(257, 120)
    found.set(274, 1, short=True)
    found.first.entries[282] = rational(order, 300, 1)
    found.first.entries[283] = rational(order, 600, 2)
    below = tags.Tags(order, tags.Directory(), False)
    below.set(0xA002, 40_000, short=True)
    below.set(0xA003, 120, short=True)
    below.set(0x9214, 80, 60, 30, 40, short=True)
    below.first.entries[0xA20E] = rational(order, 4_000_000_000, 3)
    below.set_bytes(0x927C, b"a note of the maker, which counts from the start" * 3)
    found.set(34665, 0)
    found.first.below[34665] = below.first
    return tags.exif_bytes(found)


def read_exif(exif: bytes) -> dict[int, object]:
    found = tags.parse(exif)
    numbers: dict[int, object] = {}
    for directory in (found.first, found.first.below[34665]):
        for tag, entry in directory.entries.items():
            if entry.kind == 5:
                numbers[tag] = struct.unpack(f"{found.order}II", entry.raw)
            elif entry.kind in (3, 4) and tag != 34665:
                letter = {3: "H", 4: "I"}[entry.kind]
                numbers[tag] = struct.unpack(f"{found.order}{entry.count}{letter}", entry.raw)
    return numbers


LARGER_EXIF = {
    256: (320,), 257: (240,), 274: (1,), 282: (600, 1), 283: (600, 1), 0xA002: (80_000,),
    0xA003: (240,), 0x9214: (160, 120, 60, 80), 0xA20E: (0xFFFFFFFF, 3),
}  # fmt: skip


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("target_suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_exif_data_states_the_new_size_and_notes_of_makers_stay(
    tmp_path, out, suffix, target_suffix, order
):
    source, target = tmp_path / f"a{suffix}", out / f"b{target_suffix}"
    beside = Metadata(exif=described(order))
    if suffix == ".png":
        source.write_bytes(png.new_file(samples(bits=8), beside))
    else:
        plain = cv2.imencode(".jpg", samples(bits=8))[1].tobytes()
        source.write_bytes(jpeg.new_file(plain, beside))
    restored(source, target, **LARGER)
    kind = {".jpg": "jpeg", ".png": "png", ".tif": "tiff"}[target_suffix]
    with files.open_picture(target) as data:
        exif = files.read_metadata(data, kind).exif
    numbers = read_exif(exif)
    if kind == "tiff":  # has the size in tags of its own
        assert numbers == {tag: n for tag, n in LARGER_EXIF.items() if tag not in (256, 257)}
        return
    assert numbers == LARGER_EXIF
    if suffix == target_suffix:
        note = b"a note of the maker"
        assert exif.index(note) == described(order).index(note)
        assert len(exif) == len(described(order))


@pytest.mark.parametrize("length", range(0, 250, 7))
def test_damaged_exif_data_stays_as_it_is(length):
    damaged = described("<")[:length]
    assert png.enlarged_exif(damaged, 2) == damaged


@pytest.mark.parametrize(
    ("unit", "density", "wanted"),
    [(1, (300, 300), (600, 600)), (2, (118, 59), (236, 118)), (0, (2, 1), (2, 1)),
     (1, (40_000, 300), (65_535, 600))],
)  # fmt: skip
def test_the_density_of_a_jpeg_keeps_its_physical_size(tmp_path, out, unit, density, wanted):
    source, target = tmp_path / "a.jpg", out / "b.jpg"
    data = bytearray(cv2.imencode(".jpg", samples(bits=8))[1].tobytes())
    data[13:18] = struct.pack(">BHH", unit, *density)
    source.write_bytes(data)
    summary = restored(source, target, **LARGER)
    assert summary.psnr_outside_db > 40
    found = target.read_bytes()
    assert struct.unpack(">BHH", found[13:18]) == (unit, *wanted)
    shown = cv2.imread(str(target))
    assert shown.shape == (240, 320, 3)
    assert shown[120, 160] / 255 == pytest.approx(RGB[::-1], abs=0.03)


@pytest.mark.parametrize("pixel_format", ["yuvj420p", "yuvj422p", "yuvj444p", "gray"])
def test_a_jpeg_keeps_its_subsampling(tmp_path, out, pixel_format):
    source, target = tmp_path / "a.jpg", out / "b.jpg"
    image = planar_image(pixel_format, 1)
    if pixel_format == "gray":
        plain = cv2.imencode(".jpg", np.asarray(image.to_ndarray()))[1].tobytes()
    else:
        plain = encoded("mjpeg", image)
    source.write_bytes(plain)
    assert restored(source, target, **LARGER).psnr_outside_db > 45
    now = next(decode(target, DecodeErrors())).image
    assert (now.format.name, now.width, now.height) == (pixel_format, 320, 240)


@pytest.mark.parametrize(("unit", "wanted"), [(1, (5906, 11812)), (0, (2953, 5906))])
def test_the_resolution_of_a_png_keeps_its_physical_size(tmp_path, out, unit, wanted):
    source = tmp_path / "a.png"
    data = png.new_file(samples(), Metadata())
    physical = png_chunk(b"pHYs", struct.pack(">IIB", 2953, 5906, unit))
    text = png_chunk(b"tEXt", b"Title\0A face")
    source.write_bytes(data[:33] + physical + text + data[33:])
    restored(source, out / "b.png", **LARGER)
    found = (out / "b.png").read_bytes()
    assert png_chunk(b"pHYs", struct.pack(">IIB", *wanted, unit)) in found
    assert text in found


def test_a_tiff_keeps_its_physical_size_and_its_other_tags(tmp_path, out):
    found = tags.parse(tiff.new_file(samples(), Metadata(exif=described(">"))))
    found.set_bytes(40_000, b"a tag of a program")
    (tmp_path / "a.tif").write_bytes(tiff._file(found, samples(), 1, 1))
    restored(tmp_path / "a.tif", out / "b.tif", **LARGER)
    data = (out / "b.tif").read_bytes()
    now = tags.parse(data)
    assert now.order == ">"
    assert now.first.entries[282] == rational(">", 600, 1)
    assert now.first.entries[40_000].raw == b"a tag of a program"
    assert now.values(259) == (1,)
    assert len(data) > 320 * 240 * 6
    assert read(out / "b.tif").shape == (240, 320, 3)


DPX = ["gbrp10le", "gbrp10be", "gbrp12le", "rgb48le", "rgb24", "gray", "gray16le"]


@pytest.mark.parametrize("pixel_format", DPX)
def test_the_header_of_a_dpx_states_the_new_size(tmp_path, out, pixel_format):
    planar = {"rgb48le": "gbrp16le", "rgb24": "gbrp"}.get(pixel_format, pixel_format)
    image = planar_image(planar.replace("be", "le"), 3)
    data = bytearray(encoded("dpx", image.reformat(format=pixel_format)))
    order = ">" if data[:4] == b"SDPX" else "<"
    undefined = b"\xff" * 4
    data[1408:1432] = (
        struct.pack(f"{order}II", 10, 20)
        + struct.pack(f"{order}f", 80.5)
        + (undefined + struct.pack(f"{order}I", 180) + undefined)
    )
    data[1620:1628] = struct.pack(f"{order}4H", 1, 2, 0xFFFF, 4)
    data[1636:1644] = struct.pack(f"{order}ff", 21.95, 16.0)
    source, target = tmp_path / "a.dpx", out / "b.dpx"
    source.write_bytes(bytes(data) + b"behind the pixels")
    summary = restored(source, target, **LARGER)
    assert (summary.faces, summary.identical_outside, summary.codec) == (1, 1, "dpx")
    now = target.read_bytes()
    assert struct.unpack(f"{order}I", now[16:20]) == (len(now),)
    assert struct.unpack(f"{order}II", now[772:780]) == (320, 240)
    assert struct.unpack(f"{order}IIf", now[1408:1420]) == (20, 40, 161.0)
    assert now[1420:1424] == now[1428:1432] == undefined
    assert struct.unpack(f"{order}I", now[1424:1428]) == (360,)
    assert struct.unpack(f"{order}4H", now[1620:1628]) == (2, 4, 0xFFFF, 8)
    assert now[1628:1664] == data[1628:1664]
    assert now.endswith(b"behind the pixels")
    changed = {i for i in range(1664) if now[i] != data[i]}
    fields = [range(16, 20), range(772, 780), range(1408, 1432), range(1620, 1628)]
    assert all(any(i in field for field in fields) for i in changed)


class OneFaceInLight(OneFace):
    """A detector that sees the same face in every picture that is not dark."""

    def __call__(self, picture):
        return super().__call__(picture) if picture.mean() > 30 else []


def write_exr(path: Path, halves: np.ndarray, *, tile_px: int | None = None, more=(), **header):
    header = {"compression": OpenEXR.PIZ_COMPRESSION, **header}
    header["type"] = OpenEXR.tiledimage if tile_px else OpenEXR.scanlineimage
    if tile_px:
        header["tiles"] = OpenEXR.TileDescription()
        header["tiles"].xSize = header["tiles"].ySize = tile_px
    names = "RGBA"[: halves.shape[2]]
    channels = {name: np.ascontiguousarray(halves[..., i]) for i, name in enumerate(names)}
    OpenEXR.File(header, channels | dict(more)).write(str(path))
    return path


def part_of(path: Path):
    return OpenEXR.File(str(path), separate_channels=True).parts[0]


@pytest.mark.parametrize("tile_px", [None, 32])
@pytest.mark.parametrize("channels", [3, 4])
def test_openexr_is_enlarged_in_light(tmp_path, out, monkeypatch, tile_px, channels):
    monkeypatch.setattr("vidrestore.models.factory.open_detector", lambda *a, **k: OneFaceInLight())
    random = np.random.default_rng(2)
    picture = random.uniform(0.1, 0.5, (120, 160, channels))
    picture[:, :10] = random.uniform(-0.02, 30, (120, 10, channels))
    picture[:10] = 0
    halves = picture.astype(np.float16)
    depth = random.uniform(1, 9, (120, 160)).astype(np.float32)
    names = random.integers(0, 99, (120, 160)).astype(np.uint32)
    more = {"Z": depth, "id": names, "GB": depth.astype(np.float16)}
    source = write_exr(tmp_path / "a.exr", halves, tile_px=tile_px, more=more, owner="archive",
                       xDensity=300.0, pixelAspectRatio=2.0)  # fmt: skip
    target, said = out / "b.exr", []
    summary = restored(source, target, **LARGER, on_event=said.append)
    assert (summary.faces, summary.identical_outside) == (1, 1)
    assert any("repeating their values" in str(event) for event in said)
    part, was = part_of(target), part_of(source)
    values = np.dstack([part.channels[name].pixels for name in "RGBA"[:channels]])
    wanted = enlarged(halves.astype(np.float64))
    np.testing.assert_allclose(outside(values), outside(wanted), rtol=2e-3, atol=2e-3)
    assert not (values[:14] != 0).any()
    assert not np.signbit(values[:14]).any()
    for name, given in more.items():
        repeated = given.repeat(2, axis=0).repeat(2, axis=1)
        np.testing.assert_array_equal(part.channels[name].pixels, repeated)
    assert [list(edge) for edge in part.header["dataWindow"]] == [[0, 0], [319, 239]]
    assert [list(edge) for edge in part.header["displayWindow"]] == [[0, 0], [319, 239]]
    assert part.header["xDensity"] == 600
    for name in ("owner", "pixelAspectRatio", "compression", "type"):
        assert part.header[name] == was.header[name]


def test_light_that_is_no_number_does_no_harm_to_openexr(tmp_path, out, monkeypatch):
    monkeypatch.setattr("vidrestore.models.factory.open_detector", lambda *a, **k: OneFaceInLight())
    picture = np.full((120, 160, 3), 0.25, np.float16)
    picture[5, 5], picture[5, 150], picture[110, 5] = np.nan, np.inf, -np.inf
    source = write_exr(tmp_path / "a.exr", picture)
    summary = restored(source, out / "b.exr", **LARGER)
    assert summary.identical_outside == 1
    values = np.dstack([part_of(out / "b.exr").channels[name].pixels for name in "RGB"])
    assert np.isfinite(values).all()
    apart = values.copy()
    for row, column in ((5, 5), (5, 150), (110, 5)):
        apart[2 * row - 6 : 2 * row + 8, 2 * column - 6 : 2 * column + 8] = 0.25
    apart[FACE] = 0.25
    assert (apart == 0.25).all()


def test_openexr_does_not_go_through_a_network(tmp_path, out):
    source = write_exr(tmp_path / "a.exr", np.full((120, 160, 3), 0.25, np.float16))
    network = repeating(tmp_path / "x2.onnx", 2)
    with pytest.raises(UsageError, match="--upscaler cannot be combined with OpenEXR"):
        restored(source, out / "b.exr", **LARGER, **{"scale.upscaler": str(network)})
    assert not list(out.iterdir())


def test_other_pictures_go_through_a_network(tmp_path, out):
    source = tmp_path / "a.png"
    before = samples(bits=8)
    source.write_bytes(png.new_file(before, Metadata()))
    network = repeating(tmp_path / "x2.onnx", 2)
    restored(source, out / "b.png", **LARGER, **{"scale.upscaler": str(network)})
    repeated = before.repeat(2, axis=0).repeat(2, axis=1)
    off = np.abs(outside(repeated) - outside(decoded(out / "b.png")))
    assert off.max() <= 2


@pytest.mark.parametrize("orientation", [3, 6, 7])
def test_a_turned_picture_stays_turned(tmp_path, out, orientation):
    source, target = tmp_path / "a.tif", out / "b.tif"
    found = tags.parse(tiff.new_file(samples(), Metadata()))
    found.set(274, orientation, short=True)
    upright = samples()
    stored = upright if tags.orientation_matrix(orientation)[0] else upright.transpose(1, 0, 2)
    found.set(256, stored.shape[1])
    found.set(257, stored.shape[0])
    source.write_bytes(tiff._file(found, np.ascontiguousarray(stored), 8, 2))
    assert restored(source, target, **LARGER).identical_outside == 1
    header = files.read_header(target)
    assert header.orientation == orientation
    assert (header.height, header.width) == (2 * stored.shape[0], 2 * stored.shape[1])


NUMBERS = range(7, 79)


@pytest.mark.long
def test_a_sequence_is_the_same_in_segments_and_after_a_crash(tmp_path, out):
    dark = range(40, 44)
    source = write_scans(tmp_path / "in", NUMBERS, bits=8, dark=dark)
    summary = restored(source, out / "a_%06d.tif", Breaks(), **LARGER)
    assert summary.frames == summary.identical_outside == len(NUMBERS)
    assert summary.identical_frames == len(dark)
    whole = contents(out)
    assert len(whole) == len(NUMBERS)
    for number in dark:
        shown = read(out / f"a_{number:06d}.tif")[..., ::-1]
        was = read(tmp_path / "in" / f"scan_{number:06d}.tif")[..., ::-1]
        assert np.abs(shown - enlarged(was).clip(0, 255)).max() < 0.6
    for path in out.iterdir():
        path.unlink()
    short = LARGER | {"job.segment_frames": 48}
    with pytest.raises(OutputError, match="a defect"):
        restored(source, out / "a_%06d.tif", Breaks(at=56), **short)
    assert [path.name for path in out.iterdir()] == ["a_%06d.tif.vidrestore"]
    again = Breaks()
    restored(source, out / "a_%06d.tif", again, **short)
    assert again.faces < len(NUMBERS) - 20
    assert contents(out) == whole


def test_what_the_xmp_data_says_of_the_size_is_told(tmp_path, out):
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x exif:PixelXDimension='160'/>"
    plain = cv2.imencode(".jpg", samples(bits=8))[1].tobytes()
    segment = b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp
    (tmp_path / "a.jpg").write_bytes(plain[:2] + segment + plain[2:])
    sentence = "the XMP data in the pictures still states the size of the source"
    assert sentence in restored(tmp_path / "a.jpg", out / "b.jpg", **LARGER).warnings
    assert sentence not in restored(tmp_path / "a.jpg", out / "c.jpg").warnings


def test_what_a_jpeg_cannot_hold_is_said_before_the_work(tmp_path, out):
    (tmp_path / "a.png").write_bytes(png.new_file(np.zeros((2, 20_000, 3), np.uint8), Metadata()))
    with pytest.raises(OutputError, match="cannot have a side of 80000 pixels, only of 65500"):
        restored(tmp_path / "a.png", out / "b.jpg", **{"scale.factor": 4})
    assert not list(out.iterdir())


def test_one_picture_takes_the_memory_of_one(tmp_path, out, monkeypatch):
    source = tmp_path / "a.png"
    source.write_bytes(png.new_file(samples(), Metadata()))
    size = 320 * 240 * 6
    monkeypatch.setattr("vidrestore.jobs.memory.machine_memory", lambda: 6 * size)
    monkeypatch.setattr("vidrestore.jobs.plan.memory_for_faces", lambda *_: 0)
    assert restored(source, out / "b.png", **LARGER).faces == 1
    monkeypatch.setattr("vidrestore.jobs.memory.machine_memory", lambda: 4 * size)
    with pytest.raises(OutputError, match=r"GiB; use a smaller --scale$"):
        restored(source, out / "c.png", **LARGER)


def test_the_command_line_enlarges_a_picture_into_another_format(tmp_path, out):
    source, target = tmp_path / "a.png", out / "b.jpg"
    source.write_bytes(png.new_file(samples(bits=8), Metadata(icc=b"profile" * 9)))
    with pytest.raises(SystemExit) as left:
        main(["restore", str(source), str(target), "--scale", "4", "--restorer", "fusion",
              "--set", "people.recognise=false"])  # fmt: skip
    assert left.value.code == 0
    assert cv2.imread(str(target)).shape == (480, 640, 3)
    with files.open_picture(target) as data:
        assert files.read_metadata(data, "jpeg").icc == b"profile" * 9


def test_codes_of_light_are_in_order():
    codes = np.arange(65536, dtype=np.uint16)
    light = halves_of_codes(codes).view(np.float16)
    assert (np.diff(light[np.isfinite(light)].astype(np.float64)) >= 0).all()
    assert exr.display_table()[0][0] < exr.display_table()[-1][0]
