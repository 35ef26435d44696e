"""Libraries that tell their makers of their use are imported so that they do not."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vidrestore.models.restorers import openvino

ROOT = Path(__file__).parents[2]
# The modules that alone may import them, in the function of that name.
PLACES = {
    "openvino": ("vidrestore/models/restorers/openvino.py", "import_openvino"),
    "onnxruntime": ("vidrestore/models/onnx_session.py", "import_onnxruntime"),
}
CHILD = """
import sys

def look(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print(event, *map(str, arguments))

sys.addaudithook(look)
from pathlib import Path
{use}
import gc, time
gc.collect()
time.sleep({wait})
assert sys.modules.get("openvino_telemetry") is None
"""
USES = {
    "openvino": """
from vidrestore.models.restorers.openvino import OpenVinoCache
assert OpenVinoCache(Path("x"), "x", "0", "float32").load() is None
OpenVinoCache(Path("x"), "x", "0", "float32")._version""",
    "insightface": """
import pytest
from vidrestore.common.errors import WeightsError
from vidrestore.models.detectors.insightface import InsightFace
with pytest.raises(WeightsError):
    InsightFace(Path("missing"), size_px=640, score=0.5)""",
    "an ONNX restorer": """
import vidrestore.models.restorers.onnx, vidrestore.models.recognizer
vidrestore.models.onnx_session.can_use_devices()""",
    "doctor": """
from vidrestore.cli import main
import contextlib, io
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main(["doctor"])""",
}


@pytest.mark.parametrize("what", USES)
def test_no_library_writes_into_the_home_or_connects(what: str, tmp_path: Path) -> None:
    if what == "openvino" and not openvino.is_installed():
        pytest.skip("the extra openvino is not installed")
    home = tmp_path / "home"
    home.mkdir()
    known = ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")
    surroundings = {key: value for key, value in os.environ.items() if key not in known}
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(use=USES[what], wait=0.2)],
        cwd=tmp_path, env=surroundings | {"HOME": str(home)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [str(path.relative_to(home)) for path in home.rglob("*")] == []


def imports_of(tree: ast.AST, function: str = "") -> set[tuple[str, str]]:
    """The packages imported anywhere in a module, each with the function that does it."""
    found = set()
    for node in ast.iter_child_nodes(tree):
        within = node.name if isinstance(node, ast.FunctionDef) else function
        if isinstance(node, ast.Import):
            found |= {(alias.name.partition(".")[0], function) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add((node.module.partition(".")[0], function))
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in (
            "import_module",
            "importorskip",
        ):
            found |= {(a.value, function) for a in node.args[:1] if isinstance(a, ast.Constant)}
        found |= imports_of(node, within)
    return found


def test_each_is_imported_in_one_place() -> None:
    files = [path for part in ("vidrestore", "tests", "benchmarks")
             for path in (ROOT / part).rglob("*.py")]  # fmt: skip
    found = {
        (name, (path.relative_to(ROOT).as_posix(), function))
        for path in files
        for name, function in imports_of(ast.parse(path.read_text(encoding="utf-8")))
        if name in PLACES
    }
    assert found == set(PLACES.items())
