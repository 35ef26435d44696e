"""How many cores may be used: of affinity, and of quotas in control groups of either version."""

import ast
import os
from pathlib import Path

import pytest
import torch

import vidrestore
from vidrestore.common import system
from vidrestore.common.settings import Restore
from vidrestore.common.system import usable_cores
from vidrestore.models import devices

GROUPS = {
    "none": ({}, "", 8),
    "no quota": ({"a/cpu.max": "max 100000"}, "0::/a", 8),
    "version 2": ({"a/cpu.max": "200000 100000"}, "0::/a", 2),
    "a part of one": ({"a/cpu.max": "10000 100000"}, "0::/a", 1),
    "rounded up": ({"a/cpu.max": "150000 100000"}, "0::/a", 2),
    "more than there are": ({"a/cpu.max": "6400000 100000"}, "0::/a", 8),
    "around it": ({"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, "0::/a/b", 3),
    "in a container": ({"cpu.max": "300000 100000"}, "0::/", 3),
    "the path of the host": ({"cpu.max": "300000 100000"}, "0::/docker/f00", 3),
    "above the container": ({"cpu.max": "300000 100000"}, "0::/../..", 3),
    "hybrid": ({"unified/a/cpu.max": "300000 100000"}, "1:name=systemd:/\n0::/a", 3),
    "version 1": (
        {"cpu,cpuacct/a/cpu.cfs_quota_us": "250000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
        "3:memory:/a\n4:cpu,cpuacct:/a", 3,
    ),
    "version 1, no quota": (
        {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/a", 8,
    ),
    "cpuset is another": ({"cpuset/cpu.cfs_quota_us": "100000"}, "5:cpuset:/", 8),
    "no numbers": ({"a/cpu.max": "many few"}, "0::/a\nx\n::\n:", 8),
    "no period": ({"a/cpu.max": "100000 0"}, "0::/a", 8),
    "empty": ({"a/cpu.max": ""}, "0::/a", 8),
}  # fmt: skip


@pytest.mark.parametrize("case", GROUPS.values(), ids=GROUPS.keys())
def test_a_quota_counts(
    case: tuple[dict[str, str], str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, own, cores = case
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    (tmp_path / "own").write_text(f"{own}\n")
    assert usable_cores(tmp_path / "cgroup", tmp_path / "own") == cores


def test_affinity_counts_and_a_system_without_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7})
    assert usable_cores(tmp_path, tmp_path / "none") == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores(tmp_path, tmp_path / "none") == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores(tmp_path, tmp_path / "none") == 1


def test_only_one_function_counts_cores() -> None:
    package = Path(vidrestore.__file__).parent
    counting = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("cpu_count", "sched_getaffinity"):
                counting.add(path.relative_to(package).as_posix())
    assert counting == {"common/system.py"}


def test_torch_has_no_more_threads_than_a_quota_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    asked: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(devices, "usable_cores", lambda: 2)
    devices.choose_device(Restore(device="cpu"))
    assert asked == [2]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    devices.choose_device(Restore(device="cpu"))
    assert asked == [2]
    assert before >= 1


def test_this_machine_has_some() -> None:
    assert 1 <= system.usable_cores() <= (os.cpu_count() or 1)
