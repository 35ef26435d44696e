"""Stills and numbered pictures: through both passes and back, and what is refused before."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.scans import (
    RGB,
    Breaks,
    OneFaceInBright,
    changed_box,
    contents,
    decoded,
    encoded,
    planar_image,
    read,
    restored,
    samples,
    write_scans,
)

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.cli import main
from vidrestore.common.errors import InputError, OutputError, UsageError, VidrestoreError
from vidrestore.common.profiles import load_settings
from vidrestore.jobs.workers import _check_input
from vidrestore.media.images import files
from vidrestore.media.images.header import Metadata
from vidrestore.media.images.tiff import new_file as made_tiff
from vidrestore.media.probe import fingerprint, probe

NUMBERS = range(1001, 1013)
DARK = range(1005, 1009)


@pytest.fixture(autouse=True)
def a_face(monkeypatch):
    monkeypatch.setattr(
        "vidrestore.models.factory.open_detector", lambda *a, **k: OneFaceInBright()
    )


@pytest.fixture
def out(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_scans_of_16_bits_come_back_as_they_were_but_for_the_faces(tmp_path, out, suffix):
    source = write_scans(tmp_path / "in", NUMBERS, suffix, dark=DARK)
    summary = restored(source, out / f"clear_%06d{suffix}", **{"decode.fps": 18})
    assert (summary.frames, summary.faces, summary.shots) == (12, 8, 3)
    assert summary.identical_outside == 12
    assert summary.identical_frames == len(DARK)
    assert [path.name for path in sorted(out.iterdir())] == [
        f"clear_{number:06d}{suffix}" for number in NUMBERS
    ]
    for number in NUMBERS:
        was, now = (tmp_path / "in" / f"scan_{number:06d}{suffix}",
                    out / f"clear_{number:06d}{suffix}")  # fmt: skip
        if number in DARK:
            assert now.read_bytes() == was.read_bytes()
            continue
        before, after = read(was), read(now)
        assert after.dtype == np.uint16
        assert after.shape == before.shape
        x, y, width, height = changed_box(before, after)
        assert 30 < x < x + width < 130
        assert 5 < y < y + height < 115
        assert after[60, 80] / 65535 == pytest.approx(RGB[::-1], abs=0.004)


def test_the_rate_of_pictures_is_what_seconds_go_by(tmp_path):
    source = write_scans(tmp_path / "in", NUMBERS)
    for fps, steps in ((None, 24), (18, 18), (23.976, 23.976)):
        info = probe(source, load_settings(options={"decode.fps": fps})).info
        assert float(info.frame_rate) == pytest.approx(steps)
        assert info.duration_seconds_from_header == pytest.approx(12 / steps)


KINDS = [(".png", 1, 8), (".png", 1, 16), (".png", 2, 8), (".png", 2, 16), (".png", 4, 8),
         (".png", 4, 16), (".tif", 1, 8), (".tif", 1, 16), (".tif", 2, 8), (".tif", 2, 16),
         (".tif", 3, 8), (".tif", 4, 8), (".tif", 4, 16)]  # fmt: skip


@pytest.mark.parametrize(("suffix", "channels", "bits"), KINDS)
def test_grey_and_alpha_stay(tmp_path, out, suffix, channels, bits):
    source, target = tmp_path / f"a{suffix}", out / f"b{suffix}"
    before = samples(channels, bits)
    made = made_tiff if suffix == ".tif" else files.png.new_file
    source.write_bytes(made(before, Metadata()))
    assert restored(source, target).faces == 1
    assert files.read_header(target) == files.read_header(source)
    after = decoded(target)
    x, _, width, _ = changed_box(before, after)
    assert width > 40
    assert 30 < x < x + width < 130
    if channels in (2, 4):
        assert np.array_equal(before[..., -1], after[..., -1])
    luma = 0.299 * RGB[0] + 0.587 * RGB[1] + 0.114 * RGB[2]
    wanted = RGB if channels > 2 else [luma]
    assert after[60, 80, : len(wanted)] / (2**bits - 1) == pytest.approx(wanted, abs=0.03)


def test_a_still_without_a_face_is_copied_byte_for_byte(tmp_path, out):
    source = tmp_path / "dark.png"
    source.write_bytes(files.png.new_file(samples(dark=True), Metadata(icc=b"profile" * 9)))
    summary = restored(source, out / "dark.png")
    assert (out / "dark.png").read_bytes() == source.read_bytes()
    assert "no face was found; nothing was restored" in summary.warnings


DPX = ["gbrp10le", "gbrp10be", "gbrp12le", "gbrp12be", "rgb48le", "rgb24", "gray", "gray16le"]


@pytest.mark.parametrize("pixel_format", DPX)
def test_dpx_keeps_its_header_and_its_depth(tmp_path, out, pixel_format):
    (tmp_path / "in").mkdir()
    for number in (1, 2):
        planar = {"rgb48le": "gbrp16le", "rgb24": "gbrp"}.get(pixel_format, pixel_format)
        image = planar_image(planar.replace("be", "le"), number)
        file = bytearray(encoded("dpx", image.reformat(format=pixel_format)))
        file[160:260] = bytes(range(100))  # the creator, in the generic header
        (tmp_path / "in" / f"f{number:04d}.dpx").write_bytes(file)
    summary = restored(tmp_path / "in" / "f%04d.dpx", out / "f%04d.dpx")
    assert (summary.faces, summary.identical_outside, summary.codec) == (2, 2, "dpx")
    for number in (1, 2):
        was, now = ((at / f"f{number:04d}.dpx").read_bytes() for at in (tmp_path / "in", out))
        assert was != now
        assert len(was) == len(now)
        start = int.from_bytes(was[4:8], "big" if was[:4] == b"SDPX" else "little")
        assert was[:start] == now[:start]


LONG = range(7, 79)


@pytest.mark.long
def test_what_a_crash_left_is_gone_on_with_and_segments_make_no_difference(tmp_path, out):
    source = write_scans(tmp_path / "in", LONG, bits=8, dark=range(40, 44))
    short = {"job.segment_frames": 48}
    restored(source, out / "a_%06d.tif", Breaks())
    whole = contents(out)
    assert len(whole) == len(LONG)
    for path in out.iterdir():
        path.unlink()
    with pytest.raises(OutputError, match="a defect"):
        restored(source, out / "a_%06d.tif", Breaks(at=56), **short)
    assert [path.name for path in out.iterdir()] == ["a_%06d.tif.vidrestore"]
    again = Breaks()
    restored(source, out / "a_%06d.tif", again, **short)
    assert again.faces < len(LONG) - 20
    assert contents(out) == whole
    assert all(path.is_file() for path in out.iterdir())


def test_a_crash_while_pictures_are_written_costs_no_face(tmp_path, out, monkeypatch):
    source = write_scans(tmp_path / "in", NUMBERS)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("vidrestore.jobs.image_output.files.with_samples", full)
        with pytest.raises(OutputError, match="no space is left"):
            restored(source, out / "a_%06d.tif")
    assert not contents(out)
    again = Breaks()
    restored(source, out / "a_%06d.tif", again)
    assert again.faces == 0
    assert len(contents(out)) == len(NUMBERS)


def test_a_missing_number_is_said_before_the_work_begins(tmp_path, out):
    source = write_scans(tmp_path / "in", [n for n in NUMBERS if n not in (1004, 1009)])
    with pytest.raises(InputError, match=r"lacks scan_001004.tif, the first of 2 missing"):
        restored(source, out / "a_%06d.tif", Breaks(at=0))
    assert not list(out.iterdir())


def test_pictures_of_the_output_are_replaced_only_where_that_is_asked_for(tmp_path, out):
    source, target = write_scans(tmp_path / "in", NUMBERS), out / "scan_%06d.tif"
    write_scans(out, range(1003, 1005), dark=NUMBERS)
    before = contents(out)
    with pytest.raises(UsageError, match=r"2 pictures of the output exist already, such as .*1003"):
        restored(source, target)
    with pytest.raises(OutputError, match="a defect"):
        restored(source, target, Breaks(at=0), overwrite=True)
    assert contents(out) == before
    restored(source, target, overwrite=True)
    assert len(contents(out)) == len(NUMBERS)
    assert all(contents(out)[name] != old for name, old in before.items())
    write_scans(out, [1099])
    with pytest.raises(UsageError, match=r"scan_001099.tif has the name of an output"):
        restored(source, target, overwrite=True)


def text(folder: Path) -> None:
    (folder / "scan_000003.tif").write_text("a text, and no picture")


def other_size(folder: Path) -> None:
    (folder / "scan_000003.tif").write_bytes(made_tiff(samples()[:100], Metadata()))


def other_depth(folder: Path) -> None:
    (folder / "scan_000003.tif").write_bytes(made_tiff(samples(bits=8), Metadata()))


def cut_short(folder: Path) -> None:
    path = folder / "scan_000003.tif"
    path.write_bytes(path.read_bytes()[:-2000])


def emptied(folder: Path) -> None:
    (folder / "scan_000003.tif").write_bytes(b"")


def no_file(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


WRONG = {
    text: "scan_000003.tif is not a TIFF file, despite its suffix",
    other_size: "scan_000003.tif has 160 x 100 pixels of 16 bits, color, unlike scan_000001.tif",
    other_depth: "scan_000003.tif has 160 x 120 pixels of 8 bits, color, unlike scan_000001.tif",
    cut_short: "scan_000003.tif is",
    emptied: "scan_000003.tif is empty",
    no_file: "no file in .* has a name like scan_%06d.tif",
}


@pytest.mark.parametrize("harm", WRONG)
def test_a_wrong_picture_is_named_before_the_work_begins(tmp_path, out, harm):
    source = write_scans(tmp_path / "in", range(1, 6))
    harm(tmp_path / "in")
    with pytest.raises(InputError, match=WRONG[harm]) as refused:
        restored(source, out / "a_%06d.tif", Breaks(at=0))
    assert "\n" not in str(refused.value)
    assert not list(out.iterdir())


def test_a_picture_with_damaged_pixels_is_named(tmp_path):
    source = write_scans(tmp_path / "in", range(1, 6), ".png")
    path = tmp_path / "in" / "scan_000003.png"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes(1000) + data[len(data) // 2 + 1000 :])
    with pytest.raises(InputError, match=r"damaged"):
        analyze_video(source, load_settings(options={"people.recognise": False}))


@pytest.mark.parametrize(
    ("source", "target", "sentence"),
    [
        ("in/scan_%06d.tif", "out/a.tif", "names many pictures and the other path one"),
        ("in/scan_000001.tif", "out/a_%06d.tif", "names many pictures and the other path one"),
        ("in/scan_000001.tif", "out/a.mp4", "a.mp4 is not a picture and scan_000001.tif is one"),
        ("in/scan_000001.tif", "out/a.webp", "does not support .webp pictures"),
        ("in/scan_000001.tif", "out/a.exr", "cannot convert tiff pictures to exr"),
        ("in/scan_000001.tif", "out/a.jpg", "a JPEG cannot hold 160 x 120 pixels of 16 bits"),
        ("in/scan_000001.tif", "out/a.dpx", "cannot convert tiff pictures to dpx"),
        ("in/scan_000001.tif", "in/scan_000001.tif", "is the input itself"),
        ("in/scan_%06d.tif", "in/scan_%06d.tif", "is the input itself"),
        ("in/scan_000001.tif", "in/scan_000002.tif", "exists already; add --overwrite"),
        ("in/scan_%06d.tif", "none/a_%06d.tif", "folder .*none for the output does not exist"),
        ("in/%d_%06d.tif", "out/%06d.tif", "must hold one placeholder"),
        ("in/nothing.tif", "out/a.tif", "in/nothing.tif does not exist"),
        ("in", "out/a.tif", "in is a folder; name the pictures in it by a pattern"),
        ("in/scan_%06d.tif", "in/scan_0%05d.tif", "is the input itself"),
        ("in/scan_%06d.tif", "in/scan_%05d.tif", "is the input itself"),
    ],
)
def test_paths_that_do_not_go_together_are_one_sentence(tmp_path, out, source, target, sentence):
    write_scans(tmp_path / "in", (1, 2) if "%05d" not in target else (99_999, 100_000))
    with pytest.raises(VidrestoreError, match=sentence) as refused:
        restored(tmp_path / source, tmp_path / target)
    assert "\n" not in str(refused.value)
    assert not list(out.iterdir())


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"encode.codec": "hevc"}, "--codec"),
        ({"encode.hardware": True}, "encode.hardware"),
        ({"plate": Path("plate.mkv")}, "--plate"),
        ({"layer": Path("layer")}, "--layer"),
        ({"keep_job": True}, "--keep-job"),
        ({"encode.quality": "small"}, "encode.quality small"),
    ],
)
def test_what_makes_no_sense_of_pictures_is_refused(tmp_path, out, asked, name):
    source = write_scans(tmp_path / "in", (1, 2))
    with pytest.raises(VidrestoreError, match=name):
        restored(source, out / "a_%06d.tif", **asked)
    assert not list(out.iterdir())


def test_names_of_every_sort_are_understood(tmp_path, out):
    folder = tmp_path / "50%d of %% scans"
    write_scans(folder, (98, 99, 100, 101), ".TIFF")
    for path in list(folder.iterdir()):
        path.rename(folder / f"a%5f {int(path.stem[5:])} b.TIFF")
    write_scans(folder, (1, 3), ".TIFF")
    listing = tmp_path / "md5.txt"
    summary = restored(folder / "a%5f %d b.TIFF", out / "%04d%.Tif", framemd5=listing)
    assert summary.faces == summary.identical_outside == 4
    assert [path.name for path in sorted(out.iterdir())] == [
        f"{n:04d}%.Tif" for n in range(98, 102)
    ]
    lines = [line for line in listing.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == 4
    with pytest.raises(UsageError, match="has the name of a picture"):
        restored(folder / "a%5f %d b.TIFF", out / "x%d.Tif", framemd5=folder / "a%5f 99 b.TIFF")


def test_a_rate_for_one_picture_or_a_video_is_refused(tmp_path, make_video):
    with pytest.raises(UsageError, match=r"--fps is for numbered pictures"):
        probe(make_video(), load_settings(options={"decode.fps": 24}))
    write_scans(tmp_path, [1])
    with pytest.raises(UsageError, match=r"--fps is for numbered pictures"):
        probe(tmp_path / "scan_000001.tif", load_settings(options={"decode.fps": 24}))


def test_a_worker_knows_the_pictures_again(tmp_path):
    source = write_scans(tmp_path, (1, 2))
    known = fingerprint(source)
    _check_input(source, known, "here")
    write_scans(tmp_path, (3,))
    with pytest.raises(InputError, match="is another file than on the machine"):
        _check_input(source, known, "here")


def test_the_command_line_restores_a_sequence(tmp_path, out, capsys):
    source = write_scans(tmp_path / "in", NUMBERS, dark=DARK)
    arguments = ["restore", str(source), str(out / "b_%06d.tif"), "--fps", "18", "--json"]
    options = ["--restorer", "fusion", "--set", "people.recognise=false"]
    with pytest.raises(SystemExit) as left:
        main([*arguments, *options])
    assert left.value.code == 0
    done = json.loads(capsys.readouterr().out.splitlines()[-1])["summary"]
    assert (done["frames"], done["faces"], done["codec"]) == (12, 8, "tiff")
    with pytest.raises(SystemExit) as left:
        main([*arguments, *options])
    assert left.value.code == 2
    assert "exist already" in capsys.readouterr().out
