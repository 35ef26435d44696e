"""Folders of the page's own and what is stored in them: what may be named, and what is removed."""

import asyncio
from pathlib import Path

import pytest

from vidrestore.web.folders import OwnFolders
from vidrestore.web.session import AnalysisOptions, RestoreOptions, Session, pair_of, target_of
from vidrestore.web.uploads import Upload, Uploads

HAAR = AnalysisOptions("none", "haar")


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "tape.mp4").write_bytes(b"the only copy")
    return folder


def store(uploads: Uploads, owner: str = "me", name: str = "tape.mp4") -> Upload:
    folder = uploads.make_folder()
    (folder / "sum").mkdir()
    path = folder / "sum" / name
    path.write_bytes(b"some bytes")
    upload = uploads.keep(folder, path, owner)
    assert upload is not None
    return upload


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


def test_only_an_upload_of_ones_own_is_found(tmp_path, victim):
    uploads = Uploads(tmp_path / "uploads")
    upload = store(uploads)
    named = str(upload.path)
    assert uploads.find(named, "me") is upload
    assert uploads.find(named, "other") is None
    link = upload.folder / "link.mp4"
    link.symlink_to(victim / "tape.mp4")
    for other in (str(victim / "tape.mp4"), str(link), named + "/", str(upload.folder), ""):
        assert uploads.find(other, "me") is None
    upload.path.unlink()
    upload.path.symlink_to(victim / "tape.mp4")
    assert uploads.find(named, "me") is None


@pytest.mark.parametrize("what", ["link", "folder", "outside", "absent"])
def test_what_is_no_file_in_the_folder_is_not_kept(tmp_path, victim, what):
    uploads = Uploads(tmp_path / "uploads")
    folder = uploads.make_folder()
    (folder / "link").symlink_to(victim / "tape.mp4")
    (folder / "folder").mkdir()
    paths = {"outside": victim / "tape.mp4"}
    assert uploads.keep(folder, paths.get(what, folder / what), "me") is None
    uploads.drop_folder(folder)
    assert not folder.exists()
    assert (victim / "tape.mp4").exists()


def test_the_last_job_of_a_video_takes_it_along_and_no_other(tmp_path):
    async def test():
        session = Session(tmp_path / "page")
        first, second = store(session.uploads), store(session.uploads)
        first_job, other = (session.analyze("me", str(each.path), HAAR) for each in (first, second))
        renewed = session.analyze_again("me", first_job.job_id, AnalysisOptions("none", "yunet"))
        assert first_job not in session.analyses.jobs
        assert first.path.exists()
        session.analyses.remove(renewed)
        assert not first.folder.exists()
        assert second.path.read_bytes() == b"some bytes"
        assert other.folder.is_dir()

    asyncio.run(test())


def test_a_job_on_a_file_that_was_never_uploaded_removes_nothing_of_it(tmp_path, victim):
    async def test():
        session = Session(tmp_path / "page")
        job = session.analyses.add("me", victim / "tape.mp4", lambda folder: ("analyze", "x"))
        session.analyses.remove(job)
        assert not job.folder.exists()

    asyncio.run(test())
    assert (victim / "tape.mp4").exists()


def test_a_visitor_gets_no_file_of_another_and_drops_no_preview_of_another(tmp_path):
    async def test():
        session = Session(tmp_path / "page")
        mine, yours = (
            session.analyze(who, str(store(session.uploads, who).path), HAAR)
            for who in ("me", "you")
        )
        order = RestoreOptions(HAAR, "fusion", 1.0, ())
        for job in (mine, yours):
            job.outcome = {"analysis": {"people": []}}
        previews = [
            session.preview(job.owner, job.job_id, 0.5, order, close=False) for job in (mine, yours)
        ]
        renewed = session.preview("me", mine.job_id, 0.6, order, close=False)
        assert previews[0] not in session.analyses.jobs
        assert previews[1] in session.analyses.jobs
        job = session.restore("me", mine.job_id, "high", ".mp4", order)
        job.state = "done"
        before = str(pair_of(renewed)[0])
        assert session.result("me", job.job_id) == target_of(job)
        assert session.portrait("me", mine.job_id, 1) is not None
        assert session.file_for_page("me", before) is not None
        assert session.file_for_page("me", str(mine.source)) == mine.source
        assert session.result("you", job.job_id) is None
        assert session.portrait("you", mine.job_id, 1) is None
        assert session.file_for_page("you", before) is None
        assert session.file_for_page("you", str(mine.source)) is None
        assert session.file_for_page("me", "/etc/passwd") is None

    asyncio.run(test())
