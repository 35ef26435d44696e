"""Processes that wait while they restore, for as long as a file is there."""

import os
from pathlib import Path

import pytest

VARIABLE = "HOLD_FRAMES"
# A `sitecustomize` of each process: before it writes a frame of a video, it waits while the file
# $HOLD_FRAMES is there, but for the first frames, so that it has begun.
HOLDS = f"""
import importlib.util, os, sys, time
class _Holds:
    def find_spec(self, name, path=None, target=None):
        if name != "vidrestore.media.encode":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            write, frames = module.VideoWriter.write, 0
            def held(writer, frame):
                nonlocal frames
                frames += 1
                while frames > 12 and os.path.exists(os.environ.get("{VARIABLE}", "")):
                    time.sleep(0.02)
                return write(writer, frame)
            module.VideoWriter.write = held
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, _Holds())
"""


def hold_processes(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Let processes that start from now on wait at their frames; return the file to be removed."""
    (folder / "holding").mkdir()
    (folder / "holding" / "sitecustomize.py").write_text(HOLDS)
    patch.setenv("PYTHONPATH", str(folder / "holding"), prepend=os.pathsep)
    hold = folder / "holding" / "hold"
    hold.touch()
    patch.setenv(VARIABLE, str(hold))
    return hold
