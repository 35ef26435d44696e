"""Which file may import which, and what must not be loaded early."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vidrestore

PACKAGE = Path(vidrestore.__file__).parent
HEAVY = ("torch", "av", "cv2", "insightface")

# A room's modules, or the folder whose files they are ("stages/").
ROOMS = {
    "ground": {
        "errors",
        "wording",
        "processors",
        "sidefiles",
        "tomlfile",
        "clock",
        "config",
        "profiles",
        "frame",
        "observed",
        "summary",
        "threads",
        "color",
        "geometry",
        "flow",
        "verdict",
        "locks",
        "planes",
        "programs",
        "transfer",
        "codecs",
        "containers",
        "streaminfo",
        "store",
        "shotlist",
        "edl",
        "masks",
        "resample",
        "occlusion",
        "tone",
        "grain",
        "grade",
        "smear",
        "focus",
        "swap",
        "looks",
        "showing",
        "layers",
        "parts",
        "likeness",
        "onnxfile",
        "opening",
        "interlace",
        "crops",
        "crossing",
        "parsing",
        "pictures/",
        "lanczos",
        "margins",
        "logcurves",
        "scaling",
        "upscaler",
    },
    "weights": {"weights", "weightfile", "fetch"},
    "gpen": {"gpen/"},
    "detectors": {"detectors/"},
    "restorers": {"restorers/"},
    "stages": {"stages/"},
    "passes": {
        "again",
        "analyze",
        "restore",
        "devices",
        "job",
        "paths",
        "planning",
        "fixity",
        "framemd5",
        "sampling",
        "selection",
        "openers",
        "remembered",
        "deinterlacing",
        "estimate",
        "segments",
        "rendering",
        "workfolder",
        "pairing",
        "enlarging",
        "layering",
        "redo",
        "outcome",
        "stills",
        "findings",
        "measures",
        "report/",
    },
    "others": {
        "contactsheet",
        "preview",
        "compare",
        "batch",
        "cluster",
        "crew",
        "convert",
        "evaluate",
        "facescores",
        "demo",
        "portrait",
        "doctor",
        "tryout",
    },
    "top": {
        "cli",
        "cli_options",
        "cli_look",
        "cli_restore",
        "cli_ui",
        "cli_weights",
        "console",
        "progress",
        "ui/",
        "__init__",
        "__main__",
    },
}
_BELOW_PASSES = {"ground", "weights", "gpen", "detectors", "restorers", "stages"}

# What a room may import: whole rooms, or single modules.
ALLOWED = {
    "ground": {"ground"},
    "weights": {"weights", "errors", "wording", "config", "profiles", "locks"},
    "gpen": {"gpen"},
    "detectors": {"ground", "weights", "detectors"},
    "restorers": {"ground", "weights", "restorers"},
    "stages": {"ground", "detectors.__init__", "restorers.__init__"},
    "passes": {"passes", *_BELOW_PASSES},
    "others": {"others", "passes", *_BELOW_PASSES},
    "top": set(ROOMS),
}
ALSO = {
    "restorers.gpen": {"gpen"},
    "restorers.openvino": {"gpen"},
    "gpen.checkpoint": {"weightfile", "errors"},
}
NEVER = {("stages", name): "only the passes read settings" for name in ("config", "profiles")}


def room_of(module: str) -> str | None:
    folder, dot, _ = module.partition(".")
    entry = f"{folder}/" if dot else module
    return next((room for room, entries in ROOMS.items() if entry in entries), None)


def objection(importer: str, imported: str) -> str | None:
    """Why `importer` must not import `imported`, both named from within the package."""
    room, other = room_of(importer), room_of(imported)
    for module, found in ((importer, room), (imported, other)):
        if found is None:
            return f"{module} has no room yet; give it one in DESIGN section 2 and in this test"
    if (reason := NEVER.get((str(room), imported))) is not None:
        return f"{importer} imports {imported}: {reason}"
    allowed = ALLOWED[str(room)] | ALSO.get(importer, set())
    if other in allowed or imported in allowed:
        return None
    return f"{importer} imports {imported}: {room} may import only {', '.join(sorted(allowed))}"


def files() -> dict[str, Path]:
    """Module name within the package -> file; of a package, its __init__."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        found[".".join(path.relative_to(PACKAGE).with_suffix("").parts)] = path
    return found


