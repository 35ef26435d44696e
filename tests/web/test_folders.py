"""Folders of the page's own: what is removed, and what a later page takes over."""

from pathlib import Path

import pytest

from vidrestore.web.folders import OwnFolders


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "tape.mp4").write_bytes(b"the only copy")
    return folder


def test_a_folder_is_removed_only_where_it_was_made(tmp_path, victim):
    root = tmp_path / "root"
    folders = OwnFolders(root)
    own, other = folders.make(), folders.make()
    (own / "file").touch()
    (own / "link").symlink_to(victim)
    foreign = root / ("a" * 32)
    foreign.mkdir()
    for folder in (victim, foreign, root, root.parent, own / "..", own / "file", own / "../victim"):
        assert not folders.remove(folder)
    assert foreign.is_dir()
    assert own.is_dir()
    assert own.stat().st_mode & 0o777 == 0o700
    assert folders.remove(own)
    assert not own.exists()
    assert (victim / "tape.mp4").exists()
    assert other.is_dir()
    own.mkdir()  # in the place of one that is gone
    assert not folders.remove(own)


def test_what_is_in_the_place_of_a_folder_is_not_removed(tmp_path, victim):
    folders = OwnFolders(tmp_path / "root")
    linked, swapped = folders.make(), folders.make()
    linked.rmdir()
    linked.symlink_to(victim)
    swapped.rename(tmp_path / "kept")
    victim.rename(swapped)
    assert not folders.remove(linked)
    assert not folders.remove(swapped)
    assert (swapped / "tape.mp4").exists()


def test_a_root_that_became_a_link_is_not_followed(tmp_path):
    folders = OwnFolders(tmp_path / "root")
    own = folders.make()
    (tmp_path / "root").rename(tmp_path / "moved")
    (tmp_path / "root").symlink_to(tmp_path / "moved")
    assert not folders.remove(own)
    assert (tmp_path / "moved" / own.name).is_dir()


def test_a_later_page_takes_over_only_what_a_page_can_have_made(tmp_path, victim):
    root = tmp_path / "root"
    own = OwnFolders(root).make()
    (own / "file").touch()
    (root / "linked").symlink_to(victim)
    (root / ("b" * 32)).symlink_to(victim)
    (root / ("c" * 32)).touch()
    later = OwnFolders(root)
    assert not later.remove(own)
    for name in ("linked", "b" * 32, "c" * 32, "d" * 32, "..", "../victim", "", f"{own.name}/"):
        assert later.adopt(name) is None
    assert own.name in later.names()
    assert "linked" not in later.names()
    assert later.adopt(own.name) == own
    assert later.remove(own)
    assert not own.exists()
    assert OwnFolders(tmp_path / "absent").names() == []
