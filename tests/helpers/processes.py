"""Programs that tests start."""

import os
import signal
from pathlib import Path
from typing import Any

import psutil

_PATHS = (Path(__file__).parents[2], Path(__file__).parents[1])


def environment(**more: str) -> dict[str, str]:
    """The environment of a program that imports from this checkout and its tests' helpers."""
    before = os.environ.get("PYTHONPATH")
    paths = [*map(str, _PATHS), *([before] if before else [])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | more


def kill_after_call(owner: Any, name: str, call: int) -> None:
    """Let this process kill itself once a function was called so many times."""
    function, calls = getattr(owner, name), 0

    def deadly(*given: Any, **more: Any) -> Any:
        nonlocal calls
        result, calls = function(*given, **more), calls + 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def started_by(number: int) -> list[psutil.Process]:
    """The processes that a process has started; none if it has ended."""
    try:
        return list(psutil.Process(number).children())
    except psutil.NoSuchProcess:
        return []


def runs(process: psutil.Process) -> bool:
    """Whether a process has not ended. One for which no other process waits stays as a zombie, as
    in a container whose first process waits for none; its number may be that of another one."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
