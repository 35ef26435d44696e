"""Folders that the page may list: which, how much of them, and by what names."""

import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from vidrestore.common.errors import UsageError
from vidrestore.web import places as places_of_page
from vidrestore.web.places import Listing, Places, shown_path
from vidrestore.web.wording import RefusedError

not_root = pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="the superuser may read everything"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def listed(places: Places, *names: str) -> Listing:
    """The first root, or a folder below it."""
    listing = places.listing(places.roots()[0].id)
    for name in names:
        listing = places.listing(next(each.id for each in listing.folders if each.name == name))
    return listing


def test_videos_and_pictures_are_listed_by_name(root):
    for name in (
        "b.MP4",
        "a.mov",
        "C.mkv",
        "photo.JPG",
        "letter.txt",
        "no suffix",
        "tape.mp4.part",
    ):
        (root / name).write_bytes(b"12345")
    (root / "empty").mkdir()
    listing = listed(Places([root]))
    assert [each.entry.name for each in listing.files] == ["a.mov", "b.MP4", "C.mkv", "photo.JPG"]
    assert {each.bytes for each in listing.files} == {5}
    assert listing.files[0].modified_seconds == (root / "a.mov").stat().st_mtime
    assert [each.name for each in listing.folders] == ["empty"]
    assert (listing.parent, listing.is_cut, listing.is_writable) == (None, False, True)


def test_an_entry_keeps_its_id_and_leads_up_again(root):
    (root / "one/two").mkdir(parents=True)
    (root / "one/two/a.mp4").touch()
    places = Places([root])
    inside = listed(places, "one", "two")
    assert inside.parent is not None
    assert places.listing(inside.parent.id).folder.path == root / "one"
    assert listed(places, "one", "two") == inside
    (file,) = inside.files
    assert places.file(file.entry.id) == root / "one/two/a.mp4"
    assert len({each.id for each in Places([root]).roots()} | {places.roots()[0].id}) == 2


def test_a_root_that_holds_another_one_is_listed_once_each(root, tmp_path):
    (root / "below").mkdir()
    link = tmp_path / "link"
    link.symlink_to(root)
    places = Places([root, link, root / "below", root])
    assert [each.path for each in places.roots()] == [root, root / "below"]
    # What is a root by itself has nothing above it, as far as the page goes.
    assert places.listing(places.roots()[1].id).parent is None


def test_a_hidden_root_is_shown_if_it_was_named(tmp_path):
    hidden = tmp_path / ".tapes"
    (hidden / ".deeper").mkdir(parents=True)
    (hidden / "a.mp4").touch()
    assert [each.entry.name for each in listed(Places([hidden])).files] == ["a.mp4"]
    assert listed(Places([hidden])).folders == ()


def test_the_folder_of_the_page_is_not_listed(root):
    own = root / "data/ui"
    (own / "uploads").mkdir(parents=True)
    (root / "way").symlink_to(own / "uploads")
    places = Places([root], own)
    assert [each.name for each in listed(places).folders] == ["data"]
    assert listed(places, "data").folders == ()
    below = Places([own / "uploads"], own)
    with pytest.raises(RefusedError):
        below.listing(below.roots()[0].id)


def test_a_very_large_folder_is_cut_and_says_so(root, monkeypatch):
    monkeypatch.setattr(places_of_page, "MOST_LISTED", 3)
    for number in range(5):
        (root / f"{number}.mp4").touch()
    listing = listed(Places([root]))
    assert [each.entry.name for each in listing.files] == ["0.mp4", "1.mp4", "2.mp4"]
    assert listing.is_cut
    monkeypatch.setattr(places_of_page, "_MOST_EXAMINED", 2)
    listing = listed(Places([root]))
    assert len(listing.files) == 2
    assert listing.is_cut


def test_ids_that_were_not_used_for_long_are_forgotten(root, monkeypatch):
    monkeypatch.setattr(places_of_page, "MOST_ENTRIES", 4)
    for name in "abc":
        (root / name).mkdir()
    places = Places([root])
    first = listed(places)
    for name in "abc":
        (root / name / "deeper").mkdir()
        listed(places, name)
    with pytest.raises(RefusedError) as refused:
        places.folder(first.folders[0].id)
    assert refused.value.status == 404
    assert len(places._entries) == len(places._ids) == 4


