"""What a command cannot write, or would write over what it reads, is refused before any work."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.videos import Command, MakeVideo

from vidrestore.media.probe import probe
from vidrestore.review.drawing import write_picture

pytestmark = pytest.mark.usefixtures("no_waiting")

LONG = "x" * 300
# Command line with OUT and IN, suffix of OUT.
WRITING = {
    "restore": ("restore IN OUT", ".mp4"),
    "framemd5": ("restore IN FREE.mp4 --framemd5 OUT", ".txt"),
    "report": ("restore IN FREE.mp4 --report OUT", ".html"),
    "preview": ("preview IN -o OUT", ".png"),
    "preview of two seconds": ("preview IN -o OUT", ".mp4"),
    "compare": ("compare IN IN -o OUT", ".png"),
    "compare videos": ("compare IN IN -o OUT", ".mp4"),
    "proxy": ("proxy IN -o OUT", ".mp4"),
    "analysis": ("analyze IN -o OUT", ".npz"),
    "shots": ("analyze IN --shots OUT", ".toml"),
    "cuts": ("analyze IN --shots OUT", ".edl"),
    "timeline": ("analyze IN --shots OUT", ".otio"),
    "contact sheet": ("analyze IN --contact-sheet OUT", ".png"),
    "network": ("personalize IN --person 1 -o OUT", ".safetensors"),
    "report of a training": ("personalize IN --person 1 -o FREE.safetensors --report OUT", ".html"),
    "sheet": ("weights try gpen-512 -o OUT", ".png"),
    "weights": ("weights convert IN -o OUT", ".pth"),
}  # fmt: skip
WORK = (
    "vidrestore.api.run", "vidrestore.review.preview.write_preview",
    "vidrestore.review.comparison.write_comparison", "vidrestore.analysis.cache.find_analysis",
    "vidrestore.review.proxy.write_proxy", "vidrestore.personal.run.forecast",
    "vidrestore.review.trial.chosen_restorer", "vidrestore.models.convert._read",
)  # fmt: skip


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where work is begun, of which there must be none."""
    begun: list[str] = []

    def begin(*_: object, **__: object) -> None:
        begun.append("work")
        raise AssertionError("work was begun")

    for name in WORK:
        monkeypatch.setattr(name, begin)
    return begun


def arguments(case: tuple[str, str], source: Path, target: Path) -> Sequence[object]:
    free = str(source.with_name("free"))
    names = {"IN": source, "OUT": target}
    return [names.get(word, word.replace("FREE", free)) for word in case[0].split()]


@pytest.mark.parametrize("case", WRITING.values(), ids=WRITING.keys())
def test_an_output_is_looked_at_before_any_work(
    case: tuple[str, str], make_video: MakeVideo, command: Command, tmp_path: Path, idle: list[str]
) -> None:
    source, suffix = make_video(frames=2), case[1]
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    bad = [tmp_path / "missing" / f"x{suffix}", tmp_path / f"{LONG}{suffix}", source / f"x{suffix}"]
    if "--contact-sheet" not in case[0]:
        bad.append(folder)
    if "--shots" in case[0] or "sheet" in case[0] or ("-o" in case[0] and "analyze" not in case[0]):
        bad.append(tmp_path / "x.gif")
    if suffix == ".mp4":
        bad.append(source)
    before = source.read_bytes()
    for target in bad:
        found = command(*arguments(case, source, target))
        assert found.status in (1, 2), target
        assert found.err.startswith("vidrestore: "), found.err
        assert "Error:" not in found.err, found.err
        assert idle == []
    assert source.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([source.name, folder.name])


@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "over another"])
@pytest.mark.parametrize("case", WRITING.values(), ids=WRITING.keys())
def test_what_is_no_ordinary_file_is_never_an_output(
    case: tuple[str, str], overwrite: bool, make_video: MakeVideo, command: Command,
    tmp_path: Path, idle: list[str],
) -> None:  # fmt: skip
    source, suffix = make_video(frames=2), case[1]
    pipe, device, loop, nowhere = (tmp_path / f"{n}{suffix}" for n in ("p", "d", "l", "n"))
    os.mkfifo(pipe)
    device.symlink_to(os.devnull)
    loop.symlink_to(loop)
    nowhere.symlink_to(tmp_path / "missing")
    before = {path.name: path.lstat().st_ino for path in tmp_path.iterdir()}
    more = ["--overwrite"] * (overwrite and "analyze" not in case[0])
    for target in (pipe, device, loop, nowhere):
        found = command(*arguments(case, source, target), *more)
        assert found.status == 2, found.err
        assert re.search("not an ordinary file|a link that leads to no file", found.said), found.err
        assert str(target) in found.said
        assert idle == []
    assert {path.name: path.lstat().st_ino for path in tmp_path.iterdir()} == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes no file")
