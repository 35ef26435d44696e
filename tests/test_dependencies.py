"""Whatever the package imports is declared in pyproject.toml, and its version is pinned."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
# torch brings it where it runs on CUDA; without it other code runs.
_OPTIONAL = {"triton"}


def imports(path: Path) -> Iterator[str]:
    """The top-level modules that a file imports anywhere in it, but those of Python itself."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in names:
            top = name.partition(".")[0]
            if top != "vidrestore" and top not in sys.stdlib_module_names:
                yield top


def normalized(requirement: str) -> str:
    """The name in a requirement, as package indexes compare names."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def declared() -> tuple[set[str], set[str]]:
    """What everybody installs, and what the extras add."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = [each for names in project["optional-dependencies"].values() for each in names]
    return {*map(normalized, project["dependencies"])}, {*map(normalized, extras)}


IMPORTED = {
    name: path.relative_to(PROJECT).as_posix()
    for path in sorted((PROJECT / "vidrestore").rglob("*.py"))
    for name in imports(path)
}


@pytest.mark.parametrize("module", sorted(set(IMPORTED) - _OPTIONAL))
def test_what_is_imported_is_declared(module: str) -> None:
    owners = {normalized(name) for name in packages_distributions().get(module, [module])}
    always, extra = declared()
    assert owners & (always | extra), f"{IMPORTED[module]} imports {module}, of {owners}"


def test_what_is_declared_is_pinned() -> None:
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    pinned = {normalized(line) for line in lines if "==" in line}
    always, extra = declared()
    assert (always | extra) <= pinned
