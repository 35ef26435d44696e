"""Names of files hold any bytes: they come through every command, and steer no terminal."""

import json
import os
from pathlib import Path

import pytest
from helpers.videos import Command, MakeVideo

from vidrestore.analysis import shot_list
from vidrestore.analysis.pipeline import analyze_video
from vidrestore.common.profiles import load_profile, load_settings
from vidrestore.common.quoting import printable

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