def imports(tree: ast.AST, importer: str, modules: set[str]) -> Iterator[str]:
    """Every import of ours, also inside functions and for type checkers alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _base(node, importer)
            named = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (_module(name, modules) for name in named if _is_ours(name))


def _base(node: ast.ImportFrom, importer: str) -> str:
    if not node.level:
        return str(node.module)
    parts = ["vidrestore", *importer.split(".")][: -node.level]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _is_ours(name: str) -> bool:
    return name == "vidrestore" or name.startswith("vidrestore.")


def _module(name: str, modules: set[str]) -> str:
    """The module in which a dotted name ends: itself, a package, or what holds the name."""
    parts = name.split(".")[1:]
    for end in range(len(parts), -1, -1):
        for module in (".".join(parts[:end]), ".".join([*parts[:end], "__init__"])):
            if module in modules:
                return module
    raise AssertionError(f"{name} is imported but does not exist")


def objections(source: str, importer: str) -> list[str]:
    modules = set(files())
    found = imports(ast.parse(source), importer, modules)
    return [why for name in found if name != importer and (why := objection(importer, name))]


@pytest.mark.parametrize("module", files())
def test_imports_run_one_way(module: str) -> None:
    assert objections(files()[module].read_text(encoding="utf-8"), module) == []


@pytest.mark.parametrize(
    ("importer", "line"),
    [
        ("frame", "from vidrestore.analyze import analyze_video"),
        ("errors", "import vidrestore.weights"),
        ("color", "from vidrestore import Settings"),
        ("fetch", "from vidrestore.frame import Frame"),
        ("gpen.network", "from vidrestore.errors import WeightsError"),
        ("gpen.network", "from .. import errors"),
        ("detectors.haar", "from vidrestore.stages.decode import decode"),
        ("restorers.fusion", "from vidrestore.gpen import GPEN"),
        ("stages.crop", "from vidrestore.stages.decode import decode"),
        ("stages.crop", "from vidrestore.stages import decode"),
        ("stages.crop", "from . import decode"),
        ("stages.detect", "from vidrestore.config import Settings"),
        ("stages.detect", "def late():\n    from vidrestore.detectors.haar import Haar"),
        ("stages.encode", "from vidrestore import weights"),
        ("job", "from vidrestore.evaluate import evaluate"),
        ("demo", "from vidrestore.console import show_demo"),
        ("something_new", "from vidrestore.errors import InputError"),
    ],
)
def test_a_wrong_import_is_seen(importer: str, line: str) -> None:
    (found,) = objections(line, importer)
    assert importer in found


@pytest.mark.parametrize(
    ("importer", "line"),
    [
        ("stages.detect", "from vidrestore.detectors import Detector"),
        ("stages.detect", "from vidrestore import color\nimport numpy"),
        ("restorers.gpen", "from vidrestore.gpen import GPEN"),
        ("evaluate", "from vidrestore.stages.decode import decode"),
        ("job", "from vidrestore.restore import restore_segment"),
    ],
)
def test_a_right_import_is_let_pass(importer: str, line: str) -> None:
    assert objections(line, importer) == []


@pytest.mark.parametrize(
    "code",
    [
        "import vidrestore",
        "import vidrestore.cli, vidrestore.console",
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


@pytest.mark.parametrize("module", sorted(set(files()) - {"console"}))
def test_only_the_command_line_prints(module: str) -> None:
    if not module.startswith("cli"):
        assert prints(files()[module].read_text(encoding="utf-8")) == []


def test_a_print_is_seen() -> None:
    source = "print(1)\nprint(2, file=sys.stderr)\nsys.stdout.write('3')\n"
    assert prints(source) == [1, 3]
