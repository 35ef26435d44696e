"""Names of files hold any bytes: they come through every command, and steer no terminal."""

import json
import os
from pathlib import Path

import pytest
from helpers.videos import Command, MakeVideo

from vidrestore import restore_video
from vidrestore.analysis import shot_list
from vidrestore.analysis.pipeline import analyze_video
from vidrestore.common.files import fitting_name
from vidrestore.common.profiles import load_profile, load_settings
from vidrestore.common.quoting import printable
from vidrestore.jobs.notes import work_path

QUICK = ("--restorer", "fusion", "--detector", "haar")
NO_TEXT = os.fsdecode(b"caf\xe9\xff")
CONTROLS = "a\n\x1b[31mb\r\x07"
NAMES = pytest.mark.parametrize("name", [NO_TEXT, CONTROLS], ids=["bytes", "controls"])


def is_plain(text: str) -> bool:
    """Nothing in it steers a terminal, and every stream can take it."""
    text.encode("utf-8")
    return all(line.isprintable() for line in text.split("\n"))


@pytest.fixture
def source(name: str, make_video: MakeVideo, tmp_path: Path) -> Path:
    path = tmp_path / f"{name}.mkv"
    make_video("plain.mkv", frames=6, audio=True).rename(path)
    return path


@NAMES
def test_every_file_of_a_run_may_have_such_a_name(
    name: str, source: Path, command: Command, tmp_path: Path
) -> None:
    target, listing = tmp_path / f"out {name}.mkv", tmp_path / f"md5 {name}"
    report, shots = tmp_path / f"page {name}.html", tmp_path / f"shots {name}.toml"
    found = command("analyze", source, "--detector", "haar", "--no-estimate", "--shots", shots)
    assert found.status == 0
    assert is_plain(found.out + found.err)
    analysis = analyze_video(source, load_settings(options={"detect.detector": "haar"}))
    read = shot_list.read(shots, analysis.pts, analysis.info.time_base)
    assert read.video == source.name
    found = command(
        "restore", source, target, "--shots", shots, "--framemd5", listing, "--report", report,
        *QUICK,
    )  # fmt: skip
    assert found.status == 0, found.err
    assert is_plain(found.out + found.err)
    assert all(path.is_file() for path in (target, listing, report))
    assert not list(tmp_path.glob("*.vidrestore"))


