"""What the page keeps on disk, what it removes, and what it survives."""

import errno
import json
import os
import time
from pathlib import Path

import pytest

from vidrestore.common.errors import OutputError
from vidrestore.web import library as library_of_page
from vidrestore.web.choices import Choices
from vidrestore.web.library import LOCAL_OWNER, Library, Restoration, Video, new_id, size_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "ui"
    folder.mkdir()
    return folder


def add_video(library: Library, *, is_upload: bool = True, name: str = "tape.mp4") -> Video:
    upload = library.uploads.make() if is_upload else None
    path = (upload or library.folder.parent) / name
    path.write_bytes(b"12345")
    job = library.new_job(LOCAL_OWNER)
    job.state, job.outcome = "done", {"analysis": {"people": []}}
    library.keep_outcome(job)
    video = Video(
        id=new_id(),
        owner=LOCAL_OWNER,
        path=path,
        upload=upload,
        bytes=5,
        modified_ns=1,
        used_seconds=time.time(),
        choices=Choices(people=[1, 2], start_seconds=1.5),
        names={"home-video auto": {1: "Anna", 2: "Ünal \U0001f600"}},
        analysis=job,
    )
    library.videos[video.id] = video
    return video


def add_restoration(library: Library, video: Video, state: str = "done") -> Restoration:
    job = library.new_job(LOCAL_OWNER)
    job.state = state
    restoration = Restoration(
        id=new_id(),
        owner=LOCAL_OWNER,
        video=video.id,
        source=video.path,
        source_bytes=5,
        source_modified_ns=1,
        target=job.folder / "tape-clear.mp4",
        choices=video.choices,
        settings_shown="Home video",
        overwrite=False,
        used_seconds=time.time(),
        job=job,
    )
    library.restorations[restoration.id] = restoration
    return restoration


def test_the_next_page_finds_all_of_it(folder):
    library = Library(folder)
    odd = os.fsdecode(b"\xff a\n.mp4")
    video = add_video(library, name=odd)
    first, second = add_restoration(library, video), add_restoration(library, video, "paused")
    library.port, library.keep_days = 1234, 3
    library.save()
    again = Library(folder)
    found = again.videos[video.id]
    assert found.model_dump() == video.model_dump()
    assert found.path == video.path
    assert found.own_names == {1: "Anna", 2: "Ünal \U0001f600"}
    assert found.choices.people == [1, 2]
    assert found.analysis.outcome == {"analysis": {"people": []}}
    assert list(again.restorations) == [first.id, second.id]
    assert again.restorations[second.id].job.state == "paused"
    assert (again.port, again.keep_days) == (1234, 3)
    assert again.version > 0
    assert again.notices == []
    assert again.uploads.holds(found.upload)
    assert again.work.holds(found.analysis.folder)


def test_only_what_has_changed_is_written(folder):
    library = Library(folder)
    library.save_if_changed()
    assert not (folder / "library.json").exists()
    before = library.version
    library.shown_anew()
    library.save_if_changed()
    assert not (folder / "library.json").exists()
    library.changed()
    assert library.version == before + 2
    library.save_if_changed()
    written = (folder / "library.json").stat().st_mtime_ns
    library.save_if_changed()
    assert (folder / "library.json").stat().st_mtime_ns == written


def test_a_power_cut_leaves_the_old_list_or_the_new_one(folder, monkeypatch):
    """At every step of the writing."""
    library = Library(folder)
    video = add_video(library)
    library.save()
    kept = (folder / "library.json").read_bytes()
    for step in ("write_text", "replace"):
        with monkeypatch.context() as patch:

            def cut(*_: object, **__: object) -> None:
                raise KeyboardInterrupt

            patch.setattr(Path, step, cut)
            library.keep_days = 99
            with pytest.raises(KeyboardInterrupt):
                library.save()
        assert (folder / "library.json").read_bytes() == kept
        assert video.id in Library(folder).videos


def test_a_full_disk_is_said_until_there_is_room(folder, monkeypatch):
    library = Library(folder)
    add_video(library)
    with monkeypatch.context() as patch:

        def fail(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(library_of_page, "written_atomically", fail)
        library.changed()
        library.save_if_changed()
        library.save_if_changed()
        (notice,) = library.notices
        assert "the disk is full" in notice
    version = library.version
    library.save_if_changed()
    assert library.notices == []
    assert library.version > version
    assert len(Library(folder).videos) == 1


def test_a_folder_that_cannot_be_made_on_a_full_disk_is_a_sentence(folder, monkeypatch):
    library = Library(folder)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(library.work), "make", fail)
    with pytest.raises(OutputError, match="no space is left"):
        library.new_job(LOCAL_OWNER)