@pytest.mark.parametrize("case", WRITING.values(), ids=WRITING.keys())
def test_a_folder_that_takes_no_file(
    case: tuple[str, str], make_video: MakeVideo, command: Command, idle: list[str]
) -> None:
    found = command(*arguments(case, make_video(frames=2), Path(f"/proc/x{case[1]}")))
    assert found.status == 1, found.err
    assert "the folder /proc" in found.said
    assert "cannot be written to" in found.said
    assert idle == []


@pytest.mark.parametrize("kind", ["pipe", "link", "loop"])
def test_no_pipe_and_no_link_among_the_numbered_outputs(
    kind: str, place_of_pictures: Path, command: Command, idle: list[str]
) -> None:
    bad = place_of_pictures / "out_0001.png"
    if kind == "pipe":
        os.mkfifo(bad)
    else:
        bad.symlink_to("missing" if kind == "link" else bad.name)
    found = command("restore", place_of_pictures / "in_%04d.png",
                    place_of_pictures / "out_%04d.png", "--overwrite")  # fmt: skip
    assert found.status == 2
    assert "out_0001.png is a" in found.said
    assert idle == []
    assert bad.is_symlink() or bad.is_fifo()


@pytest.fixture
def place_of_pictures(tmp_path: Path) -> Path:
    for number in range(3):
        write_picture(tmp_path / f"in_{number:04}.png", np.full((64, 96, 3), 99, np.uint8))
    return tmp_path


@pytest.mark.parametrize("kind", ["pipe", "link", "link to a file", "folder"])
def test_no_pipe_and_no_link_in_the_folder_of_a_layer(
    kind: str, make_video: MakeVideo, command: Command, tmp_path: Path
) -> None:
    source, folder = make_video(frames=2), tmp_path / "layer"
    folder.mkdir()
    bad = folder / "source.fill.mov"
    if kind == "pipe":
        os.mkfifo(bad)
    elif kind == "folder":
        bad.mkdir()
    else:
        bad.symlink_to(tmp_path / "missing" if kind == "link" else source)
    found = command("restore", source, tmp_path / "out.mkv", "--layer", folder, "--overwrite",
                    "--restorer", "fusion", "--detector", "haar")  # fmt: skip
    assert found.status == 2, found.err
    assert f"the layer {bad} is a" in found.said or "would replace a file of this run" in found.said
    assert [path.name for path in folder.iterdir()] == [bad.name]
    assert [path.name for path in tmp_path.iterdir() if path != folder] == [source.name]


def test_a_link_in_the_place_of_the_folder_of_a_layer(
    make_video: MakeVideo, command: Command, tmp_path: Path
) -> None:
    source, folder = make_video(frames=2), tmp_path / "layer"
    folder.symlink_to(tmp_path / "missing")
    found = command("restore", source, tmp_path / "out.mkv", "--layer", folder,
                    "--restorer", "fusion", "--detector", "haar")  # fmt: skip
    assert found.status == 2, found.err
    assert "is not a folder; give the name of a folder" in found.said


def test_an_output_by_a_link_replaces_what_the_link_leads_to(
    make_video: MakeVideo, command: Command, tmp_path: Path
) -> None:
    """The same for every output; here for the main one, which is renamed by itself."""
    source, link, there = make_video(frames=2), tmp_path / "out.mkv", tmp_path / "there" / "x.bin"
    there.parent.mkdir()
    there.write_bytes(b"of an earlier run")
    link.symlink_to(there)
    plain = ("--restorer", "fusion", "--detector", "haar")
    found = command("restore", source, link, *plain)
    assert found.status == 2
    assert f"the output {link} exists already" in found.said
    assert there.read_bytes() == b"of an earlier run"
    assert command("restore", source, link, *plain, "--overwrite").status == 0
    assert link.is_symlink()
    assert probe(there).info.width == 96
    assert sorted(path.name for path in there.parent.iterdir()) == [there.name]


def test_in_a_batch_a_pipe_is_not_taken_for_what_an_earlier_run_made(
    make_video: MakeVideo, command: Command, tmp_path: Path
) -> None:
    source, folder = make_video(frames=2), tmp_path / "out"
    folder.mkdir()
    os.mkfifo(folder / source.name)
    found = command("restore", source, "--output-dir", folder)
    assert found.status == 1
    assert "is a pipe and not an ordinary file" in f"{found.out}{found.err}"


