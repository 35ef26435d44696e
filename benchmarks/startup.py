"""How long `vidrestore --help` takes: what a person waits before anything is said.

Run with the Python of the environment in which vidrestore is installed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 11
TARGET_SECONDS = 0.3


def main() -> None:
    command = str(Path(sys.executable).with_name("vidrestore"))
    seconds = sorted(run(command) for _ in range(RUNS))
    median = statistics.median(seconds)
    verdict = "within" if median <= TARGET_SECONDS else "OVER"
    print("vidrestore --help   median    least     most   target")
    print(
        f"{RUNS:3} runs            {median:.3f} s  {seconds[0]:.3f} s  {seconds[-1]:.3f} s  "
        f"{TARGET_SECONDS:.1f} s: {verdict}"
    )


def run(command: str) -> float:
    start = time.perf_counter()
    subprocess.run([command, "--help"], check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
