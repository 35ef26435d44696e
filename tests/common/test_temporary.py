"""Temporary folders: private, gone at the end, and after a kill gone at the next start."""

import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from vidrestore.common.errors import OutputError
from vidrestore.common.temporary import temporary_folder

HOLDS = """
import sys, time
from pathlib import Path
from vidrestore.common.temporary import temporary_folder
with temporary_folder(Path(sys.argv[1])) as folder:
    (folder / "r").mkdir(mode=0o777)
    (folder / "r" / "big").write_bytes(bytes(1000))
    print(folder, flush=True)
    time.sleep(60)
"""


def test_private_and_gone_at_the_end(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as folder:
        (folder / "file").write_bytes(b"1")
        folder.chmod(0o777)  # as Ray does with the one that it is given
        assert folder.parent.parent == tmp_path
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_removed_and_a_living_one_is_not(tmp_path: Path) -> None:
    runs = [
        subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    left, living = (Path(run.stdout.readline().strip()) for run in runs if run.stdout)
    runs[0].send_signal(signal.SIGKILL)
    runs[0].communicate()
    assert left.exists()
    try:
        with temporary_folder(tmp_path) as folder:
            assert not left.exists()
            assert (living / "r" / "big").exists()
        assert not folder.exists()
        assert (living / "r" / "big").exists()
    finally:
        runs[1].kill()
        runs[1].communicate()
    with temporary_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as folder:
        name = folder.parent.name
    (tmp_path / "other").mkdir()
    (tmp_path / name).symlink_to(tmp_path / "other")
    with (
        pytest.raises(OutputError, match="is not a folder of this user"),
        temporary_folder(tmp_path),
    ):
        pass
    assert list((tmp_path / "other").iterdir()) == []
