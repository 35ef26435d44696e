"""README and docs: every command and every example in them runs, as it is written.

Weights cannot be had here: for the names of GPEN files stands a restorer that sharpens, for the
detectors that need a file the one that needs none.
"""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
import typer
from helpers.media import write_video
from helpers.onnx_networks import repeating
from helpers.videos import Command
from safetensors.torch import save_file
from skimage import data

import vidrestore
from vidrestore.cli import _build
from vidrestore.models import factory
from vidrestore.models.restorers import Restorer

ROOT = Path(__file__).parents[1]
# docs/first-run.md is a record of what was typed once.
PAGES = [
    ROOT / "README.md",
    *sorted(p for p in (ROOT / "docs").rglob("*.md") if p.name != "first-run.md"),
]
# What cannot be run here, and where it is tested instead.
ELSEWHERE = {
    "--cluster": "needs machines: test_ray_cluster_nodes.py",
    "--workers": "stand-ins do not reach other processes: test_ray_cluster.py",
    "--reference": "needs a recognizer: test_people.py",
    "--profile family.toml": "needs a network of a person: test_personal_networks.py",
    "vidrestore personalize": "trains for hours: test_personalize.py",
    "gpen-colorize": "needs gray film and its weights: test_colorization.py",
    "vidrestore demo": "takes minutes: test_demo.py",
    "vidrestore ui": "a server: test_page.py",
}


def commands() -> Iterator[str]:
    """Every `vidrestore ...`: in blocks of code, and with its arguments in the text."""
    for page in PAGES:
        text = re.sub(r"```python\n.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        for line in re.findall(r"^    (?:\.venv/bin/)?(vidrestore [^|\n]+)$", text, flags=re.M):
            yield re.split(r"\s+#", line)[0]
        for line in re.findall(r"`(?:\.venv/bin/)?(vidrestore [^`]+)`", text):
            words = shlex.split(line)
            if len(words) > (3 if words[1] == "weights" else 2):  # else it is named, not run
                yield " ".join(line.split())


COMMANDS = list(dict.fromkeys(commands()))
EXAMPLES = [
    (f"{page.name}-{number}", code)
    for page in PAGES
    for number, code in enumerate(
        re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S), 1
    )
]


def test_there_are_some() -> None:
    assert len(COMMANDS) > 30
    assert len(EXAMPLES) >= 6


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_understood(line: str) -> None:
    program, *arguments = shlex.split(line)
    assert program == "vidrestore"
    command: Any = typer.main.get_command(_build())
    context = command.make_context("vidrestore", [*arguments], resilient_parsing=True)
    if not context.args and not context._protected_args:
        assert arguments[0].startswith("--"), "options of vidrestore itself"
        return
    while hasattr(command, "resolve_command"):
        name, command, rest = command.resolve_command(
            context, [*context._protected_args, *context.args]
        )
        context = command.make_context(name, rest, parent=context)
    assert command.name == name