@pytest.mark.parametrize("name", ["source.mp4", "truth.mp4", "restored.mp4", "compare.png"])
def test_a_demo_does_not_wait_for_a_pipe(name: str, command: Command, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    found = command("demo", tmp_path)
    assert found.status == 2
    assert f"{name} is a pipe" in found.said
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["sheet.png", "people/person_2.png"])
def test_no_pipe_among_the_pictures_of_people(
    name: str, make_video: MakeVideo, command: Command, tmp_path: Path, idle: list[str]
) -> None:
    bad = tmp_path / name
    bad.parent.mkdir(exist_ok=True)
    os.mkfifo(bad)
    sheet = bad if bad.parent == tmp_path else bad.parent
    found = command("analyze", make_video(frames=2), "--contact-sheet", sheet)
    assert found.status == 2
    assert f"{bad} is a pipe" in found.said
    assert idle == []


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
@pytest.mark.parametrize("case", WRITING.values(), ids=WRITING.keys())
def test_a_folder_that_is_closed(
    case: tuple[str, str], make_video: MakeVideo, command: Command, tmp_path: Path, idle: list[str]
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    found = command(*arguments(case, make_video(frames=2), closed / f"x{case[1]}"))
    assert found.status == 1
    assert idle == []


@pytest.mark.parametrize(
    "given",
    ["compare IN IN -o IN --overwrite", "preview IN -o IN --overwrite", "analyze IN -o IN",
     "restore IN IN --overwrite"],
)  # fmt: skip
def test_nothing_is_written_over_what_is_read(
    given: str, make_video: MakeVideo, command: Command, idle: list[str]
) -> None:
    source = make_video(frames=2)
    before = source.read_bytes()
    found = command(*(str(source) if word == "IN" else word for word in given.split()))
    assert found.status == 2
    assert source.read_bytes() == before
    assert idle == []


@pytest.mark.parametrize(
    ("given", "name"),
    [("--shots NAMED --framemd5 NAMED", "shots.toml"), ("--reference NAMED --live NAMED", "a.jpg"),
     ("--cuts NAMED --framemd5 NAMED", "cuts.edl")],
)  # fmt: skip
def test_nor_over_a_file_that_an_option_names(
    given: str, name: str, make_video: MakeVideo, command: Command, tmp_path: Path, idle: list[str]
) -> None:
    named = tmp_path / name
    named.write_bytes(b"# read")
    words = given.replace("NAMED", str(named)).split()
    found = command("restore", make_video(frames=2), tmp_path / "out.mp4", *words, "--overwrite")
    assert found.status == 2
    assert "is a file that the run reads; choose another name" in found.said
    assert named.read_bytes() == b"# read"
    assert idle == []


def test_two_files_of_one_name(
    make_video: MakeVideo, command: Command, tmp_path: Path, idle: list[str]
) -> None:
    shots = tmp_path / "x.toml"
    found = command("analyze", make_video(frames=2), "-o", shots, "--shots", shots)
    assert found.status == 2
    assert "written twice" in found.said
    assert idle == []


def test_a_folder_of_many_is_not_made_for_what_is_refused(
    make_video: MakeVideo, command: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    found = command("restore", make_video(frames=2), "--output-dir", out, "--people", "1")
    assert found.status == 2
    assert not out.exists()


@pytest.mark.parametrize("start", ["100", "0:01:00"])
@pytest.mark.parametrize("suffix", [".mp4", ".png"])
def test_a_comparison_past_the_end(
    start: str, suffix: str, make_video: MakeVideo, command: Command, tmp_path: Path
) -> None:
    source, target = make_video(frames=3), tmp_path / f"out{suffix}"
    flag = "--at" if suffix == ".png" else "--start"
    found = command("compare", source, source, "-o", target, flag, start)
    assert "Traceback" not in found.err
    assert found.status == 1
    assert "no picture at that time" in found.said
    assert sorted(p.name for p in tmp_path.iterdir()) == [source.name]


@pytest.mark.parametrize(
    "given",
    ["restore LONG.mp4 --output-dir out", "restore LONG.mp4 o.mp4", "restore IN o.mp4 --shots LONG",
     "restore IN o.mp4 --analysis LONG", "restore IN o.mp4 --plate LONG.mp4",
     "restore IN o.mp4 --profile LONG.toml", "restore IN o.mp4 --input-curve LONG.cube",
     "analyze IN --cuts LONG.edl", "compare LONG.mp4 IN -o o.mp4", "demo LONG"],
)  # fmt: skip
def test_a_name_that_is_too_long_is_one_sentence(
    given: str, make_video: MakeVideo, command: Command, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    source = make_video(frames=2)
    words = given.replace("LONG", LONG).replace("IN", str(source)).split()
    if words[0] in ("restore", "analyze"):
        words += ["--detector", "haar", *(["--restorer", "fusion"] * (words[0] == "restore"))]
    found = command(*words)
    assert found.status in (1, 2)
    assert "Error:" not in found.err
    assert "Error:" not in found.out


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e9"])
def test_a_size_of_faces_that_is_none(
    value: str, make_video: MakeVideo, command: Command, tmp_path: Path
) -> None:
    found = command("restore", make_video(frames=2), tmp_path / "o.mp4", "--restorer", "fusion",
                    "--detector", "haar", "--min-face", value)  # fmt: skip
    assert found.status == 2
    assert "distance between eyes must be from 0" in found.said
    assert "analyze" not in found.said  # no frame is decoded before
