"""What does a face cost on a CUDA device?  GPEN's forms, what the device could do, and how exact.

Everything in one run, within the minutes that `--minutes` gives; what did not come into them, or
cannot run here, stands in the tables as not measured.  Times are medians of rounds, each between
CUDA events around several calls, after calls that are not timed.  Ceilings are a large copy and a
large float16 product, measured in the same run; the rates beside them follow from a model of the
network's multiplications and traffic.  Needs torch, numpy and vidrestore.models.gpen alone.

    python benchmarks/gpen_cuda.py
    python benchmarks/gpen_cuda.py --sizes 2048 --batches 1 4 --profile
"""

import argparse
import gc
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from textbook_gpen import textbook
from torch import Tensor

from vidrestore.models.gpen import cuda, layers
from vidrestore.models.gpen.checkpoint import export_onnx
from vidrestore.models.gpen.inference import InferenceGPEN
from vidrestore.models.gpen.memory import batch_that_fits, bytes_needed, free_bytes
from vidrestore.models.gpen.network import GPEN, GPENConfig
from vidrestore.models.gpen.variants import InferenceForm
from vidrestore.models.onnx_session import import_onnxruntime

Run = Callable[[Tensor], object]
DEVICE = torch.device("cuda", 0)
HALF = torch.float16
GB = 10**9
ROUND_SECONDS = 0.15
BASE = "textbook, eager float32"
TF32 = "textbook, eager, TensorFloat-32 as torch has it"
COMPILED, ONNX = "float16, torch.compile", "float32, onnxruntime, copies included"
SHIPPED = "shipped: float16, graph, Triton"
# GFLOP, and GB of traffic with pointwise work fused, of a face in float16 at a size: a model of
# the network's layers, from which rates are derived.
MODEL = {256: (207, 1.15), 512: (276, 1.94), 1024: (346, 3.51), 2048: (419, 6.73)}
TARGET_MS, TARGET_RATIO, TARGET_RMS = 1.9, 6.0, 1.5e-3


@dataclass
class Clock:
    """Says whether there is time left."""

    ends: float

    def has(self, seconds: float) -> bool:
        return time.monotonic() + seconds < self.ends


def random_gpen(size: int) -> GPEN:
    """Random weights in which encoder features count and the output spreads as pictures do."""
    torch.manual_seed(0)
    gpen = GPEN(size).eval().requires_grad_(False)
    for name, parameter in gpen.named_parameters():
        if name.endswith("noise.weight"):
            parameter.fill_(0.5)
        if ".to_rgb" in name and name.endswith("conv.weight"):
            parameter.mul_(0.25)
    return gpen


