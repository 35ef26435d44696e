"""The machine: the memory and the processor cores that this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import psutil

from vidrestore.common.handled import log_handled, logged

_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)

_TASKS = Path("/proc/self/task")
_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def machine_memory() -> int:
    """Return the memory of this machine or of the container around this process, in bytes."""
    sizes = [int(psutil.virtual_memory().total)]
    for path in _CGROUP_LIMITS:
        with logged(OSError, ValueError):  # not there, or "max"
            sizes.append(int(path.read_text()))
    return min(sizes)


def machine_cores() -> int:
    """Return the number of processor cores of this machine, at least 1."""
    return os.cpu_count() or 1


def usable_cores(cgroups: Path = _CGROUPS, own_cgroups: Path = _OWN_CGROUPS) -> int:
    """Return the number of processor cores that this process may use.

    All code that starts threads calls this function for their number.

    Args:
        cgroups: The folder where the control groups of Linux are mounted, version 1 or 2.
        own_cgroups: The file that names the control groups of this process.

    Returns:
        The least of three numbers: the cores of the machine, the cores that the process may run on,
        and the quota of processor time of the process and of each container around it, rounded up;
        at least 1.
    """
    cores = machine_cores()
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *_quotas(cgroups, own_cgroups)]))


@contextmanager
def without_real_time() -> Iterator[None]:
    """Take the real-time priority back that a library gives to itself in the context.

    SVT-AV1, opened by root on Linux, gives the highest real-time priority to its threads and to the
    thread that opens it, for good, and what that one starts later inherits it. Such threads keep
    every other program from the processor, and wait forever for each other.
    """
    if not hasattr(os, "sched_setscheduler"):  # no Linux
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    known = _thread_ids()
    try:
        yield
    finally:
        for thread_id in {0} | _thread_ids() - known:
            with logged(OSError, what=f"reading the priority of thread {thread_id}"):  # it may end
                if os.sched_getscheduler(thread_id) != policy:
                    os.sched_setscheduler(thread_id, policy, priority)


def _thread_ids() -> set[int]:
    """Return the numbers of the threads of this process."""
    return {int(each.name) for each in _TASKS.iterdir()} if _TASKS.is_dir() else set()


def _quotas(cgroups: Path, own_cgroups: Path) -> Iterator[int]:
    """Yield the quota of every control group of this process, in whole cores."""
    for folder, version in _groups(cgroups, own_cgroups):
        # A missing file, "max" or -1 means that there is no quota.
        with logged(OSError, ValueError, ZeroDivisionError):
            if version == 2:
                quota, period = (folder / "cpu.max").read_text("ascii").split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text("ascii")
                period = (folder / "cpu.cfs_period_us").read_text("ascii")
            if int(quota) > 0:
                yield math.ceil(int(quota) / int(period))


def _groups(cgroups: Path, own_cgroups: Path) -> Iterator[tuple[Path, int]]:
    """Yield (folder, version) of each control group and of its parents, up to the root.

    Inside a container, the path of a group may be the path on the host, and the root is the group
    of the container.
    """
    try:
        lines = own_cgroups.read_text("utf-8", "surrogateescape").splitlines()
    except OSError as error:  # no Linux
        log_handled(error)
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        named = controllers.split(",")
        if number == "0" and not controllers:
            roots, version = [cgroups, cgroups / "unified"], 2
        elif "cpu" in named:
            roots, version = [cgroups / each for each in ("cpu", controllers)], 1
        else:
            continue
        inside = PurePosixPath(path.lstrip("/"))
        for root in roots:
            for part in (inside, *inside.parents):
                if ".." not in part.parts:
                    yield root / part, version