@pytest.mark.parametrize(("name", "code"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_an_example_can_be_read(name: str, code: str) -> None:
    compile(code, name, "exec")


class Sharper(Restorer):
    """In the place of a network."""

    reach_frames, template = 0, "gpen"

    def __init__(self, name: str) -> None:
        self.name, size = name, name.removeprefix("gpen-")
        self.size = int(size) if size.isdigit() else 512

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        faces = windows[:, 0]
        padded = torch.nn.functional.pad(faces, (2, 2, 2, 2), mode="replicate")
        soft = torch.nn.functional.avg_pool2d(padded, 5, stride=1)
        return (faces + 0.7 * (faces - soft)).clamp(0, 1)


def picture(i: int, *, face: bool, scale: int = 1, swapped: bool = False) -> Any:
    """256 x 192, a portrait that moves, or what stands behind it."""
    width, height = 256 * scale, 192 * scale
    photo = data.astronaut() if face else cv2.resize(data.coffee(), (512, 512))
    x, y = 225.0 + 6 * np.sin(i / 3), 130.0 + 4 * np.cos(i / 4)
    matrix = np.array([[1.0, 0, 128 - x], [0, 1.0, 100 - y]]) * scale
    shown = cv2.warpAffine(photo, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    if swapped:
        inside = shown[60:120, 100:156]
        shown[60:120, 100:156] = cv2.GaussianBlur(inside, (0, 0), 2) // 8 * 8 + 6
    return shown


def clip(path: Path, shown: list[Any], *, codec: str = "libx264", fps: int = 25) -> Path:
    images = [av.VideoFrame.from_ndarray(p, "rgb24").reformat(format="yuv420p") for p in shown]
    pts, clock = [i * 12800 // fps for i in range(len(images))], Fraction(1, 12800)
    return write_video(path, images, codec=codec, pts=pts, time_base=clock)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that the commands are given."""
    folder = tmp_path_factory.mktemp("documents")
    seen = {*range(9, 15), *range(40, 46), *range(75, 81)}  # three visits, a frame a second
    clip(folder / "tape.mp4", [picture(i, face=i in seen) for i in range(86)], fps=1)
    short = [picture(i, face=True) for i in range(12)]
    for name in ("scan.mov", "film.mov", "shot.mov", "proxy.mp4", "camera.mov", "family.mkv"):
        clip(folder / name, short)
    shutil.copy(folder / "tape.mp4", folder / "clear.mp4")
    clip(folder / "swapped.mov", [picture(i, face=True, swapped=True) for i in range(12)])
    clip(folder / "graded_4k.mov", [picture(i, face=True, scale=2) for i in range(12)])
    for name in ("scans", "clear", "tapes"):
        (folder / name).mkdir()
    for i, shown in enumerate(short[:3], 1):
        cv2.imwrite(str(folder / "scans" / f"scan_{i:06}.tif"), shown[..., ::-1].astype("u2") * 257)
    for name in ("photo.jpg", "anna.jpg"):
        cv2.imwrite(str(folder / name), short[0][..., ::-1])
    for name in ("one.mp4", "two.mov"):
        clip(folder / "tapes" / name, short[:6])
    repeating(folder / "x4.onnx", 4)
    (folder / "GFPGANv1.4.onnx").write_bytes(b"in its place stands another")
    save_file({"weight": torch.zeros(1)}, folder / "anna.safetensors")
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which one is, with stand-ins for what needs weights."""
    place = tmp_path / "place"
    shutil.copytree(made, place)
    monkeypatch.chdir(place)
    open_detector, open_restorer = factory.open_detector, factory.open_restorer

    def restorer(name: str, how: Any, **more: Any) -> Any:
        return Sharper(name) if name != "fusion" else open_restorer(name, how, **more)

    def detector(how: Any, **more: Any) -> Any:
        return open_detector(how.model_copy(update={"detector": "haar"}), **more)

    monkeypatch.setattr(factory, "open_restorer", restorer)
    monkeypatch.setattr(factory.weights, "require", lambda *_, **__: place / "GFPGANv1.4.onnx")
    monkeypatch.setattr(factory, "open_detector", detector)
    monkeypatch.setattr(factory, "_has_mesh", lambda *_: False)
    return place


def written(arguments: list[str]) -> list[Path]:
    """What a command is to write."""
    found = [
        Path(value)
        for option, value in pairwise(arguments)
        if option in ("-o", "--framemd5", "--contact-sheet", "--report", "--layer")
        or (option == "--shots" and arguments[0] == "analyze")
    ]
    if arguments[0] == "restore" and "--print-config" not in arguments:
        plain = [a for a in arguments[1:] if not a.startswith("-")]
        after = arguments.index("--output-dir") if "--output-dir" in arguments else 0
        found.append(
            Path(arguments[after + 1]) if after else Path(plain[1].replace("%06d", "000002"))
        )
    return found


@pytest.mark.long
@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_runs(line: str, place: Path, command: Command) -> None:
    if why := [reason for part, reason in ELSEWHERE.items() if part in line]:
        pytest.skip(why[0])
    arguments = shlex.split(line)[1:]
    if needs := {
        "restore --shots shots.toml": ("--shots", "shots.toml"),
        "restore --cuts edit.edl": ("--shots", "edit.edl"),
        "restore --analysis tape.npz": ("-o", "tape.npz"),
        "analyze --estimate-shots shots.toml": ("--shots", "shots.toml"),
    }.get(" ".join([arguments[0], *arguments[-2:]])):
        assert command("analyze", "tape.mp4", *needs, "--no-estimate").status == 0
    expected = written(arguments)
    for path in expected:
        if not path.is_dir():
            path.unlink(missing_ok=True)
    found = command(*arguments)
    assert found.status == 0, found.err
    for path in expected:
        assert path.exists()


@pytest.mark.long
@pytest.mark.parametrize(("name", "code"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_an_example_runs(name: str, code: str, place: Path) -> None:
    for path in place.glob("clear.*"):
        path.unlink()
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", code],
        cwd=place, env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "refused" not in done.stdout


def maker(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of docs/, which is no package."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module(name)


@pytest.mark.parametrize("name", ["make_settings", "make_commands"])
def test_a_generated_page_is_that_of_the_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = maker(name, monkeypatch)
    assert made.TARGET.read_text(encoding="utf-8") == made.page(), "run make docs"
    assert not re.search(r"\|\s*\|$", made.page(), flags=re.M), "a row without a meaning"


def test_the_page_about_python_has_every_public_name() -> None:
    text = (ROOT / "docs" / "reference" / "python-api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: vidrestore\.(\w+)$", text, flags=re.M)) == sorted(
        vidrestore.__all__
    )


def test_the_site_shows_every_page() -> None:
    shown = re.findall(r"^ +- (?:\w+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.M)
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert sorted(shown) == sorted({*pages, "reference/weights.md"})  # which is weights/README.md


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160


def anchors(page: Path) -> set[str]:
    """The names of the places in a page that links can lead to."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    titles = re.findall(r"^#+ (.+)$", text, flags=re.M)
    names = {re.sub(r"[^\w\s-]", "", title).strip().lower() for title in titles}
    return {re.sub(r"[-\s]+", "-", name) for name in names} | {
        *re.findall(r"^::: (\S+)$", text, flags=re.M)
    }


def test_links_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "weights" / "README.md"]:
        text = page.read_text(encoding="utf-8")
        for target, _, anchor in re.findall(r"\]\(([^)#:]*)(#([^)]+))?\)", text):
            other = page.parent / target if target else page
            assert other.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(other), f"{page.name}: {target}#{anchor}"


def test_a_site_that_loads_from_another_host_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = maker("hooks", monkeypatch)
    own = '<a href="https://a.example/x">x</a><img src="y.png"><link rel="canonical" href="//a.b/">'
    (tmp_path / "own.html").write_text(own)
    assert list(hooks.loads_from_elsewhere(tmp_path)) == []
    elsewhere = {
        "a.html": '<script async src="https://a.example/x.js"></script>',
        "b.html": '<link rel="stylesheet" href="https://fonts.example/css">',
        "c.css": "@font-face { src: url(//a.example/font.woff2) }",
    }
    for name, text in elsewhere.items():
        (tmp_path / name).write_text(text)
    found = [each.partition(":")[0] for each in hooks.loads_from_elsewhere(tmp_path)]
    assert found == list(elsewhere)


def test_what_contributing_names_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("| value | place |")[2].partition("\n\n")[0]
    places = re.findall(r"`([\w/]+\.py)`(?::((?: `[^`]+`,?)+))?", table)
    assert len(places) > 6
    for file, names in places:
        code = (ROOT / "vidrestore" / file).read_text(encoding="utf-8")
        for name in re.findall(r"`([^`]+)`", names):
            assert re.search(rf"\b{re.escape(name.rpartition('.')[2].strip('-'))}\b", code), name
