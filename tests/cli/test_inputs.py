"""A pipe, a device or a folder where a command reads a file: one sentence, and no waiting."""

import os
from pathlib import Path

import pytest
from helpers import sources
from helpers.videos import Command, MakeVideo

PLAIN = " --restorer fusion --detector haar"
# Command line with IN and BAD, which has the suffix.
READING = {
    "source": ("restore BAD FREE.mp4" + PLAIN, ".mp4"),
    "picture": ("restore BAD FREE.png" + PLAIN, ".png"),
    "shots": ("restore IN FREE.mp4 --shots BAD" + PLAIN, ".toml"),
    "cuts": ("analyze IN --cuts BAD --detector haar", ".edl"),
    "timeline": ("analyze IN --cuts BAD --detector haar", ".otio"),
    "timeline in XML": ("restore IN FREE.mp4 --cuts BAD" + PLAIN, ".fcpxml"),
    "curve": ("analyze IN --input-curve BAD --detector haar", ".cube"),
    "analysis": ("restore IN FREE.mp4 --analysis BAD" + PLAIN, ".npz"),
    "profile": ("restore IN FREE.mp4 --profile BAD" + PLAIN, ".toml"),
    "profile without a suffix": ("restore IN FREE.mp4 --profile BAD" + PLAIN, ""),
    "before the swap": ("restore IN FREE.mp4 --before-swap BAD" + PLAIN, ".mp4"),
    "plate": ("restore IN FREE.mp4 --plate BAD" + PLAIN, ".mp4"),
    "upscaler": ("restore IN FREE.mp4 --scale 2 --upscaler BAD" + PLAIN, ".onnx"),
    "parser": ("restore IN FREE.mp4 --set paste.parser=BAD" + PLAIN, ".onnx"),
    "restorer": ("restore IN FREE.mp4 --detector haar --restorer BAD", ".pth"),
    "weights to try": ("weights try BAD -o FREE.png", ".pth"),
    "weights to convert": ("weights convert BAD -o FREE.pth", ".pth"),
    "photo": ("restore IN FREE.mp4 --reference BAD" + PLAIN, ".jpg"),
    "shots of a moment": ("preview IN -o FREE.png --shots BAD" + PLAIN, ".toml"),
    "moment": ("preview BAD -o FREE.png" + PLAIN, ".mp4"),
    "one of two": ("compare IN BAD -o FREE.png", ".mp4"),
    "two pictures": ("compare BAD BAD -o FREE.png", ".png"),
    "output to measure": ("evaluate BAD --source IN --detector haar", ".mp4"),
    "truth": ("evaluate IN --source IN --reference BAD --detector haar", ".mp4"),
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
@pytest.mark.parametrize("case", READING.values(), ids=READING.keys())
def test_what_is_no_file_is_named_and_not_read(
    case: tuple[str, str], kind: str, make_video: MakeVideo, command: Command, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    source, (given, suffix) = make_video(frames=3), case
    bad = tmp_path / f"bad{suffix}"
    if kind == "pipe":
        os.mkfifo(bad)
    elif kind == "folder":
        bad.mkdir()
    else:
        bad.symlink_to(os.devnull)
    names = {"IN": str(source), "BAD": str(bad)}
    words = given.replace("paste.parser=BAD", f"paste.parser={bad}").replace("FREE", "free").split()
    found = command(*(names.get(word, word) for word in words))
    assert found.status in (1, 2), found.err
    assert len(found.err.splitlines()) == 1, found.err
    assert "does not exist" not in found.err
    expected = {"pipe": "is a pipe and not an ordinary file", "folder": "is a folder",
                "device": "is a device and not an ordinary file"}[kind]  # fmt: skip
    assert f"bad{suffix} {expected}" in found.err
    assert {path.name for path in tmp_path.iterdir()} == {source.name, bad.name}


_COPY = "vidrestore reads a video more than once, so copy it to a file"
_WRITES = "and vidrestore writes files; give the name of a file"
NO_FILES = {
    "restore - FREE.mp4": f"- is a stream and not a file; {_COPY}",
    "restore https://example.com/a.mp4 FREE.mp4": (
        f"https://example.com/a.mp4 is an address and not a file; {_COPY}"
    ),
    "restore file:///videos/a.mp4 FREE.mp4": "file:///videos/a.mp4 is an address",
    "restore rtsp://host/a.png FREE.png": "rtsp://host/a.png is an address",
    "restore IN FREE.mp4 --plate smb://host/a.mp4": "smb://host/a.mp4 is an address",
    "restore IN -": f"- is a stream and not a file, {_WRITES}",
    "restore IN https://example.com/a.mp4": f"https://example.com/a.mp4 is an address and not a "
    f"file, {_WRITES}",
    "analyze -": f"- is a stream and not a file; {_COPY}",
    "preview - -o FREE.png": f"- is a stream and not a file; {_COPY}",
    "compare IN http://host/a.mp4 -o FREE.png": "http://host/a.mp4 is an address",
}


@pytest.mark.parametrize(("given", "sentence"), NO_FILES.items(), ids=NO_FILES)
def test_what_names_no_file_is_told_so(
    given: str, sentence: str, make_video: MakeVideo, command: Command, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    source = make_video(frames=3)
    names = {"IN": str(source)}
    found = command(*(names.get(word, word.replace("FREE", "free")) for word in given.split()))
    assert found.status in (1, 2), found.err
    assert len(found.err.splitlines()) == 1, found.err
    assert sentence in found.said
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="needs a name for the standard input")
def test_an_open_file_of_this_process_is_no_input(command: Command, tmp_path: Path) -> None:
    """ffmpeg, another process, has another file under that name."""
    found = command("restore", "/dev/stdin", tmp_path / "free.mp4")
    assert found.status == 1
    assert f"/dev/stdin is a stream and not a file; {_COPY}" in found.said


def test_a_folder_may_have_the_name_of_a_scheme(
    make_video: MakeVideo, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tapes:").mkdir()
    source = make_video(frames=3).rename(Path("tapes:/a.mkv"))
    found = command("restore", source, "tapes:/out.mkv", *PLAIN.split())
    assert found.status == 0, found.err
    assert Path("tapes:/out.mkv").is_file()


ANIMATIONS = {
    "GIF": ("a.gif", "-c:v gif"),
    "animated PNG": ("a.apng", "-plays 0 -f apng"),
    "animated WebP": ("a.webp", "-c:v libwebp_anim -loop 0"),
}


@pytest.mark.parametrize(
    "command_line",
    ["restore BAD free.mkv", "restore BAD free.png", "analyze BAD --detector haar",
     "preview BAD -o free.png", "proxy BAD -o free.mp4"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["", ".png", ".mp4"])
@pytest.mark.parametrize("kind", ANIMATIONS)
def test_animated_pictures_are_refused_alike(
    kind: str, suffix: str, command_line: str, command: Command, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    name, how = ANIMATIONS[kind]
    sources.ffmpeg(sources.picture(frames=3), how, Path(name))
    bad = Path(name).rename(Path(name).with_suffix(suffix or Path(name).suffix))
    found = command(*(str(bad) if word == "BAD" else word for word in command_line.split()))
    assert found.status == 1, found.err
    assert f"{bad} is a{'n' * (kind != 'GIF')} {kind}; convert it to a video first" in found.said
    assert [path.name for path in tmp_path.iterdir()] == [bad.name]


def test_a_still_picture_is_no_animation(command: Command, tmp_path: Path) -> None:
    for name in ("a.png", "a.webp"):
        sources.ffmpeg(sources.picture(frames=1), "-frames:v 1", tmp_path / name)
        found = command("analyze", tmp_path / name, "--detector", "haar", "--no-estimate")
        assert "convert it to a video" not in found.said
        assert (found.status == 0) == (name == "a.png"), found.err
