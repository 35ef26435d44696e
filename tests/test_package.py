"""The wheel holds what an installed copy needs, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

_READ_FROM_INSTALLED = """
from pathlib import Path
import vidrestore
from vidrestore.common.profiles import profile_folder
from vidrestore.models.weights import load_table
print(Path(vidrestore.__file__).parent)
print(vidrestore.load_profile("film").encode.quality)
print(*sorted(path.stem for path in profile_folder().glob("*.toml")))
print(*load_table())
print(*sorted(path.name for path in Path(vidrestore.__file__).parent.rglob("templates/*")))
from vidrestore.web.server import _STATIC
print((_STATIC / "index.html").is_file())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy with a downloaded weight in it, as a user's checkout may have."""
    copy = tmp_path_factory.mktemp("build") / "project"
    copy.mkdir()
    for name in ("vidrestore", "configs"):
        shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, copy)
    for folder, names in {"weights": ("README.md", "manifest.toml"), "tests": ()}.items():
        (copy / folder).mkdir()
        for name in names:
            shutil.copy(PROJECT / folder / name, copy / folder)
    (copy / "weights/GPEN-BFR-512.pth").write_bytes(b"much larger")
    (copy / "tests/test_something.py").touch()
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(build, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_an_installed_copy_finds_its_profiles_and_weights(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(unpacked))
    done = subprocess.run(
        [sys.executable, "-c", _READ_FROM_INSTALLED],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    package, quality, profiles, weights, templates, has_page = done.stdout.splitlines()
    assert Path(package) == unpacked / "vidrestore"
    assert quality == "archive"
    own = PROJECT / "vidrestore" / "review" / "report" / "templates"
    assert templates.split() == sorted(path.name for path in own.iterdir())
    assert "report.html.j2" in templates
    assert has_page == "True"
    assert profiles.split() == sorted(path.stem for path in (PROJECT / "configs").glob("*.toml"))
    assert {"gpen-2048", "yunet", "buffalo_l"} <= set(weights.split())


def test_the_command_is_named(unpacked: Path) -> None:
    (listing,) = unpacked.glob("*.dist-info/entry_points.txt")
    entries = ConfigParser()
    entries.read(listing)
    assert dict(entries["console_scripts"]) == {"vidrestore": "vidrestore.__main__:main"}


def test_nothing_but_the_package_is_inside(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [Path(name) for name in archive.namelist()]
    top = {name.parts[0] for name in names if not name.parts[0].endswith(".dist-info")}
    assert top == {"vidrestore"}
    inside = {name for name in names if name.parts[:2] == ("vidrestore", "weights")}
    assert {name.name for name in inside} == {"README.md", "manifest.toml"}
    assert {name.suffix for name in names if name.parts[0] == "vidrestore"} <= {
        ".py", ".toml", ".md", ".typed", ".j2", ".html", ".css", ".js", ".svg",
    }  # fmt: skip


def test_every_module_is_inside(unpacked: Path) -> None:
    def modules(folder: Path) -> set[Path]:
        return {path.relative_to(folder) for path in folder.rglob("*.py")}

    assert modules(unpacked / "vidrestore") == modules(PROJECT / "vidrestore")
