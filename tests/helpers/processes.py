"""Programs that tests start."""

import os
from pathlib import Path

_PATHS = (Path(__file__).parents[2], Path(__file__).parents[1])


def environment(**more: str) -> dict[str, str]:
    """The environment of a program that imports from this checkout and its tests' helpers."""
    before = os.environ.get("PYTHONPATH")
    paths = [*map(str, _PATHS), *([before] if before else [])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | more