def show(title: str, heads: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    print(f"\n{title}")
    for row in [heads, ["-" * width for width in widths], *rows]:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    sys.stdout.flush()


def milliseconds(run: Callable[[], object]) -> float:
    """Of one call, from as many as fill a round."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began = time.perf_counter()
    run()
    torch.cuda.synchronize()
    calls = max(1, min(200, int(ROUND_SECONDS / max(time.perf_counter() - began, 1e-5))))
    start.record()
    for _ in range(calls):
        run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / calls


def ceilings() -> tuple[float, float]:
    """(GB/s of a copy, read and written; TFLOP/s of a float16 product)."""
    source = torch.empty(2**30, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    a = torch.randn(8192, 8192, device=DEVICE, dtype=HALF)
    copies = [milliseconds(lambda: target.copy_(source)) for _ in range(3)]
    products = [milliseconds(lambda: a @ a) for _ in range(3)]
    return 2 * 2**30 / min(copies) / 1e6, 2 * 8192**3 / min(products) / 1e9


def prepared(gpen: GPEN, form: InferenceForm, dtype: torch.dtype = HALF, graph: bool = True) -> Run:
    network = InferenceGPEN(gpen, dtype, form).to(DEVICE)
    return cuda.CudaGPEN(network, use_graphs=graph, on_notice=lambda m: print(f"note: {m}"))


def textbook_form(gpen: GPEN) -> Run:
    gpen.to(DEVICE)
    return lambda image: textbook(gpen, image)


def exactly(run: Run) -> Run:
    """Without TensorFloat-32."""

    def exact(image: Tensor) -> object:
        with cuda.repeatable_convolutions():
            return run(image)

    return exact


def compiled(gpen: GPEN) -> Run:
    """The plain form in float16, its numbers as good as they come, as torch.compile makes it."""
    half = gpen.to(DEVICE, HALF)
    for parameter in half.parameters():
        if parameter.dim() == 4:  # the modulated weights have five dimensions
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    run = torch.no_grad()(torch.compile(half))
    return lambda image: run(image.to(HALF, memory_format=torch.channels_last))


def through_onnxruntime(gpen: GPEN) -> Run:
    onnxruntime = import_onnxruntime()
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise RuntimeError("onnxruntime has no CUDA here")
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(gpen, Path(folder) / "gpen.onnx")
        session = onnxruntime.InferenceSession(
            Path(folder) / "gpen.onnx", providers=["CUDAExecutionProvider"]
        )
    return lambda image: session.run(None, {"image": image.cpu().numpy()})


def forms_of(size: int) -> dict[str, Callable[[GPEN], Run]]:
    kernels = cuda.triton_kernels(DEVICE, lambda m: print(f"note: {m}"))
    shipped = InferenceForm(cuda.FOLD_UP_FROM, cuda.FOLD_DOWN_FROM, kernels)
    plain = InferenceForm(cuda.FOLD_UP_FROM_WITHOUT_TRITON, cuda.FOLD_DOWN_FROM)
    found = {
        BASE: lambda gpen: exactly(textbook_form(gpen)),
        TF32: textbook_form,
        "float32, graph": lambda gpen: prepared(gpen, plain, torch.float32),
        "float16, eager, torch": lambda gpen: prepared(gpen, plain, graph=False),
        "float16, graph, torch": lambda gpen: prepared(gpen, plain),
        "float16, eager, Triton": lambda gpen: prepared(gpen, shipped, graph=False),
        SHIPPED: lambda gpen: prepared(gpen, shipped),
        "  nothing folded": lambda gpen: prepared(gpen, InferenceForm(8192, 8192, kernels)),
        "  all folded from 64 px up": lambda gpen: prepared(gpen, InferenceForm(64, 64, kernels)),
        "  cuDNN tries its algorithms": lambda gpen: Tuned(prepared(gpen, shipped)),
        COMPILED: compiled,
        ONNX: through_onnxruntime,
    }
    if kernels is None:
        found = {k: v for k, v in found.items() if "Triton" not in k or k == SHIPPED}
    slow = (COMPILED, ONNX, "  all folded from 64 px up")
    return {k: v for k, v in found.items() if size in (512, 2048) or k not in slow}


class Tuned:
    """What a form gains where cuDNN may choose by timing, which may differ from run to run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __call__(self, image: Tensor) -> object:
        @contextmanager
        def tuned() -> Iterator[None]:
            with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
                yield

        usual, cuda.repeatable_convolutions = cuda.repeatable_convolutions, tuned
        try:
            return self._run(image)
        finally:
            cuda.repeatable_convolutions = usual


def measure(size: int, batches: list[int], rounds: int, clock: Clock, most: tuple) -> None:
    gpen, rows = random_gpen(size), []
    times: dict[tuple[str, int], float] = {}
    notes: dict[str, str] = {}
    random = torch.Generator().manual_seed(1)
    images = {
        b: (torch.rand(b, 3, size, size, generator=random) * 2 - 1).to(DEVICE) for b in batches
    }
    exact = float32_result(gpen, images[batches[0]][:1])
    forms = forms_of(size)
    for name, make in forms.items():
        if not clock.has({COMPILED: 120, ONNX: 30}.get(name, 8)):
            notes[name] = "not measured: out of time"
            continue
        run: Run | None = None
        try:
            # Those that change the network have one of their own.
            run = make(random_gpen(size) if name in (BASE, TF32, COMPILED) else gpen)
            result = run(images[batches[0]][:1])
            if isinstance(result, Tensor):
                notes[name] = f"{relative_rms(result.float().cpu(), exact):.1e}"
            del result
            for batch in batches:
                if clock.has(2):
                    call = partial(run, images[batch])
                    call()
                    taken = [milliseconds(call) for _ in range(rounds)]
                    times[name, batch] = statistics.median(taken) / batch
        except Exception as error:  # one form that fails must not hide the others
            lines = str(error).strip().splitlines() or [type(error).__name__]
            notes[name] = f"not measured: {lines[0][:60]}"
        run = call = None
        gc.collect()
        torch.cuda.empty_cache()
    best_base = min((t for (name, _), t in times.items() if name == BASE), default=math.nan)
    flops, traffic = MODEL[size]
    for name in forms:
        own = [times.get((name, batch)) for batch in batches]
        cells = ["-" if t is None else f"{t:.2f}" for t in own]
        best = min((t for t in own if t is not None), default=None)
        rates = ["-"] * 3
        if best is not None:
            bytes_s, flops_s = traffic / best * 1e3, flops / best
            rates = [
                f"{best_base / best:.1f}x",
                f"{bytes_s:.0f} ({bytes_s / most[0]:.0%})",
                f"{flops_s:.0f} ({flops_s / most[1]:.0%})",
            ]
        rows.append([name, *cells, *rates, notes.get(name, "-")])
    heads = ["form", *(f"ms/face, batch {b}" for b in batches), "textbook = 1"]
    heads += ["GB/s (of copy)", "TFLOP/s (of product)", "rms to float32"]
    show(f"{size} px; rates are modelled", heads, rows)
    if size == 2048:
        verdict([t for (name, _), t in times.items() if name == SHIPPED], best_base, notes)


def verdict(own: list[float], base: float, notes: dict[str, str]) -> None:
    best = min(own, default=math.nan)
    print(f"target: at most {TARGET_MS} ms per face; {best:.2f}: {said(best <= TARGET_MS)}")
    ratio = base / best
    is_met = said(ratio >= TARGET_RATIO)
    print(f"target: at least {TARGET_RATIO:g}x the eager float32 textbook; {ratio:.1f}x: {is_met}")
    try:
        off = float(notes[SHIPPED])
    except (KeyError, ValueError):
        off = math.nan
    print(f"target: float16 within {TARGET_RMS} of float32; {off:.1e}: {said(off <= TARGET_RMS)}")


def said(is_met: bool) -> str:
    return "met" if is_met else "NOT met"


def float32_result(gpen: GPEN, image: Tensor) -> Tensor:
    with cuda.repeatable_convolutions():
        return InferenceGPEN(gpen).to(DEVICE)(image).cpu()


def relative_rms(value: Tensor, exact: Tensor) -> float:
    return float((value.double() - exact.double()).norm() / exact.double().norm())


def levels(size: int, clock: Clock) -> None:
    """Both ways for each level: for FOLD_UP_FROM and FOLD_DOWN_FROM of models.gpen.cuda."""
    gpen, rows = random_gpen(size), []
    kernels = cuda.triton_kernels(DEVICE, lambda m: None)
    forms = [InferenceForm(8192, 8192, kernels), InferenceForm(64, 8, kernels)]
    config = gpen.config
    for side in config.sides[4:]:
        if not clock.has(5):
            break
        index = config.sides.index(side)
        wide, own = config.channels(side // 2), config.channels(side)
        x = torch.randn(1, side // 2, side // 2, 2 * wide, device=DEVICE, dtype=HALF)
        feature, out = (
            torch.randn(1, side, side, n * own, device=DEVICE, dtype=HALF) for n in (1, 2)
        )
        style = torch.ones(1, 2 * wide, device=DEVICE)
        up = [layers.StyledConv(gpen.generator.convs[2 * index - 2], side, HALF, form).to(DEVICE)
              for form in forms]  # fmt: skip
        arguments = x.permute(0, 3, 1, 2), feature.permute(0, 3, 1, 2), style, out
        with cuda.repeatable_convolutions(), torch.no_grad():
            taken = [milliseconds(partial(each, *arguments)) for each in up]
            stage = gpen.encoder()[len(config.sides) - index]  # from `side` to its half
            room = torch.empty(1, side // 2, side // 2, wide, device=DEVICE, dtype=HALF)
            down = [layers.Encode(stage, side // 2, HALF, form).to(DEVICE) for form in forms]
            full = feature.permute(0, 3, 1, 2), room.permute(0, 3, 1, 2)
            taken += [milliseconds(partial(each, *full)) for each in down]
        better = ["fold" if taken[i + 1] < taken[i] else "do not" for i in (0, 2)]
        rows.append([f"{side}", *(f"{t:.3f}" for t in taken[:2]), better[0],
                     f"{side // 2}", *(f"{t:.3f}" for t in taken[2:]), better[1]])  # fmt: skip
    heads = ["up to px", "ms blurred", "ms folded", "so", "down to px", "ms blurred", "ms folded"]
    show("folding the blur, batch 1, launched one by one", [*heads, "so"], rows)


def limited(size: int, limit_gb: float, clock: Clock) -> list[str]:
    """The shipped form where torch may take so much."""
    label = [f"{limit_gb:g}", f"{size}"]
    total = torch.cuda.get_device_properties(DEVICE).total_memory
    if not clock.has(6):
        return [*label, "-", "-", "-", "not measured: out of time"]
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(limit_gb * GB / total, 1.0), 0)
    torch.cuda.reset_peak_memory_stats()
    try:
        config = GPENConfig(size)
        batch = batch_that_fits(free_bytes(DEVICE), config, HALF, 4)
        if not batch:
            return [*label, "0", "-", "-", "does not fit"]
        run = prepared(random_gpen(size), cuda.form_for(DEVICE))
        image = torch.rand(batch, 3, size, size, device=DEVICE) * 2 - 1
        run(image)
        taken = statistics.median(milliseconds(lambda: run(image)) for _ in range(3)) / batch
        peak = torch.cuda.max_memory_reserved() / GB
        expected = bytes_needed(config, HALF, batch) / GB
        return [*label, f"{batch}", f"{taken:.2f}", f"{peak:.2f} (expected {expected:.2f})",
                said(peak <= limit_gb)]  # fmt: skip
    except torch.OutOfMemoryError:
        return [*label, f"{batch}", "-", "-", "ran out of memory"]
    finally:
        run = image = None
        torch.cuda.set_per_process_memory_fraction(1.0, 0)


def profile(size: int) -> None:
    """The 25 kernels that the shipped form spends most in."""
    run = prepared(random_gpen(size), cuda.form_for(DEVICE), graph=False)
    image = torch.rand(1, 3, size, size, device=DEVICE)
    run(image)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
        run(image)
        torch.cuda.synchronize()
    print(found.key_averages().table(sort_by="self_cuda_time_total", row_limit=25,
                                     max_name_column_width=70))  # fmt: skip


def not_measured(sizes: list[int], batches: list[int]) -> None:
    why = "not measured: no CUDA device"
    heads = ["form", *(f"ms/face, batch {b}" for b in batches), "rms to float32"]
    names = [BASE, "float16, eager, torch", "float16, graph, torch", "float16, eager, Triton"]
    for size in sizes:
        show(f"{size} px", heads, [[name, *[why] * (len(heads) - 1)] for name in [*names, SHIPPED]])
    rows = [[f"{limit:g}", f"{size}", why] for limit in (6, 8) for size in sizes]
    show("memory limited", ["GB", "px", "batch, ms/face, peak"], rows)
    print(f"targets: {TARGET_MS} ms per face at 2048 px, {TARGET_RATIO:g}x the textbook, "
          f"{TARGET_RMS} from float32; {why}")  # fmt: skip


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 1024, 512, 256])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=7.5)
    parser.add_argument("--profile", action="store_true", help="kernels of the first size, only")
    return parser.parse_args()


def main() -> None:
    options = parse()
    if not torch.cuda.is_available():
        not_measured(options.sizes, options.batches)
        return
    clock = Clock(time.monotonic() + 60 * options.minutes)
    print(f"torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN "
          f"{torch.backends.cudnn.version()}, {torch.cuda.get_device_name(DEVICE)}")  # fmt: skip
    if options.profile:
        profile(options.sizes[0])
        return
    most = ceilings()
    print(f"ceilings: {most[0]:.0f} GB/s copied, {most[1]:.0f} TFLOP/s in float16")
    levels(options.sizes[0], clock)
    heads = ["GB", "px", "batch", "ms/face", "peak GB", "limit"]
    rows = [limited(size, limit, clock) for limit in (6, 8) for size in options.sizes]
    show("memory limited", heads, rows)
    for size in options.sizes:
        measure(size, options.batches, options.rounds, clock, most)


if __name__ == "__main__":
    main()
