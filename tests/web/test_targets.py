"""Where results go: names that any system can store, and folders that can be written to."""

import os
import sys
from pathlib import Path

import pytest

from vidrestore.web import targets
from vidrestore.web.wording import RefusedError

SUFFIXES = (".mp4", ".mov", ".mkv")


@pytest.mark.parametrize(
    "name", ["tape.mp4", " tape.MKV ", 'Oma\'s 80. "Geburtstag".mov', "ä 😀.mp4"]
)
def test_ordinary_names_are_taken_as_they_are(name):
    assert targets.check_name(name, SUFFIXES) == name.strip()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "needs a name"),
        ("  ", "needs a name"),
        ("..", "slash"),
        ("../tape.mp4", "slash"),
        ("a/b.mp4", "slash"),
        ("a\\b.mp4", "slash"),
        ("a\0.mp4", "cannot be shown"),
        ("a\nb.mp4", "cannot be shown"),
        ("a\u202eb.mp4", "cannot be shown"),
        (".mp4", "full stop"),
        (".tape.mp4", "full stop"),
        ("NUL.mp4", "Windows"),
        ("com1.tape.mp4", "Windows"),
        ("tape.avi", "must end in .mp4 or .mov or .mkv"),
        ("tape", "must end in"),
        ("tape.mp4.exe", "must end in"),
        ("ü" * 99 + ".mp4", "too long"),
    ],
)
def test_other_names_are_refused_with_the_reason(name, reason):
    with pytest.raises(RefusedError, match=reason):
        targets.check_name(name, SUFFIXES)


def test_windows_takes_fewer_names(monkeypatch):
    for name in ("a:b.mp4", "what?.mp4", "a|b.mp4", '"a".mp4'):
        assert targets.check_name(name, SUFFIXES) == name
    monkeypatch.setattr(sys, "platform", "win32")
    for name in ("a:b.mp4", "what?.mp4", "a|b.mp4", '"a".mp4'):
        with pytest.raises(RefusedError, match="must not hold"):
            targets.check_name(name, SUFFIXES)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("tape 1994.mp4", "tape 1994.mp4"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\a.mp4", "a.mp4"),
        ("..", "video"),
        ("", "video"),
        (".mp4", "mp4"),
        ("a\nb\0c.mp4", "a_b_c.mp4"),
        ("a\u202eb.mp4", "a_b.mp4"),
        ('a"b:c?.mp4', "a_b_c_.mp4"),
        ("aux.mp4", "_aux.mp4"),
        ("name. ", "name"),
    ],
)
def test_an_upload_is_stored_under_a_name_that_leads_nowhere(given, stored):
    assert targets.name_of_upload(given) == stored


def test_a_long_name_of_an_upload_keeps_its_suffix():
    name = targets.name_of_upload("ü" * 500 + ".mp4")
    assert name.endswith("ü.mp4")
    assert len(name.encode()) <= 160
    assert len(targets.name_of_upload("a." + "b" * 500).encode()) <= 160


def test_a_name_gets_a_number_where_it_is_taken(tmp_path):
    assert targets.numbered(tmp_path, "a.mp4", ()) == "a.mp4"
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a-2.mp4").symlink_to(tmp_path / "absent")
    assert targets.numbered(tmp_path, "a.mp4", {tmp_path / "a-3.mp4"}) == "a-4.mp4"


def test_a_result_goes_beside_its_source_or_to_the_videos(tmp_path, monkeypatch):
    source = tmp_path / "tape.mp4"
    assert targets.default_folder(source) == tmp_path
    assert targets.default_folder(None) == targets.videos_folder()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert targets.default_folder(source) == targets.videos_folder()


def test_the_folder_of_videos_is_made_and_no_other_one(tmp_path):
    assert not targets.videos_folder().exists()
    targets.check_folder(targets.videos_folder())
    assert targets.videos_folder().is_dir()
    with pytest.raises(RefusedError, match="choose another"):
        targets.check_folder(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(RefusedError, match="choose another"):
        targets.check_folder(tmp_path / "file")


def test_a_folder_that_cannot_be_made_is_a_refusal(monkeypatch):
    videos = targets.videos_folder()
    videos.parent.mkdir(parents=True, exist_ok=True)
    videos.touch()
    with pytest.raises(RefusedError, match="choose another"):
        targets.check_folder(videos)


def test_a_source_is_never_the_target_by_whatever_name(tmp_path):
    source = tmp_path / "tape.mp4"
    source.touch()
    link, hard = tmp_path / "link.mp4", tmp_path / "hard.mp4"
    link.symlink_to(source)
    os.link(source, hard)
    for path in (source, link, hard, tmp_path / "." / "tape.mp4"):
        with pytest.raises(RefusedError):
            targets.check_not_a_source(path, [tmp_path / "other.mp4", source])
    targets.check_not_a_source(tmp_path / "new.mp4", [source])
    targets.check_not_a_source(Path(tmp_path, "new.mp4"), [])
