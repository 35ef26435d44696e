"""Half floats of OpenEXR files through both passes and back: light, exact outside the faces."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import OpenEXR
import pytest
from helpers.media import OneFace, Painter, Unchanged, analysis_of_file, plain_track
from helpers.scans import changed_box, restored
from skimage import data

from vidrestore.analysis.detection import upright_picture
from vidrestore.analysis.pipeline import analyze_video
from vidrestore.common.errors import InputError, UsageError, VidrestoreError
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.geometry import upright
from vidrestore.imaging.planes import codes_of_halves, halves_of_codes
from vidrestore.jobs.image_output import samples_of
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.images import exr, files
from vidrestore.media.probe import probe

RGB = (0.2, 0.7, 0.4)
COMPRESSIONS = {"none": 0, "rle": 1, "zip1": 2, "zip16": 3}


@pytest.fixture(autouse=True)
def a_face(monkeypatch):
    monkeypatch.setattr("vidrestore.models.factory.open_detector", lambda *a, **k: OneFaceInLight())


class OneFaceInLight(OneFace):
    """A detector that sees the same face in every picture that is not dark."""

    def __call__(self, picture):
        found = super().__call__(picture)
        return found if picture.mean() > 30 else []


def light(seed=0, *, dark=False, channels=3, size=(160, 120)):
    """(h, w, c) half floats: a picture of light, some of it above white and some below black."""
    random = np.random.default_rng(seed)
    values = random.uniform(0.1, 0.5, (size[1], size[0], channels))
    values[:10] = random.uniform(-0.01, 4, (10, size[0], channels))
    return (values * (0.002 if dark else 1)).astype(np.float16)


def write_exr(path: Path, halves, compression="zip16", **more) -> Path:
    """By ffmpeg's encoder, of (h, w, 3 or 4) R, G, B, A."""
    height, width, channels = halves.shape
    name = "gbrapf32le" if channels == 4 else "gbrpf32le"
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        options = {"format": "half", "compression": compression, **more}
        stream = container.add_stream("exr", rate=Fraction(25), options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, name
        image = av.VideoFrame(width, height, name)
        for index, channel in enumerate((1, 2, 0, 3)[:channels]):
            samples = np.zeros((height, image.planes[index].line_size // 4), "<f4")
            samples[:, :width] = halves[..., channel]
            image.planes[index].update(samples.tobytes())
        container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


def read(path: Path):
    """(h, w, c) the bits of the half floats, as libavformat reads them."""
    with av.open(str(path)) as container:
        image = next(container.decode(video=0))
    found = []
    for index in (2, 0, 1, 3)[: len(image.planes)]:
        plane = np.frombuffer(image.planes[index], "<u2").reshape(image.height, -1)
        found.append(plane[:, : image.width])
    return np.dstack(found)


def attributes(path: Path):
    """All of a file's header, as text."""
    header = OpenEXR.File(str(path), header_only=True).parts[0].header
    return {name: repr(value) for name, value in header.items() if name != "channels"}


def write_by_library(path: Path, halves, compression="ZIP", *, tile_px=None, more=(), **header):
    """By the OpenEXR library, of (h, w, 3) R, G, B; `more` are further channels."""
    header = {"compression": getattr(OpenEXR, f"{compression}_COMPRESSION"), **header}
    header["type"] = OpenEXR.tiledimage if tile_px else OpenEXR.scanlineimage
    if tile_px:
        header["tiles"] = OpenEXR.TileDescription()
        header["tiles"].xSize = header["tiles"].ySize = tile_px
    channels = {name: np.ascontiguousarray(halves[..., i]) for i, name in enumerate("RGB")}
    OpenEXR.File(header, channels | dict(more)).write(str(path))
    return path


@pytest.mark.parametrize("tile_px", [None, 32])
@pytest.mark.parametrize("compression", ["NO", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24"])
def test_tiles_compression_attributes_and_further_channels_are_kept(tmp_path, compression, tile_px):
    picture, random = light(size=(160, 120)), np.random.default_rng(1)
    more = {
        "Z": random.uniform(1, 9, (120, 160)).astype(np.float32),
        "id": random.integers(0, 99, (120, 160)).astype(np.uint32),
        "glow.R": random.uniform(0, 1, (120, 160)).astype(np.float16),
    }
    source = write_by_library(
        tmp_path / "a.exr", picture, compression, tile_px=tile_px, more=more, owner="archive",
        pixelAspectRatio=1.0, chromaticities=(0.64, 0.33, 0.3, 0.6, 0.15, 0.06, 0.31, 0.32),
    )  # fmt: skip
    target = tmp_path / "b.exr"
    assert restored(source, target).faces == 1
    assert attributes(target) == attributes(source)
    was, now = (
        OpenEXR.File(str(path), separate_channels=True).parts[0].channels
        for path in (source, target)
    )
    assert list(now) == list(was)
    for name in more:
        np.testing.assert_array_equal(now[name].pixels, was[name].pixels)
    before, after = (np.dstack([c[n].pixels for n in "RGB"]).view(np.uint16) for c in (was, now))
    x, y, width, height = changed_box(before, after)
    assert 30 < x < x + width < 130
    assert 5 < y < y + height < 115


def test_codes_grow_with_what_half_floats_stand_for_and_lose_nothing():
    bits = np.arange(65536, dtype=np.uint16)
    codes = codes_of_halves(bits)
    assert len(np.unique(codes)) == 65536
    np.testing.assert_array_equal(halves_of_codes(codes), bits)
    values = bits.view(np.float16).astype(float)
    finite = np.isfinite(values)
    assert (np.diff(values[finite][np.argsort(codes[finite])]) >= 0).all()


def test_the_table_shows_light_as_srgb_does():
    table = np.array(exr.display_table())[:, 0]
    assert (np.diff(table) > 0).all()
    values = np.geomspace(1e-4, 60, 3000).astype(np.float16)
    codes = codes_of_halves(values.view(np.uint16)) / 65535
    shown = np.interp(codes, np.linspace(0, 1, len(table)), table)
    value = values.astype(float)
    srgb = np.where(value <= 0.0031308, 12.92 * value, 1.055 * value ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(shown, srgb, rtol=1e-3, atol=1e-4)
    mirrored = np.interp(1 - codes, np.linspace(0, 1, len(table)), table)
    np.testing.assert_allclose(mirrored, -shown, atol=1e-9)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("channels", [3, 4])
def test_every_pattern_of_bits_is_written_as_it_was_read(tmp_path, compression, channels):
    bits = np.random.default_rng(0).permutation(2**16).astype(np.uint16)
    bits = np.resize(bits, (150, 145, channels))
    smooth = np.sort(light(1, channels=channels, size=(145, 150)).view(np.uint16), axis=1)
    for number, wanted in enumerate((bits, smooth)):
        path = write_exr(tmp_path / "plain.exr", light(channels=channels, size=(145, 150)),
                         compression)  # fmt: skip
        written = files.with_samples(path, codes_of_halves(wanted), "exr")
        target = tmp_path / f"{number}.exr"
        target.write_bytes(written)
        np.testing.assert_array_equal(read(target), wanted)
        header = files.read_header(target)
        assert (header.width, header.height, header.channels) == (145, 150, channels)
        (frame,) = decode(target, DecodeErrors())
        np.testing.assert_array_equal(samples_of(frame.image, header, None),
                                      codes_of_halves(wanted))  # fmt: skip
        assert attributes(target) == attributes(path)
        if number and compression != "none":
            assert len(written) < 0.9 * wanted.nbytes


@pytest.mark.parametrize("compression", ["none", "zip16", "rle"])
def test_a_sequence_comes_back_to_the_bit_but_for_the_faces(tmp_path, compression):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    for number in range(1, 13):
        picture = light(number, dark=number > 8, channels=4)
        write_exr(folder / f"a_{number:04}.exr", picture, compression)
    summary = restored(folder / "a_%04d.exr", out / "b_%04d.exr")
    assert (summary.frames, summary.faces) == (12, 8)
    assert (summary.identical_outside, summary.identical_frames) == (12, 4)
    for number in range(1, 13):
        was, now = folder / f"a_{number:04}.exr", out / f"b_{number:04}.exr"
        if number > 8:
            assert now.read_bytes() == was.read_bytes()
            continue
        before, after = read(was), read(now)
        np.testing.assert_array_equal(before[..., 3], after[..., 3])
        x, y, width, height = changed_box(before[..., :3], after[..., :3])
        assert 30 < x < x + width < 130
        assert 5 < y < y + height < 115
        shown = after[60, 80, :3].view(np.float16).astype(float)
        np.testing.assert_allclose(1.055 * shown ** (1 / 2.4) - 0.055, RGB, atol=2e-3)


def test_a_network_that_changes_nothing_changes_no_bit(tmp_path):
    source = write_exr(tmp_path / "a.exr", light())
    summary = restored(source, tmp_path / "b.exr", Unchanged())
    assert summary.faces == 1
    assert (tmp_path / "b.exr").read_bytes() == source.read_bytes()


def test_highlights_stay_above_white_where_the_face_is_a_little_darker(tmp_path):
    class Darker(Unchanged):
        def __call__(self, windows):
            return windows[:, 0] - 0.05

    picture = light()
    picture[55:65, 75:85] = 3.0
    restored(write_exr(tmp_path / "a.exr", picture), tmp_path / "b.exr", Darker())
    shown = read(tmp_path / "b.exr")[60, 80].view(np.float16).astype(float)
    assert (shown > 2.4).all()
    assert (shown < 2.95).all()


def test_the_detector_sees_an_ordinary_picture_of_many_levels(tmp_path):
    photo = data.astronaut() / 255
    linear = np.where(photo <= 0.04045, photo / 12.92, ((photo + 0.055) / 1.055) ** 2.4)
    path = write_exr(tmp_path / "a.exr", linear.astype(np.float16))
    info = probe(path, load_settings()).info
    (frame,) = decode(path, DecodeErrors())
    shown = upright_picture(frame.image, info, upright(info))
    apart = np.abs(shown[..., ::-1].astype(int) - data.astronaut())
    assert apart.max() <= 3
    assert apart.mean() < 1


def by_library(**how):
    return lambda path: write_by_library(path, light(), **how)


def several_parts(path):
    channels = {name: light()[..., 0].copy() for name in "RGB"}
    OpenEXR.File([OpenEXR.Part({"name": n}, channels.copy(), n) for n in "ab"]).write(str(path))


def other_channels(*names, kind=np.float16):
    def write(path):
        channels = {name: light()[..., 0].astype(kind) for name in names}
        OpenEXR.File({}, channels).write(str(path))

    return write


def edited(change):
    def write(path):
        write_exr(path, light())
        path.write_bytes(change(path.read_bytes()))

    return write


def levels(path):
    tiles = OpenEXR.TileDescription()
    tiles.xSize = tiles.ySize = 32
    tiles.mode = OpenEXR.MIPMAP_LEVELS
    channels = {name: light()[..., 0].copy() for name in "RGB"}
    OpenEXR.File({"type": OpenEXR.tiledimage, "tiles": tiles}, channels).write(str(path))


WRONG = {
    "is compressed by B44, which changes pixels": by_library(compression="B44"),
    "is compressed by DWAA, which changes pixels": by_library(compression="DWAA"),
    "is compressed by DWAB, which changes pixels": by_library(compression="DWAB"),
    "of several parts": several_parts,
    "has the channels B, G, Z": other_channels("B", "G", "Z"),
    "has the channels Y; vidrestore needs R, G and B": other_channels("Y"),
    "a half float for each pixel in its channel R": other_channels(*"RGB", kind=np.float32),
    "a data window that differs from its display window": by_library(
        displayWindow=(np.zeros(2, np.int32), np.array([199, 119], np.int32))
    ),
    "is not an OpenEXR file": edited(lambda content: b"II*\0" + content[4:]),
    "is damaged or cut short": edited(lambda content: content[:-50]),
    "is damaged or cut short:": edited(lambda content: content[:40]),
    "mipmaps": levels,
}


@pytest.mark.parametrize("sentence", WRONG)
def test_other_files_are_one_sentence(tmp_path, sentence):
    path = tmp_path / "a.exr"
    WRONG[sentence](path)
    with pytest.raises(InputError, match=sentence) as refused:
        restored(path, tmp_path / "b.exr", Painter())
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "b.exr").exists()


def test_floats_of_32_bits_are_refused(tmp_path):
    path = write_exr(tmp_path / "a.exr", light(), format="float")
    with pytest.raises(InputError, match="half float"):
        analyze_video(path, load_settings())


def test_light_has_no_other_curve_and_becomes_no_other_kind(tmp_path):
    path = write_exr(tmp_path / "a.exr", light())
    with pytest.raises(UsageError, match="leave --input-curve out"):
        probe(path, load_settings(options={"decode.input_curve": "cineon"}))
    with pytest.raises(VidrestoreError, match="cannot convert exr pictures to tiff"):
        restored(path, tmp_path / "b.tif")


def test_a_face_has_the_noise_of_the_light_around_it(tmp_path):
    random, sigma = np.random.default_rng(0), 0.02
    lit = 0.3 + random.normal(0, sigma, (240, 320, 1)) + np.zeros(3)
    track = plain_track(1, centre=(160, 120), side=150, work_px=128)
    source = write_exr(tmp_path / "a.exr", lit.astype(np.float16))
    info = probe(source, load_settings()).info
    analysis = replace(analysis_of_file(source, [track]), info=info, pts=np.zeros(1, np.int64))
    found = {}
    for match in (0, 1):
        restored(source, tmp_path / f"{match}.exr", Painter((0.58, 0.58, 0.58)), analysis=analysis,
                 **{"grain.match": match})  # fmt: skip
        shown = read(tmp_path / f"{match}.exr").view(np.float16).astype(float)
        found[match] = shown[100:140, 140:180].std()
    assert found[0] < 0.1 * sigma
    assert found[1] == pytest.approx(sigma, rel=0.3)
