"""What a person waits for apart from frames: help, a refusal, progress, the fixed cost of a run.

    python benchmarks/startup.py [--clip FILE] [--weights DIR] [--before DIR] [--runs 5]

The unit is CPU-seconds of the command and the programs that it starts, the median of the runs, with
one thread for each library. With `--before`, the checkout of an older version takes turns with this
one. `import torch` alone is measured in the same run, because all else depends on the machine as it
does. FILE is a video with a face, whose first second is taken once and three times;
"no frames" is the straight line through both, extrapolated to none. DIR holds the weights of YuNet
and the face mesh; without it faces are found by the Haar cascades. The restorer is "fusion". The
last columns are the CPU-seconds of the command at its first line of progress (on Linux only) and
the wall time until then, the least of the runs: on a busy machine the wall time says little.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg

HERE = Path(__file__).resolve().parents[1]
MOST_HELP, MOST_REFUSAL, MOST_FIRST, MOST_BESIDE_TORCH = 0.3, 1.0, 2.0, 2.0
REFUSED = {
    "layer": ("--layer", "tape.mp4"), "empty plate": ("--plate", "none.mp4"),
    "reference": ("--reference", "no.jpg"), "cuts": ("--cuts", "no.edl"),
    "people": ("--people", "x"), "restorer": ("--restorer", "no.onnx"),
    "upscaler": ("--scale", "2", "--upscaler", "no.onnx"), "codec": ("--codec", "ffv1"),
    "curve": ("--input-curve", "no.cube"), "analysis": ("--analysis", "tape.mp4"),
    "redo": ("--redo-shots", "1"),
}  # fmt: skip
TORCH, OUT = "import torch", "out.mp4"


class Cost(NamedTuple):
    """What one command took."""

    cpu: float
    """The CPU-seconds of the command and of the programs that it started."""
    first: float | None
    """The wall time until its first line of progress, in seconds; None: there was none."""
    cpu_at_first: float | None
    """Its CPU-seconds at that line; None: there was none, or the system does not tell."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    places = {"before": args.before.resolve()} if args.before else {}
    places["now"] = HERE
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = prepared(folder, args.clip, args.weights)
        costs: dict[tuple[str, str], list[Cost]] = defaultdict(list)
        for _ in range(args.runs):
            for what, arguments in commands.items():
                for place, checkout in places.items():
                    if what == TORCH and place != "now":
                        continue
                    costs[what, place].append(run(arguments, checkout, folder))
    show(costs, list(commands), list(places))


def prepared(folder: Path, clip: Path | None, weights: Path | None) -> dict[str, list[str]]:
    """Make the files that the commands read, and return the commands by their names."""
    for name in ("tape.mp4", "there.mp4"):
        (folder / name).write_bytes(b"not read")
    (folder / "none.mp4").write_bytes(b"")
    python = ["-m", "vidrestore"]
    restore = [*python, "restore"]
    commands = {
        TORCH: ["-c", "import torch"],
        "--help": [*python, "--help"],
        "restore: output exists": [*restore, "tape.mp4", "there.mp4"],
        "restore: no such input": [*restore, "missing.mp4", OUT],
        "restore: bad option": [*restore, "tape.mp4", OUT, "--set", "nope.x=1"],
    }
    for name, arguments in REFUSED.items():
        commands[f"restore: {name}"] = [*restore, "tape.mp4", OUT, *arguments]
    if clip is None:
        return commands
    make = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error"]
    video = ["-an", "-sn", "-dn", "-c:v", "libx264"]
    one, three = str(folder / "1.mp4"), str(folder / "3.mp4")
    subprocess.run([*make, "-i", str(clip), "-t", "1", *video, one], check=True)
    subprocess.run([*make, "-stream_loop", "2", "-i", one, *video, three], check=True)
    how = ["--offline", "--json", "--set", "detect.remember=false", "--detector"]
    how += ["haar"] if weights is None else ["yunet", "--weights", str(weights.resolve())]
    fusion = [*how, "--restorer", "fusion"]
    commands["restore: no such person"] = [*restore, "1.mp4", OUT, *fusion, "--people", "99"]
    for seconds in (1, 3):
        commands[f"analyze: {seconds} s"] = [
            *python, "analyze", f"{seconds}.mp4", "--no-estimate", *how
        ]  # fmt: skip
        commands[f"restore: {seconds} s"] = [*restore, f"{seconds}.mp4", OUT, *fusion]
    return commands


def run(arguments: list[str], checkout: Path, folder: Path) -> Cost:
    """Run a command with the code of a checkout; its result and exit status do not matter."""
    one_thread = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(checkout)}
    (folder / OUT).unlink(missing_ok=True)
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    first = cpu_at_first = None
    with subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, env=os.environ | one_thread,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if first is None and '"progress"' in line:
                first, cpu_at_first = time.perf_counter() - start, cpu_of(process.pid)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(cpu, first, cpu_at_first)


def cpu_of(process: int) -> float | None:
    """The CPU-seconds of a running process and of those that it has waited for."""
    stat = Path(f"/proc/{process}/stat")
    if not stat.exists():
        return None
    fields = stat.read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def show(costs: dict[tuple[str, str], list[Cost]], names: list[str], places: list[str]) -> None:
    """Print the table, and what is fixed in an analysis and in a run."""
    cpu = {key: statistics.median(cost.cpu for cost in found) for key, found in costs.items()}
    for command in ("analyze", "restore"):
        if f"{command}: 3 s" in names:
            names.append(f"{command}: no frames")
            for place in places:
                one, three = (cpu[f"{command}: {n} s", place] for n in (1, 3))
                cpu[f"{command}: no frames", place] = one - (three - one) / 2
    torch = cpu[TORCH, "now"]
    print(
        f"{'CPU-s':26}"
        + "".join(f"{place:>10}" for place in places)
        + "  / torch  first line by the clock"
    )
    for name in names:
        row = "".join(
            f"{cpu[name, place]:10.2f}" if (name, place) in cpu else " " * 10 for place in places
        )
        lines = [cost.first for cost in costs.get((name, "now"), []) if cost.first is not None]
        spent = [
            cost.cpu_at_first
            for cost in costs.get((name, "now"), [])
            if cost.cpu_at_first is not None
        ]
        first = f"{min(spent):11.2f}" if spent else " " * 11
        first += f"{min(lines):9.2f} s" if lines else ""
        print(f"{name:26}{row}{cpu[name, 'now'] / torch:9.2f}{first}")
    print(f"--help: {verdict(cpu['--help', 'now'], MOST_HELP)}")
    worst = max(names_of_refusals(names), key=lambda name: cpu[name, "now"])
    print(f"the dearest refusal, {worst}: {verdict(cpu[worst, 'now'], MOST_REFUSAL)}")
    for name in names:
        spent = [c.cpu_at_first for c in costs.get((name, "now"), []) if c.cpu_at_first is not None]
        if spent:
            print(f"{name}, first progress: {verdict(min(spent), MOST_FIRST)}")
    if "restore: no frames" in names:
        fixed = cpu["restore: no frames", "now"] - torch
        print(f"a run without frames, beside torch: {verdict(fixed, MOST_BESIDE_TORCH)}")


def names_of_refusals(names: list[str]) -> list[str]:
    """The commands that are refused for their options and paths alone."""
    known = ("output exists", "no such input", "bad option", *REFUSED)
    return [name for name in names if name.removeprefix("restore: ") in known]


def verdict(value: float, most: float) -> str:
    return f"{value:.2f} CPU-s, {'within' if value <= most else 'OVER'} {most:g}"


if __name__ == "__main__":
    main()
