"""Two runs on one output, and a run after one that was killed."""

import errno
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers.media import (
    AS_PAINTED,
    Painter,
    analysis_of_file,
    mild_image,
    plain_track,
    write_video,
)

import vidrestore
from vidrestore.api import restore_video
from vidrestore.common import files
from vidrestore.common.errors import UsageError
from vidrestore.common.files import held, held_folder
from vidrestore.common.profiles import load_settings
from vidrestore.jobs import run as run_module
from vidrestore.media.probe import probe

PAINTED = load_settings(options=AS_PAINTED)


class Waiting(Painter):
    """Does not go on until it is told to."""

    def __init__(self):
        super().__init__()
        self.reached, self.go = threading.Event(), threading.Event()

    def __call__(self, windows):
        self.reached.set()
        assert self.go.wait(60)
        return super().__call__(windows)


@pytest.fixture
def request_of(tmp_path):
    images = [mild_image(96, 80, "yuv420p", i) for i in range(3)]
    source = write_video(tmp_path / "source.mp4", images, codec="libx264")
    analysis = analysis_of_file(source, [plain_track(3, centre=(50, 40), side=40)])
    return source, tmp_path / "out.mp4", analysis


def test_a_second_run_on_the_same_output_is_refused_and_harms_nothing(request_of):
    source, target, analysis = request_of
    first, results = Waiting(), []

    def run():
        results.append(restore_video(source, target, PAINTED, restorer=first, analysis=analysis))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert first.reached.wait(60)
        with pytest.raises(UsageError, match=r"another run is writing .*out\.mp4"):
            restore_video(source, target, PAINTED, restorer=Painter(), analysis=analysis)
    finally:
        first.go.set()
        thread.join()
    assert results[0].faces == 3
    assert probe(target).info.width == 96
    assert not target.with_name("out.mp4.vidrestore").exists()


def test_a_run_that_another_one_overtook_does_not_replace_its_output(request_of, monkeypatch):
    """It has looked for the output before, and gets the lock after the other one has ended."""
    source, target, analysis = request_of
    work_folder = run_module.work_folder

    def late(*given):
        monkeypatch.setattr(run_module, "work_folder", work_folder)
        restore_video(source, target, PAINTED, restorer=Painter(), analysis=analysis)
        overtaker.append(target.read_bytes())
        return work_folder(*given)

    overtaker, second = [], Painter()
    monkeypatch.setattr(run_module, "work_folder", late)
    with pytest.raises(UsageError, match=r"out\.mp4 exists already; add --overwrite"):
        restore_video(source, target, PAINTED, restorer=second, analysis=analysis)
    assert [target.read_bytes()] == overtaker
    assert second.batches == []
    assert not target.with_name("out.mp4.vidrestore").exists()


def test_a_work_folder_that_another_run_removes_is_made_again(request_of, monkeypatch):
    source, target, analysis = request_of

    def late(path, *, wait):
        monkeypatch.undo()
        path.parent.rmdir()
        return held(path, wait=wait)

    monkeypatch.setattr(files, "held", late)
    assert restore_video(source, target, PAINTED, restorer=Painter(), analysis=analysis).faces == 3


@pytest.mark.parametrize("name", ["folder", "folder/lock"])
def test_a_link_to_nowhere_is_no_folder_that_another_run_removed(tmp_path, name):
    link = tmp_path / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "missing" / "nowhere")
    with pytest.raises(OSError, match="folder"), held_folder(tmp_path / "folder"):
        pass
    assert link.is_symlink()


def test_what_a_killed_run_left_is_cleared_away(request_of):
    source, target, analysis = request_of
    left = target.with_name("out.mp4.vidrestore")
    left.mkdir()
    code = (
        "import sys; from pathlib import Path; from vidrestore.common.files import held\n"
        "with held(Path(sys.argv[1]), wait=False): print('held', flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(left / "lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout.readline() == "held\n"
        (left / "video.mp4").write_bytes(b"half")
        with pytest.raises(UsageError, match="another run"):
            restore_video(source, target, PAINTED, restorer=Painter(), analysis=analysis)
        assert (left / "video.mp4").read_bytes() == b"half"
        holder.kill()
    assert restore_video(source, target, PAINTED, restorer=Painter(), analysis=analysis).faces == 3
    assert not left.exists()


def test_a_lock_whose_file_was_removed_is_no_lock(tmp_path):
    path = tmp_path / "lock"
    with held(path, wait=False):
        path.unlink()
        with held(path, wait=False), pytest.raises(BlockingIOError), held(path, wait=False):
            pass


@pytest.mark.parametrize("reason", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_where_the_file_system_has_no_locks_nothing_waits(tmp_path, monkeypatch, reason):
    def refuse(descriptor, *, blocking):
        raise OSError(reason, "no locks here")

    monkeypatch.setattr(files, "lock_descriptor", refuse)
    with held(tmp_path / "lock", wait=True), held(tmp_path / "lock", wait=False):
        pass


def test_another_error_of_a_lock_is_told(tmp_path, monkeypatch):
    def fail(descriptor, *, blocking):
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(files, "lock_descriptor", fail)
    with pytest.raises(OSError, match="the disk is gone"), held(tmp_path / "lock", wait=True):
        pass


def test_locks_are_made_by_the_library_in_one_place():
    package = Path(vidrestore.__file__).parent
    texts = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    assert [path for path, text in texts.items() if "fcntl" in text or "msvcrt" in text] == []
    assert [path for path, text in texts.items() if "filelock" in text] == [Path(files.__file__)]