DAMAGES = [
    b"", b"{", b"null", b"[]", b"{}x", b"\xff\xfe", b"\0" * 4096, b'{"version": 1, "videos": [{}]}',
    b'{"version": 1, "more": 1}', b'{"version": "1"}', b'{"version": 0}', b"[" * 100_000,
    b'{"version": 1, "keep_days": -1}',
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: repr(damage[:20]))
def test_a_damaged_list_is_set_aside_and_uploads_are_found_again(folder, damage):
    library = Library(folder)
    video, other = add_video(library), add_video(library, is_upload=False)
    library.save()
    (folder / "uploads" / ("e" * 32)).mkdir()  # of an upload that was not whole
    (folder / "uploads" / ("e" * 32) / ".part").write_bytes(b"123")
    (folder / "library.json").write_bytes(damage)
    again = Library(folder)
    (notice,) = again.notices
    assert "damaged" in notice
    (aside,) = folder.glob("library-damaged-*.json")
    assert aside.read_bytes() == damage
    (found,) = again.videos.values()
    assert (found.path, found.bytes) == (video.path, 5)
    assert other.path.exists()
    # What it no longer names goes when it is old, and not before.
    work = video.analysis.folder
    now = time.time()
    again.drop_orphans(now)
    assert work.exists()
    again.drop_orphans(now + 15 * 24 * 3600)
    assert not work.exists()
    assert video.path.exists()


def test_a_list_that_is_gone_is_no_reason_to_remove_uploads(folder):
    library = Library(folder)
    video = add_video(library)
    library.save()
    (folder / "library.json").unlink()
    assert [each.path for each in Library(folder).videos.values()] == [video.path]


def test_folders_that_a_crash_left_without_a_mention_go(folder):
    library = Library(folder)
    video = add_video(library)
    library.save()
    left, half = library.work.make(), library.uploads.make()
    (half / ".part").write_bytes(b"half a video")
    (folder / "work" / "notes").mkdir()  # which no page made
    Library(folder)
    assert not left.exists()
    assert not half.exists()
    assert video.path.exists()
    assert (folder / "work" / "notes").exists()


def test_what_lost_its_folder_is_made_again(folder):
    library = Library(folder)
    video = add_video(library)
    video.moment = library.new_job(LOCAL_OWNER)
    video.moment.state = "done"
    done = add_restoration(library, video)
    library.save()
    for job in library.all_jobs():
        for path in job.folder.iterdir():
            path.unlink()
        job.folder.rmdir()
    again = Library(folder)
    found = again.videos[video.id]
    assert found.analysis.state == "waiting"
    assert found.moment is None
    assert again.restorations[done.id].job.state == "done"


def test_a_folder_in_whose_place_a_link_was_put_is_not_used(folder, tmp_path):
    library = Library(folder)
    video = add_video(library)
    library.save()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "tape.mp4").write_bytes(b"the only copy")
    video.path.unlink()
    video.upload.rmdir()
    video.upload.symlink_to(elsewhere)
    again = Library(folder)
    assert not again.uploads.holds(video.upload)
    del again.videos[video.id]
    again.drop_upload(video.upload)
    assert (elsewhere / "tape.mp4").exists()


def test_an_upload_stays_while_anything_needs_it(folder):
    library = Library(folder)
    video = add_video(library)
    restoration = add_restoration(library, video)
    library.drop_upload(video.upload)
    assert video.path.exists()
    del library.videos[video.id]
    library.drop_upload(video.upload)
    assert video.path.exists()
    del library.restorations[restoration.id]
    library.drop_upload(video.upload)
    assert not video.upload.exists()


def test_age_counts_from_the_last_use_and_never_is_never(folder):
    library = Library(folder)
    day = 24 * 3600
    assert not library.expired(0, 14 * day)
    assert library.expired(0, 14 * day + 1)
    assert not library.expired(100 * day, 0)  # a clock that was set back
    library.keep_days = 0
    assert not library.expired(0, 10**6 * day)


def test_the_size_of_a_folder_counts_no_links(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_bytes(b"12345")
    (tmp_path / "a/d").write_bytes(b"123")
    (tmp_path / "large").write_bytes(bytes(10**6))
    (tmp_path / "a/link").symlink_to(tmp_path / "large")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    assert 8 <= size_of(tmp_path / "a") < 10**5
    assert size_of(tmp_path / "absent") == 0


def test_the_list_is_plain_json(folder):
    library = Library(folder)
    add_restoration(library, add_video(library))
    library.save()
    kept = json.loads((folder / "library.json").read_text("ascii"))
    assert kept["version"] == 1
    assert "outcome" not in kept["videos"][0]["analysis"]
