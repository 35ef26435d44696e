"""A command that is refused loads none of the libraries that take seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "cv2", "scipy", "skimage", "matplotlib", "onnxruntime", "openvino")
# The arguments after INPUT and OUTPUT, and a part of the message.
REFUSED = {
    "layer is a file": (["--layer", "file"], "not a folder"),
    "layer in no folder": (["--layer", "no/layer"], "does not exist"),
    "plate is empty": (["--plate", "empty.mp4"], "is empty"),
    "plate is a folder": (["--plate", "."], "is a folder"),
    "no reference": (["--reference", "no.jpg"], "does not exist"),
    "no cuts": (["--cuts", "no.edl"], "does not exist"),
    "no timeline": (["--cuts", "no.fcpxml"], "does not exist"),
    "no timeline of OpenTimelineIO": (["--cuts", "no.otio"], "does not exist"),
    "people": (["--people", "x"], "named by numbers"),
    "restorer": (["--restorer", "nope"], "no restorer"),
    "no restorer": (["--restorer", "no.onnx"], "does not exist"),
    "no upscaler": (["--scale", "2", "--upscaler", "no.onnx"], "does not exist"),
    "no parser": (["--set", "paste.parser=no.pth"], "does not exist"),
    "no curve": (["--input-curve", "no.cube"], "does not exist"),
    "cluster": (["--cluster", "nope"], "HOST:PORT"),
    "container": (["--codec", "ffv1"], "cannot hold ffv1"),
    "quality": (["--codec", "h264", "--quality", "99"], "must be from 0"),
}


def refused(folder: Path, *arguments: str) -> tuple[int, str, list[str]]:
    """The exit status, the message and the heavy libraries that were loaded."""
    code = (
        "import atexit, sys\nfrom vidrestore.__main__ import main\n"
        f"told = lambda: print([name for name in {HEAVY} if name in sys.modules])\n"
        "atexit.register(told)\nmain()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    loaded = done.stdout.splitlines()[-1]
    return done.returncode, done.stderr, [n for n in HEAVY if f"'{n}'" in loaded]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tape.mp4").write_bytes(b"not read")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty.mp4").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_comes_before_the_heavy_libraries(folder: Path, name: str) -> None:
    arguments, message = REFUSED[name]
    status, told, loaded = refused(folder, "restore", "tape.mp4", "out.mp4", *arguments)
    assert status in (1, 2)
    assert message in " ".join(told.split())
    assert loaded == []
    assert not (folder / "out.mp4").exists()


@pytest.mark.parametrize(
    ("source", "message"), [("empty.mp4", "is empty"), (".", "is a folder"), ("no", "not exist")]
)
def test_so_does_that_of_an_input(folder: Path, source: str, message: str) -> None:
    status, told, loaded = refused(folder, "restore", source, "out.mp4")
    assert (status, loaded) == (1, [])
    assert message in " ".join(told.split())


def test_so_do_those_of_a_redo_and_of_a_given_analysis(folder: Path) -> None:
    status, told, loaded = refused(folder, "restore", "tape.mp4", "file.mp4", "--analysis", "file")
    assert (status, [name for name in loaded if name != "cv2"]) == (1, [])
    assert "not an analysis" in " ".join(told.split())
    (folder / "out.mp4").write_bytes(b"an output")
    status, told, loaded = refused(folder, "restore", "tape.mp4", "out.mp4", "--redo-shots", "1")
    assert (status, loaded) == (2, [])
    assert "no kept job" in " ".join(told.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.mp4", "--person", "1"], "does not exist"),
        (["tape.mp4"], "and neither was given"),
        (["tape.mp4", "--person", "1", "--base", "fusion"], "by its own weights"),
        (["tape.mp4", "--person", "1", "--photos", "file"], "no folder of photographs"),
    ],
)
def test_so_do_those_of_a_training(folder: Path, arguments: list[str], message: str) -> None:
    status, told, loaded = refused(folder, "personalize", *arguments, "-o", "anna.safetensors")
    assert (status in (1, 2), loaded) == (True, [])
    assert message in " ".join(told.split())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk always full")
def test_standard_output_on_a_full_disk_is_no_defect_of_the_program() -> None:
    given = [sys.executable, "-m", "vidrestore", "restore", "--print-config"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(given, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "vidrestore: no space is left on a disk; make room and run the same command again\n"
    )
