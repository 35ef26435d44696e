"""What must not be loaded early, which names are public, and who may print."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vidrestore

PACKAGE = Path(vidrestore.__file__).parent
HEAVY = ("torch", "av", "cv2", "insightface", "onnxruntime", "scipy", "skimage", "matplotlib")


def files() -> dict[str, Path]:
    """Module name within the package -> file; of a package, its __init__."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        found[".".join(path.relative_to(PACKAGE).with_suffix("").parts)] = path
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import vidrestore",
        "import vidrestore.cli, vidrestore.cli.console",
        "from vidrestore.cli import main; main(['--help'])",
        "from vidrestore.cli import main; main(['restore', '--help'])",
        "from vidrestore.cli import main; main(['weights', 'list'])",
    ],
)
def test_nothing_heavy_is_loaded_early(code: str) -> None:
    lines = f"import atexit, sys\natexit.register(lambda: print(list(sys.modules)))\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    loaded = set(ast.literal_eval(done.stdout.splitlines()[-1]))
    assert "vidrestore" in loaded
    assert sorted(loaded.intersection(HEAVY)) == []


def loaded_by(code: str, folder: Path) -> tuple[set[str], str]:
    """Run code in a new process; return the modules that it loaded, and what it printed."""
    lines = f"import atexit, sys\natexit.register(lambda: print(list(sys.modules)))\n{code}"
    known = {name: value for name, value in os.environ.items() if name != "VIDRESTORE_WEIGHTS"}
    done = subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, check=False,
        env=known | {"XDG_CACHE_HOME": str(folder / "cache")},
    )  # fmt: skip
    *printed, modules = done.stdout.splitlines()
    return set(ast.literal_eval(modules)), "\n".join(printed) + done.stderr


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        ("restore tape.mkv there.mkv", "exists already"),
        ("restore missing.mkv out.mkv", "missing.mkv does not exist"),
        ("restore tape.mkv out.avi", "must end in one of"),
        ("restore tape.mkv out.mkv --set nope.x=1", "no section of settings 'nope'"),
        ("restore tape.mkv out.mkv --shots missing.toml", "missing.toml does not exist"),
        ("restore tape.mkv out.mkv --keep-job --layer comp", "cannot be combined"),
        ("restore missing_%04d.tif out_%04d.tif", "no file in"),
        ("restore missing*.mkv --output-dir out", "no file matches"),
        ("preview missing.mkv -o out.png", "missing.mkv does not exist"),
        ("preview tape.mkv -o there.mkv", "exists already"),
        ("preview tape.mkv -o out.doc", "neither a picture nor a video"),
        ("compare tape.mkv missing.mkv -o out.png", "missing.mkv does not exist"),
        ("compare tape.mkv tape.mkv -o there.mkv", "exists already"),
        ("evaluate missing.mkv --source tape.mkv", "missing.mkv does not exist"),
        ("analyze tape.mkv --shots out.doc", ".toml, .edl or .otio"),
    ],
)
def test_a_refusal_loads_nothing_heavy(tmp_path: Path, command: str, refusal: str) -> None:
    for name in ("tape.mkv", "there.mkv"):
        (tmp_path / name).write_bytes(b"not read")
    code = (
        f"import os; os.chdir({str(tmp_path)!r})\n"
        f"from vidrestore.cli import main; main({command.split()!r})"
    )
    loaded, printed = loaded_by(code, tmp_path)
    assert refusal in " ".join(printed.split())
    assert not (tmp_path / "out.mkv").exists()
    heavy = set(HEAVY)
    if command.startswith("analyze"):
        heavy -= {"cv2"}  # the list of shots names the values of detections
    assert sorted(loaded.intersection(heavy)) == []


def test_pass_one_runs_without_torch(tmp_path: Path, shared: Path) -> None:
    out = tmp_path / "found.npz"
    arguments = [
        *("analyze", str(shared / "clips" / "hamilton_short.mp4"), "-o", str(out)),
        *("--detector", "yunet", "--weights", str(shared / "models"), "--offline"),
        *("--no-estimate", "--set", "detect.every=25"),
    ]
    code = f"from vidrestore.cli import main; main({arguments!r})"
    loaded, printed = loaded_by(code, tmp_path)
    assert out.is_file(), printed
    assert {"cv2", "vidrestore.models.face_mesh"} <= loaded
    assert "faces" in printed
    assert "torch" not in loaded


def test_every_public_name_is_there() -> None:
    for name in vidrestore.__all__:
        assert getattr(vidrestore, name).__name__ == name
    assert list(vidrestore.__all__) == sorted(vidrestore.__all__)
    with pytest.raises(AttributeError, match="restore_vidoe"):
        importlib.import_module("vidrestore").restore_vidoe  # noqa: B018


def prints(source: str) -> list[int]:
    """Lines that write to standard output, which belongs to results."""
    return [node.lineno for node in ast.walk(ast.parse(source)) if _writes_to_stdout(node)]


def _writes_to_stdout(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = ast.unparse(node.func)
    to_file = any(keyword.arg == "file" for keyword in node.keywords)
    return (called == "print" and not to_file) or called.startswith("sys.stdout.")


@pytest.mark.parametrize("module", files())
def test_only_the_command_line_prints(module: str) -> None:
    # Of how a command ends it has to be said even before the command line is loaded.
    if not module.startswith("cli.") and module != "common.ending":
        assert prints(files()[module].read_text(encoding="utf-8")) == []


def test_a_print_is_seen() -> None:
    source = "print(1)\nprint(2, file=sys.stderr)\nsys.stdout.write('3')\n"
    assert prints(source) == [1, 3]


def test_test_modules_share_code_through_helpers_only() -> None:
    folder = Path(__file__).parent
    wrong = []
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Import | ast.ImportFrom):
                names += [alias.name for alias in node.names]
            if any(part.startswith("test_") for name in names for part in (name or "").split(".")):
                wrong.append(f"{path.relative_to(folder)}:{node.lineno}")
    assert wrong == []
