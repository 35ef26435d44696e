"""What is written appears whole or not at all, and what killed runs left beside it goes."""

import ast
import errno
import os
import socket
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import vidrestore
from vidrestore.analysis import edl, shot_list
from vidrestore.common.errors import OutputError, UsageError, WeightsError
from vidrestore.common.files import (
    check_file_is_there,
    check_new,
    output_file,
    output_place,
    placed_together,
    written_atomically,
)
from vidrestore.media.framemd5 import Listing
from vidrestore.review.drawing import write_picture, write_pictures

# What a file is renamed to its place by, other than the one helper: the files of a layer, parts of
# a video within the work folder, folders, and finished downloads.
RENAMERS = {
    "common/files.py",
    "jobs/layer_output.py",
    "jobs/render.py",
    "jobs/work_folder.py",
    "models/download.py",
    "web/library.py",  # sets a damaged file aside
    "web/routes.py",  # an upload that arrived whole, in a folder of its own
}


def dead_pid() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_a_file_takes_the_place_of_the_old_one_only_if_nothing_is_raised(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with suppress(ValueError), written_atomically(path) as part:
        part.write_text("half")
        raise ValueError("on purpose")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    before = os.umask(0o027)
    try:
        with written_atomically(path) as part:
            assert part.name.startswith(f".a.txt.{os.getpid()}-")
            assert part.name.endswith(".part.txt")
            part.write_text("new")
            assert path.read_text() == "old"
    finally:
        os.umask(before)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_run_left_is_removed_by_the_next_that_writes_the_file(tmp_path):
    path = tmp_path / "m.txt"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from vidrestore.common.files import written_atomically\n"
        "with written_atomically(Path(sys.argv[1])) as part:\n"
        "    part.write_text('half'); print(part.name, flush=True); input()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with writer:
        left = tmp_path / writer.stdout.readline().strip()
        with written_atomically(path) as part:
            part.write_text("mine")
        assert left.read_text() == "half"  # it is being written
        writer.kill()
    with written_atomically(path) as part:
        part.write_text("mine, too")
    assert list(tmp_path.iterdir()) == [path]


def test_only_what_is_certainly_left_of_that_very_file_is_removed(tmp_path):
    path, dead = tmp_path / "m.txt", dead_pid()
    # By a process that is gone; with a number that another process has by now; as it was named.
    ours = [f".m.txt.{dead}-0a1b2c3d.part.txt", f".m.txt.{os.getppid()}-0a1b2c3d.part.txt",
            f".m.txt.{dead}.part"]  # fmt: skip
    others = [f".m.txt.{os.getpid()}.part", f".n.txt.{dead}.part", f".m.txt.{dead}.part.mp4",
              ".m.txt.part", f"m.txt.{dead}.part", f".m.txt.{dead}-0a1b2c3d.part.txt.bak",
              f".mxtxt.{dead}-0a1b2c3d.part.txt", ".m.txt.backup.part"]  # fmt: skip
    for name in (*ours, *others):
        (tmp_path / name).write_text(name)
    victim = tmp_path / "victim"
    victim.write_text("victim")
    link, folder = (tmp_path / f".m.txt.{dead}-0000000{n}.part.txt" for n in range(2))
    link.symlink_to(victim)
    folder.mkdir()
    with written_atomically(path) as part:
        part.write_text("new")
    assert {p.name for p in tmp_path.iterdir()} == {
        "m.txt", "victim", link.name, folder.name, *others
    }  # fmt: skip
    assert victim.read_text() == "victim"


def test_a_name_as_long_as_the_system_takes_can_be_written(tmp_path):
    path = tmp_path / ("x" * 250 + ".txt")
    with written_atomically(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"


def test_a_link_leads_to_the_file_that_is_replaced(tmp_path):
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    link.symlink_to(real)
    with output_file(link) as part:
        part.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder", "nothing", "loop"])
@pytest.mark.parametrize("by_link", [False, True], ids=["itself", "by a link"])
def test_what_is_no_ordinary_file_is_never_replaced(tmp_path, monkeypatch, kind, by_link):
    """Neither by whoever writes nor, earlier, by whoever looks whether it can be written."""
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    path, sentence = Path("a.txt"), f"is a {kind} and not an ordinary file; choose another name"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    elif kind == "device":
        path.symlink_to(os.devnull)
    elif kind == "folder":
        path.mkdir()
        sentence = "is a folder; give a file name in it"
    else:
        path.symlink_to("a.txt" if kind == "loop" else "missing.txt")
        sentence = "is a link that leads to no file; remove it or choose another name"
    if by_link:
        Path("b.txt").symlink_to(path)
        path = Path("b.txt")
    before = {each.name: each.lstat().st_ino for each in Path().iterdir()}
    with pytest.raises(UsageError) as refused:
        check_new(path, overwrite=True, what="the listing")
    assert str(refused.value) == f"the listing {path} {sentence}"
    with pytest.raises(UsageError) as refused, output_file(path, "the listing") as part:
        part.write_text("new")
    assert str(refused.value) == f"the listing {path} {sentence}"
    assert {each.name: each.lstat().st_ino for each in Path().iterdir()} == before


def test_a_place_where_no_file_may_go_is_refused_before_the_work(tmp_path):
    source, target, path = (tmp_path / name for name in ("source.mkv", "clear.mkv", "frames.txt"))
    source.write_bytes(b"video")

    def check(path: Path, *, overwrite: bool = True) -> None:
        check_new(path, overwrite=overwrite, what="the listing", inputs=[source], outputs=[target])

    check(path, overwrite=False)
    for name, error, words in (
        ("source.mkv", UsageError, "is the input itself"),
        ("x/../clear.mkv", UsageError, "is the output itself"),
        (".", UsageError, "is a folder"),
        ("nowhere/frames.txt", OutputError, "nowhere for the listing does not exist"),
        ("n" * 300, OutputError, "file name too long"),
        ("source.mkv/x.txt", OutputError, "does not exist"),
    ):
        with pytest.raises(error, match=words):
            check(tmp_path / name)
    os.link(source, tmp_path / "hard.txt")
    (tmp_path / "soft.txt").symlink_to(source)
    for name in ("hard.txt", "soft.txt"):
        with pytest.raises(UsageError, match="is the input itself"):
            check(tmp_path / name)
    path.write_text("of an earlier run")
    (tmp_path / "link.txt").symlink_to(path)
    for name in ("frames.txt", "link.txt"):
        check(tmp_path / name)
        with pytest.raises(UsageError, match=rf"{name} exists already; add --overwrite"):
            check(tmp_path / name, overwrite=False)
    assert path.read_text() == "of an earlier run"
    assert not list(tmp_path.glob(".*"))


def test_a_file_to_read_that_is_not_there_is_named(tmp_path):
    (file := tmp_path / "parser.onnx").write_bytes(b"")
    check_file_is_there(file, "the parser", WeightsError)
    for name, advice, words in (
        ("no.onnx", "check its name", r"the parser .*no\.onnx does not exist; check its name$"),
        ("no.onnx", "", r"the parser .*no\.onnx does not exist$"),
        (".", "", "is a folder"),
        ("n" * 300, "", "n cannot be reached: file name too long$"),
    ):
        with pytest.raises(WeightsError, match=words):
            check_file_is_there(tmp_path / name, "the parser", WeightsError, advice)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nothing is made")
def test_a_folder_in_which_not_even_the_superuser_makes_a_file(tmp_path):
    with pytest.raises(OutputError, match=r"the folder /proc cannot be written to: "):
        check_new(Path("/proc/x.png"), overwrite=False)
    link = tmp_path / "x.png"
    link.symlink_to("/proc/version")
    with pytest.raises(OutputError, match=r"the folder /proc cannot be written to: "):
        check_new(link, overwrite=True)


PTS, CLOCK = np.arange(2000), edl.Fraction(1, 25)


def _shots(path: Path) -> None:
    shots = tuple(shot_list.Shot(start, start + 1, (1,)) for start in range(len(PTS)))
    shot_list.write(shot_list.ShotList(shots, "tape.mkv"), path, PTS, CLOCK)


def _cuts(path: Path) -> None:
    edl.write_cuts(path, [(n, n + 1) for n in range(1000)], PTS, CLOCK, 1 / CLOCK, "tape")


def _picture(path: Path) -> None:
    write_picture(path, np.random.default_rng(1).integers(0, 256, (200, 200, 3), np.uint8))


def _listing(path: Path) -> None:
    with Listing(path, Path("in.mkv"), Path("out.mkv")) as listing:
        listing.write_header(CLOCK, "yuv420p", "x" * 50_000)
        listing.finish()
        with placed_together([listing.move]):
            pass


WRITERS = {"shots.toml": _shots, "cuts.edl": _cuts, "sheet.png": _picture, "md5.txt": _listing}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("old", [None, b"the old one"])
def test_a_full_disk_leaves_the_old_file_and_no_empty_one(disk, name, old):
    path = disk.folder / name
    if old is not None:
        path.write_bytes(old)
    disk.remount("size=8k")
    with pytest.raises(OutputError, match=r"^no space is left in .*; make room and run"):
        WRITERS[name](path)
    assert [each.read_bytes() for each in disk.folder.iterdir()] == [old] * (old is not None)
    disk.remount("size=64m")
    WRITERS[name](path)
    assert path.stat().st_size > 8192
    assert list(disk.folder.iterdir()) == [path]


@pytest.mark.parametrize("old", [None, b"the old one"])
def test_of_two_pictures_on_a_full_disk_none_is_left(disk, old):
    paths = [disk.folder / f"x.{side}.png" for side in ("before", "after")]
    if old is not None:
        for path in paths:
            path.write_bytes(old)
    noise = np.random.default_rng(1).integers(0, 256, (128, 64, 3), np.uint8)
    pictures = [(paths[0], noise[:64]), (paths[1], noise)]
    disk.remount("size=40k")  # the first takes 16, the second 28
    with pytest.raises(OutputError, match="no space is left in "):
        write_pictures(pictures)
    assert [path.read_bytes() for path in disk.folder.iterdir()] == [old] * 2 * (old is not None)
    disk.remount("size=1m")
    write_pictures(pictures)
    assert sorted(disk.folder.iterdir()) == sorted(paths)


def _placed(moves: list[tuple[Path, Path]], fails_at: int, monkeypatch) -> bool:
    """Whether all were placed where the rename of that number fails, or the scope at -1."""
    renames, rename = iter(range(100)), Path.replace

    def failing(self: Path, target: Path) -> Path:
        if next(renames) == fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return rename(self, target)

    with monkeypatch.context() as during:
        during.setattr(Path, "replace", failing)
        try:
            with placed_together(moves):
                if fails_at == -1:
                    raise OSError("in the scope")
        except OSError:
            return False
    return True


@pytest.mark.parametrize("there", [(), (1,), (0, 1, 2)])
@pytest.mark.parametrize("fails_at", [-1, 0, 1, 2, 3])
def test_files_that_belong_together_are_placed_all_or_none(tmp_path, monkeypatch, there, fails_at):
    moves = [(tmp_path / "work" / f"{n}", tmp_path / f"{n}.png") for n in range(3)]
    (tmp_path / "work").mkdir()
    for number, (file, place) in enumerate(moves):
        file.write_text("new")
        if number in there:
            place.write_text("old")
    ended = _placed(moves, fails_at, monkeypatch)
    assert ended == (fails_at == 3)
    found = {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()}
    kept = {f"{number}.png": "old" for number in there}
    assert found == ({place.name: "new" for _, place in moves} if ended else kept)
    left = sorted(path.read_text() for path in (tmp_path / "work").iterdir())
    assert left == ([] if ended else ["new"] * 3)


def test_what_was_replaced_stays_so_where_no_file_has_a_second_name(tmp_path, monkeypatch):
    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    moves = [(tmp_path / f"{n}.new", tmp_path / f"{n}.png") for n in range(3)]
    for file, _ in moves:
        file.write_text("new")
    moves[0][1].write_text("old")
    assert not _placed(moves, 2, monkeypatch)
    assert {path.name for path in tmp_path.iterdir()} == {"0.png", "1.new", "2.new"}
    assert moves[0][1].read_text() == "new"


def test_a_link_to_another_disk_is_followed(tmp_path, disk):
    there, file, link = disk.folder / "there.png", tmp_path / "new.png", tmp_path / "link.png"
    there.write_text("old")
    file.write_text("new")
    link.symlink_to(there)
    with placed_together([(file, output_place(link))]):
        assert there.read_text() == "new"
    assert link.is_symlink()
    assert list(disk.folder.iterdir()) == [there]


def test_nothing_else_renames_a_file_to_its_place():
    """A call `.replace(one)` of a path, told from those of text and dataclasses."""
    root, found = Path(vidrestore.__file__).parent, set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            is_one = len(node.args) == 1 and not node.keywords
            if node.func.attr == "replace" and (is_one or ast.unparse(node.func) == "os.replace"):
                found.add(path.relative_to(root).as_posix())
            if node.func.attr == "rename" and is_one:
                found.add(path.relative_to(root).as_posix())
    assert found == RENAMERS
