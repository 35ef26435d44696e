"""The machine: memory and processor cores that this process may use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

from vidrestore.common.handled import log_handled, logged

_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)

_CGROUPS, _OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def machine_memory() -> int:
    """The bytes of memory that this machine has, or what it lets a container have."""
    sizes = [int(psutil.virtual_memory().total)]
    for path in _CGROUP_LIMITS:
        with logged(OSError, ValueError):  # not there, or "max"
            sizes.append(int(path.read_text()))
    return min(sizes)


def machine_cores() -> int:
    """The processor cores of this machine, whoever may use them; at least 1."""
    return os.cpu_count() or 1


def usable_cores(cgroups: Path = _CGROUPS, own_cgroups: Path = _OWN_CGROUPS) -> int:
    """The cores that this process may use: whoever starts threads asks here.

    Args:
        cgroups: Where the control groups of Linux are mounted, version 1 or 2.
        own_cgroups: The file that names those of this process.

    Returns:
        The least of the machine's cores, those that the process may run on, and the quota of
        processor time that it or a container around it has, rounded up; at least 1.
    """
    cores = machine_cores()
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *_quotas(cgroups, own_cgroups)]))


def _quotas(cgroups: Path, own_cgroups: Path) -> Iterator[int]:
    """In whole cores, of every group that this process is in."""
    for folder, version in _groups(cgroups, own_cgroups):
        # What is not there or no number ("max", -1) is no quota.
        with logged(OSError, ValueError, ZeroDivisionError):
            if version == 2:
                quota, period = (folder / "cpu.max").read_text("ascii").split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text("ascii")
                period = (folder / "cpu.cfs_period_us").read_text("ascii")
            if int(quota) > 0:
                yield math.ceil(int(quota) / int(period))


def _groups(cgroups: Path, own_cgroups: Path) -> Iterator[tuple[Path, int]]:
    """(folder, version) of each group and of all around it, out to the root of the mount.

    Inside a container the path of the group may be that of the host, and the root is the
    container's own.
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