@NAMES
def test_a_program_gets_the_bytes_of_a_name_back(
    name: str, source: Path, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / f"folder {name}"
    found = command("restore", source, "--output-dir", out, "--json", *QUICK)
    assert found.status == 0, found.out
    assert found.out.isascii()
    (told,) = [e for e in map(json.loads, found.out.splitlines()) if e["event"] == "file"]
    assert os.fsencode(told["source"]) == os.fsencode(source)
    assert os.fsencode(told["target"]) == os.fsencode(out / source.name)
    assert Path(told["target"]).is_file()
    (missing,) = map(
        json.loads, command("restore", f"{name}no", "o.mp4", "--json").out.splitlines()
    )
    assert f"{name}no" in missing["message"]


@NAMES
def test_pictures_of_a_moment_and_comparisons(
    name: str, source: Path, command: Command, tmp_path: Path
) -> None:
    picture, movie = tmp_path / f"p {name}.png", tmp_path / f"m {name}.mp4"
    for arguments in (
        ("preview", source, "-o", picture, *QUICK), ("compare", source, source, "-o", movie),
    ):  # fmt: skip
        found = command(*arguments)
        assert found.status == 0, found.err
        assert is_plain(found.out + found.err)
    assert picture.is_file()
    assert movie.is_file()


@NAMES
def test_many_at_once_and_what_fails(
    name: str, source: Path, command: Command, tmp_path: Path
) -> None:
    bad = tmp_path / f"bad {name}.mp4"
    bad.write_text("no video")
    found = command("restore", source, bad, "--output-dir", tmp_path / name, *QUICK)
    assert found.status == 1
    assert is_plain(found.out + found.err)
    assert (tmp_path / name / source.name).is_file()
    found = command("restore", tmp_path / f"none {name}", tmp_path / "o.mp4")
    assert found.status == 1
    assert is_plain(found.err)
    assert found.err.count("\n") == 1


@pytest.mark.parametrize("key", ["restore.restorer", "paste.parser", "shots.edl", "scale.upscaler"])
def test_keys_are_made_of_settings_with_such_names(key: str) -> None:
    settings = load_settings(options={key: f"{NO_TEXT}.onnx"})
    section = getattr(settings, key.split(".")[0])
    assert NO_TEXT in json.loads(section.as_text())[key.split(".")[1]]
    assert section.as_text().isascii()


@pytest.mark.parametrize("name", ["a\x9b31m", "\u202egnp", "a\u2028b", "\x7f\x1b", "\U000e0001"])
def test_printed_settings_steer_no_terminal(name: str, command: Command, tmp_path: Path) -> None:
    found = command("restore", "--print-config", "--weights", name)
    assert found.status == 0
    assert all(printable(line) == line for line in found.out.split("\n"))
    path = tmp_path / "mine.toml"
    path.write_text(found.out, encoding="utf-8")
    assert load_profile(path).weights.folder == Path(name)


def test_settings_that_no_profile_can_hold(command: Command) -> None:
    found = command("restore", "--print-config", "--weights", NO_TEXT)
    assert found.status == 2
    assert "caf\\xe9\\xff" in found.said
    assert is_plain(found.err)


def longest(letter: str, suffix: str) -> str:
    """A name of 255 bytes, or a few less where a letter has more than one."""
    return letter * ((255 - len(suffix)) // len(os.fsencode(letter))) + suffix


LETTERS = pytest.mark.parametrize("letter", ["x", "é", "\U0001f3ac", os.fsdecode(b"\xff")])


@LETTERS
def test_every_file_of_a_run_may_have_the_longest_name(
    letter: str, make_video: MakeVideo, command: Command, tmp_path: Path
) -> None:
    source = make_video("plain.mkv", frames=6).rename(tmp_path / longest(letter, ".mkv"))
    out = tmp_path / "out"
    out.mkdir()
    target, listing = out / longest(letter, ".mkv"), out / longest(letter, ".txt")
    report, layer = out / longest(letter, ".html"), tmp_path / "layer"
    command_line = (
        "restore", source, target, "--framemd5", listing, "--report", report, *QUICK,
    )  # fmt: skip
    for more in (("--layer", layer), ("--overwrite", "--keep-job")):
        found = command(*command_line, *more)
        assert found.status == 0, found.err
    work = work_path(target)
    assert {path.name for path in out.iterdir()} == {
        target.name, listing.name, report.name, work.name,
    }  # fmt: skip
    assert work.name.startswith(letter)
    assert work.name.endswith(".vidrestore")
    assert sorted(path.suffixes[-2:] for path in layer.iterdir()) == [
        [".fill", ".mov"], [".matte", ".mov"],
    ]  # fmt: skip


@LETTERS
def test_an_output_of_many_has_the_longest_name_that_fits(
    letter: str, make_video: MakeVideo, command: Command, tmp_path: Path
) -> None:
    source = make_video("plain.ts", frames=6).rename(tmp_path / longest(letter, ".ts"))
    found = command("restore", source, "--output-dir", tmp_path / "out", *QUICK)
    assert found.status == 0, found.out
    (made,) = (tmp_path / "out").iterdir()
    assert made.suffix == ".mkv"
    assert made.name.startswith(letter)


def test_an_interrupted_run_with_the_longest_name_goes_on(
    make_video: MakeVideo, tmp_path: Path
) -> None:
    source, target = make_video(frames=6), tmp_path / longest("x", ".mkv")
    settings = load_settings(options={"restore.restorer": "fusion", "detect.detector": "haar"})
    said: list[str] = []

    def stopping(event: object) -> None:
        said.append(str(event))
        if "stage='check'" in said[-1] and len(said) < 1000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore_video(source, target, settings, on_event=stopping)
    assert work_path(target).is_dir()
    assert not target.exists()
    assert restore_video(source, target, settings).frames == 6
    assert not work_path(target).exists()


def test_a_name_is_shortened_only_where_it_must_be(tmp_path: Path) -> None:
    assert fitting_name(tmp_path, "a" * 251, ".mkv") == "a" * 251 + ".mkv"
    names = [fitting_name(tmp_path, stem, ".mkv") for stem in ("a" * 252, "a" * 251 + "b")]
    assert len(set(names)) == 2
    assert all(len(name) == 255 and name.endswith(".mkv") for name in names)
    assert len(os.fsencode(fitting_name(tmp_path, "\u00e9" * 200, ".vidrestore"))) in (254, 255)
    assert fitting_name(tmp_path / "missing", "a", ".mkv") == "a.mkv"