@pytest.mark.parametrize(
    "name", ["a\nb.mp4", "a\u202egpj.mp4", 'a"b<c>.mp4', "\u2028.mp4", "ä.mp4"]
)
def test_odd_names_are_shown_on_one_line_and_open_all_the_same(root, name):
    (root / name).touch()
    places = Places([root])
    (file,) = listed(places).files
    assert file.entry.name.isprintable()
    assert "\u202e" not in file.entry.name
    assert places.file(file.entry.id) == root / name


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode elsewhere")
def test_names_that_are_not_utf_8_open(root):
    path = root / os.fsdecode(b"\xff.mp4")
    path.touch()
    places = Places([root])
    (file,) = listed(places).files
    assert file.entry.name == "\\xff.mp4"
    assert places.file(file.entry.id) == path


@not_root
def test_a_folder_that_may_not_be_read_says_so(root):
    (root / "closed").mkdir()
    places = Places([root])
    entry = listed(places).folders[0]
    (root / "closed").chmod(0)
    try:
        with pytest.raises(RefusedError, match="you may not read it"):
            places.listing(entry.id)
    finally:
        (root / "closed").chmod(0o700)


def test_a_failure_of_the_system_is_a_sentence(root, monkeypatch):
    places = Places([root])

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(RefusedError) as refused:
        listed(places)
    assert str(refused.value) == "The folder cannot be shown: you may not read it."
    assert refused.value.status == 409


def test_what_is_gone_or_has_become_something_else_is_refused(root):
    (root / "folder").mkdir()
    (root / "a.mp4").touch()
    (root / "b.mp4").touch()
    places = Places([root])
    listing = listed(places)
    (root / "folder").rmdir()
    (root / "a.mp4").unlink()
    (root / "a.mp4").mkdir()
    (root / "b.mp4").unlink()
    os.mkfifo(root / "b.mp4")
    for file in listing.files:
        with pytest.raises(RefusedError):
            places.file(file.entry.id)
    with pytest.raises(RefusedError):
        places.listing(listing.folders[0].id)


def test_roots_that_are_none_are_refused(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("absent", "loop", "a\0b"):
        with pytest.raises(UsageError, match="--folder"):
            Places([tmp_path / name])


def test_paths_are_shown_as_people_write_them(monkeypatch):
    home = Path.home()
    assert shown_path(home) == "~"
    assert shown_path(home / "Videos/1994") == "~/Videos/1994"
    assert shown_path(Path("/media/disk")) == "/media/disk"
    assert shown_path(home.with_name(f"{home.name}-other")) == f"{home}-other"
    monkeypatch.setattr(sys, "platform", "win32")
    assert shown_path(home / "Videos") == str(home / "Videos")


@pytest.mark.parametrize(
    ("platform", "program", "rest"),
    [
        ("linux", "xdg-open", ["{folder}"]),
        ("darwin", "open", ["-R", "{file}"]),
        ("win32", "explorer", ["/select,{file}"]),
    ],
)
def test_the_file_manager_is_opened_at_the_file(tmp_path, monkeypatch, platform, program, rest):
    begun = []

    def begin(command, **_):
        begun.append(command)
        return SimpleNamespace(wait=lambda _: int(platform == "win32"))  # as Windows' always does

    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr("subprocess.Popen", begin)
    file = tmp_path / "-a b.mp4"
    places_of_page.show_in_folder(file)
    names = {"folder": tmp_path, "file": file}
    assert begun == [[f"/bin/{program}", *(each.format(**names) for each in rest)]]


def test_without_a_file_manager_the_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(RefusedError, match=f"the file is in {tmp_path}"):
        places_of_page.show_in_folder(tmp_path / "a.mp4")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows always has its file manager")
def test_without_a_desktop_the_folder_is_named(tmp_path, monkeypatch):
    failing = shutil.which("false")
    monkeypatch.setattr("shutil.which", lambda name: failing)
    with pytest.raises(RefusedError, match=f"the file is in {tmp_path}"):
        places_of_page.show_in_folder(tmp_path / "a.mp4")
