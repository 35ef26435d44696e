"""What must not be loaded early, which names are public, and who may print."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import vidrestore

PACKAGE = Path(vidrestore.__file__).parent
HEAVY = ("torch", "av", "cv2", "insightface")


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
