"""A pipe, a device or a folder where a command reads a file: one sentence, and no waiting."""

import os
from pathlib import Path

import pytest
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
