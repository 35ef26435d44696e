"""What does one face cost? GPEN's forms side by side: seconds, CPU-seconds, peak memory.

Times are the median of rounds in which all forms take turns in one process, after one untimed
call each.  CPU-seconds are the process's, summed over threads, and least disturbed by neighbours.
Peak memory is a fresh child process's that loads the form and restores one batch.

    python benchmarks/gpen.py --sizes 512 2048 --batches 1 2 4 --rounds 3 --threads 1
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from textbook_gpen import textbook
from torch import Tensor

from vidrestore.models.gpen.checkpoint import export_onnx
from vidrestore.models.gpen.inference import InferenceGPEN
from vidrestore.models.gpen.network import GPEN
from vidrestore.models.onnx_session import import_onnxruntime
from vidrestore.models.restorers.openvino import import_openvino

Form = Callable[[Tensor], object]
BASE = "textbook float32"
HUNGRY_PIXELS = 2048**2  # a batch's, above which forms that keep everything need over 8 GB


def random_gpen(size: int) -> GPEN:
    """Return a network with random weights in which encoder features count."""
    torch.manual_seed(0)
    gpen = GPEN(size).eval().requires_grad_(False)
    for name, parameter in gpen.named_parameters():
        if name.endswith("noise.weight"):
            parameter.fill_(0.5)
    return gpen


def textbook_form(size: int) -> Form:
    gpen = random_gpen(size)
    return lambda image: textbook(gpen, image)


def plain_form(size: int) -> Form:
    return torch.no_grad()(random_gpen(size))


def prepared_form(dtype: torch.dtype) -> Callable[[int], Form]:
    return lambda size: InferenceGPEN(random_gpen(size), dtype)


def onnxruntime_form(size: int) -> Form:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.enable_cpu_mem_arena = False  # it would keep gigabytes while the others have their turn
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gpen.onnx"
        export_onnx(random_gpen(size), path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: session.run(None, {"image": image.numpy()})


def openvino_form(precision: str) -> Callable[[int], Form]:
    """In that precision where the processor has it; needs `pip install openvino`."""

    def form(size: int) -> Form:
        openvino = import_openvino()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gpen.onnx"
            export_onnx(random_gpen(size), path)
            hints = {
                "INFERENCE_PRECISION_HINT": precision,
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            }
            model = openvino.Core().compile_model(path, "CPU", hints)
        return lambda image: model(image.numpy())

    return form


FORMS: dict[str, Callable[[int], Form]] = {
    BASE: textbook_form,
    "GPEN.forward float32": plain_form,
    "onnxruntime float32": onnxruntime_form,
    "InferenceGPEN float32": prepared_form(torch.float32),
    "InferenceGPEN float16": prepared_form(torch.float16),
    "InferenceGPEN bfloat16": prepared_form(torch.bfloat16),
    "openvino float32": openvino_form("f32"),
    "openvino bfloat16": openvino_form("bf16"),
}
HUNGRY = (BASE, "GPEN.forward float32", "onnxruntime float32")


def images(batch: int, size: int) -> Tensor:
    return torch.rand(batch, 3, size, size) * 2 - 1


def timings(forms: dict[str, Form], image: Tensor, rounds: int) -> dict[str, tuple[float, float]]:
    """Return (wall, CPU) seconds per face of each form."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in forms}
    for turn in range(rounds + 1):
        for name, form in forms.items():
            wall, cpu = time.perf_counter(), time.process_time()
            form(image)
            spent = time.perf_counter() - wall, time.process_time() - cpu
            if turn > 0:
                taken[name].append(spent)
    return {
        name: (
            statistics.median(wall for wall, _ in each) / len(image),
            statistics.median(cpu for _, cpu in each) / len(image),
        )
        for name, each in taken.items()
    }


def peak_memory(name: str, size: int, batch: int, threads: int) -> float:
    """Return the gigabytes (10^9 bytes) a fresh process peaks at."""
    command = [sys.executable, __file__, "--child", name]
    command += ["--sizes", str(size), "--batches", str(batch), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def child(name: str, size: int, batch: int) -> None:
    form = FORMS[name](size)
    form(images(batch, size))
    # Not ru_maxrss, in which Linux counts what the parent held when it forked.
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024 / 1e9)


def measure(size: int, batch: int, options: argparse.Namespace) -> Table:
    table = Table(title=f"{size} px, batch {batch}, {options.threads} threads, per face")
    for heading in ("form", "wall s", "CPU s", "CPU, textbook = 1", "peak GB (batch)"):
        table.add_column(heading, justify="left" if heading == "form" else "right")
    names = [
        name
        for name in options.forms
        if name not in HUNGRY or batch * size * size <= max(HUNGRY_PIXELS, size * size)
    ]
    measured = timings(
        {name: FORMS[name](size) for name in names}, images(batch, size), options.rounds
    )
    base = measured.get(BASE)
    for name, (wall, cpu) in measured.items():
        peak = peak_memory(name, size, batch, options.threads)
        ratio = f"{base[1] / cpu:.1f}x" if base else ""
        table.add_row(name, f"{wall:.2f}", f"{cpu:.2f}", ratio, f"{peak:.2f}")
    return table


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    usual = [name for name in FORMS if name != "GPEN.forward float32" and "openvino" not in name]
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=usual)
    parser.add_argument("--child", choices=list(FORMS), help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.child:
        child(options.child, options.sizes[0], options.batches[0])
        return
    for size in options.sizes:
        for batch in options.batches:
            Console().print(measure(size, batch, options))


if __name__ == "__main__":
    main()
