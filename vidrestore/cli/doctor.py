"""What this machine has and lacks. Whatever is broken becomes a row, never an error."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidrestore.common.errors import system_reason
from vidrestore.common.system import machine_cores, machine_memory, usable_cores
from vidrestore.models import weights

_log = logging.getLogger("vidrestore")

_PROGRAM_SECONDS = 15
_GIB = 1 << 30
_ENCODERS = {
    "libx264": "writes h264",
    "libx265": "writes hevc",
    "ffv1": "writes ffv1, without any loss",
    "libsvtav1": "writes av1",
    "prores_ks": "writes prores",
    "dnxhd": "writes dnxhr",
    "h264_nvenc": "writes h264 on a GPU if encode.hardware is set",
    "hevc_nvenc": "writes hevc likewise",
    "av1_nvenc": "writes av1 likewise",
}
"""Known encoders, and what they are used for; "" for those that nothing uses."""
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of `vidrestore doctor`."""

    what: str
    found: str
    follows: str = ""
    vital: bool = False
    """Broken, and nothing runs without it."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    findings: tuple[Finding, ...]
    slow: tuple[str, ...]
    """What will be slow, and why; a sentence each."""
    runs_now: tuple[str, ...]
    """What runs without any download; a sentence each."""

    @property
    def can_run(self) -> bool:
        return not any(finding.vital for finding in self.findings)


def diagnose(weights_folder: Path | None = None) -> Diagnosis:
    """Look at everything, offline; weight files are looked at but not read in full."""
    trouble: tuple[Finding, ...] = ()
    rows: list[weights.Row] = []
    try:
        rows = weights.list_weights(weights.search_folders(weights_folder))
    except Exception as error:  # a folder that cannot be read, a manifest that is gone
        _log.debug("the weights cannot be listed", exc_info=True)
        trouble = (_broken("weights", error),)
    machine: tuple[Finding, ...] = (
        _guarded("Python", _python),
        *(_guarded(what, probe, vital=True) for what, probe in _VITAL),
        *(_guarded(what, probe) for what, probe in _PROBES),
    )
    return Diagnosis(
        findings=(*machine, *trouble, *map(_weight, rows)),
        slow=tuple(_slow()),
        runs_now=tuple(_runs_now(machine, rows)),
    )


def _guarded(what: str, probe: Callable[[], Finding], *, vital: bool = False) -> Finding:
    try:
        return probe()
    except Exception as error:  # a broken library may raise anything
        _log.debug("%s is broken", what, exc_info=True)
        return _broken(what, error, vital=vital)


def _broken(what: str, error: Exception, *, vital: bool = False) -> Finding:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    follows = "nothing can run without it" if vital else ""
    return Finding(what, f"BROKEN: {reason}", follows, vital=vital)


def _python() -> Finding:
    return Finding("Python", f"{platform.python_version()} on {platform.platform()}")


def _torch() -> Finding:
    torch: Any = importlib.import_module("torch")
    built_for = f"CUDA {torch.version.cuda}" if torch.version.cuda else "processors only"
    follows = ""
    if torch.version.cuda is None and shutil.which("nvidia-smi"):
        follows = "this build cannot use the NVIDIA device here; install torch with CUDA"
    return Finding("torch", f"{torch.__version__}, built for {built_for}", follows)


def _av() -> Finding:
    av: Any = importlib.import_module("av")
    return Finding("av", f"{av.__version__}, with FFmpeg {getattr(av, 'ffmpeg_version_info', '?')}")


def _opencv() -> Finding:
    return Finding("OpenCV", str(importlib.import_module("cv2").__version__))


def _ffmpeg() -> Finding:
    from vidrestore.media.ffmpeg import ffmpeg_program

    what, program = "ffmpeg", ffmpeg_program()
    chosen = "VIDRESTORE_FFMPEG" if os.environ.get("VIDRESTORE_FFMPEG") else "imageio-ffmpeg"
    problem = "no file can be finished without it; let VIDRESTORE_FFMPEG name one that runs"
    try:
        done = subprocess.run(
            [program, "-hide_banner", "-version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROGRAM_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.info("%s does not run: %s", program, error)
        is_slow = isinstance(error, subprocess.TimeoutExpired)
        reason = "it does not answer" if is_slow else system_reason(error)
        return Finding(what, f"BROKEN: {program} ({chosen}): {reason}", problem, vital=True)
    said = done.stdout.split()
    if done.returncode or said[:2] != ["ffmpeg", "version"]:
        reason = f"it is no ffmpeg, or fails (status {done.returncode})"
        return Finding(what, f"BROKEN: {program} ({chosen}): {reason}", problem, vital=True)
    return Finding(what, f"{' '.join(said[2:3])}, {program} ({chosen})")


def _encoders() -> Finding:
    av: Any = importlib.import_module("av")

    def is_there(name: str) -> bool:
        try:
            av.codec.Codec(name, "w")
        except Exception as error:  # av's own class, which older versions call otherwise
            _log.debug("there is no encoder %s: %r", name, error)
            return False
        return True

    there = [name for name in _ENCODERS if is_there(name)]
    used = [f"{name} {use}" for name, use in _ENCODERS.items() if use and name in there]
    lacks = [name for name, use in _ENCODERS.items() if use and name not in there]
    follows = "; ".join(used) + (f"; there is no {', '.join(lacks)}" if lacks else "")
    if not used:
        return Finding("encoders", "BROKEN: none of use", "no video can be written", vital=True)
    return Finding("encoders", ", ".join(there), f"{follows}; nothing else is used")


def _device() -> Finding:
    devices = _cuda_devices()
    if not devices:
        from vidrestore.models.devices import why_not

        follows = "networks run on the processor"
        return Finding("CUDA device", "none", f"{follows}: {why_not('cuda')}")
    found = ", ".join(f"cuda:{i} {name}, {size:.0f} GiB" for i, (name, size) in enumerate(devices))
    return Finding("CUDA device", found, "networks run there unless --device cpu is given")


def _kernels() -> Finding:
    """What does GPEN's pointwise work on CUDA; tried, since Triton compiles when first run."""
    what = "Triton"
    if not _cuda_devices():
        follows = "GPEN's kernels for CUDA are not needed: there is no CUDA device"
        return Finding(what, _version("triton") or "not installed", follows)
    from vidrestore.models.gpen.cuda import triton_kernels

    torch: Any = importlib.import_module("torch")
    problems: list[str] = []
    if triton_kernels(torch.device("cuda", 0), problems.append) is not None:
        return Finding(what, str(_version("triton")), "runs GPEN's pointwise work on CUDA")
    follows = "torch does GPEN's pointwise work on CUDA, more slowly; "
    follows += problems[0] if problems else "pip install triton, where there is one"
    return Finding(what, _version("triton") or "not installed", follows)


def _cuda_devices() -> list[tuple[str, float]]:
    """Names, and memory in GiB."""
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [(each.name, each.total_memory / _GIB) for each in found]


def _processor() -> Finding:
    from vidrestore.models.restorers.gpen import has_bfloat16

    torch: Any = importlib.import_module("torch")
    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    named = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "bf16")
    formats = [name for name in named if found.get(name)]
    name = found.get("cpu_name") or platform.machine()
    runs = "bfloat16" if has_bfloat16() else "float32"
    return Finding(
        "processor", f"{name}: {', '.join(formats) or 'no format known'}", f"networks run in {runs}"
    )


def _cores() -> Finding:
    usable, all_of_them = usable_cores(), machine_cores()
    found = f"{usable}" if usable == all_of_them else f"{usable} of {all_of_them} may be used"
    return Finding("cores", found)


def _memory() -> Finding:
    size = machine_memory() / _GIB
    low = "gpen-2048 may not fit; use gpen-512" if size < 4 else ""
    return Finding("memory", f"{size:.0f} GiB", low)


def _onnxruntime() -> Finding:
    from vidrestore.models.onnx_session import import_onnxruntime

    what = "onnxruntime"
    installed = [f"{name} {version}" for name in _RUNTIMES if (version := _version(name))]
    if not installed:
        return Finding(what, "not installed", ".onnx restorers and --detector insightface need it")
    providers = import_onnxruntime().get_available_providers()
    found = f"{', '.join(installed)}: {', '.join(providers)}"
    if len(installed) > 1:
        return Finding(
            what, found, "they overwrite each other; uninstall all of them, then install one"
        )
    if not _cuda_devices():
        return Finding(what, found, ".onnx networks run on the processor")
    if "CUDAExecutionProvider" in providers:
        return Finding(what, found, ".onnx networks and insightface run on the CUDA device")
    return Finding(
        what,
        found,
        ".onnx networks and insightface run on the processor; `pip uninstall onnxruntime` and "
        "`pip install onnxruntime-gpu` bring them to the CUDA device",
    )


def _openvino() -> Finding:
    version = _version("openvino")
    if version is None:
        return Finding("openvino", "not installed", "optional; runs GPEN faster on processors")
    return Finding("openvino", version, "runs GPEN on the processor where it agrees with torch")


def _insightface() -> Finding:
    version = _version("insightface")
    if version is None:
        return Finding("insightface", "not installed", "use --detector yunet or haar")
    return Finding("insightface", version, "the detector used unless --detector says otherwise")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


_VITAL: Sequence[tuple[str, Callable[[], Finding]]] = (
    ("torch", _torch),
    ("av", _av),
    ("OpenCV", _opencv),
    ("ffmpeg", _ffmpeg),
    ("encoders", _encoders),
)
_PROBES: Sequence[tuple[str, Callable[[], Finding]]] = (
    ("CUDA device", _device),
    ("Triton", _kernels),
    ("processor", _processor),
    ("cores", _cores),
    ("memory", _memory),
    ("onnxruntime", _onnxruntime),
    ("openvino", _openvino),
    ("insightface", _insightface),
)


def _weight(row: weights.Row) -> Finding:
    what = f"weights {row.name}"
    if row.path is None:
        return Finding(what, "missing", f"vidrestore weights fetch {row.name}")
    if row.message:
        return Finding(what, f"DAMAGED: {row.message}", "remove it, then fetch it again")
    return Finding(what, str(row.path), row.licence)


def _slow() -> Iterator[str]:
    """Times were measured once, on two cores of a Xeon with AMX; ratios carry further."""
    try:
        if _cuda_devices():
            return
        from vidrestore.models.restorers.gpen import has_bfloat16

        fast_format = has_bfloat16()
    except Exception as error:  # torch is broken, which a row says
        _log.debug("what will be slow is not known: %r", error)
        return
    yield (
        "gpen-2048 on the processor takes seconds a face (two cores took 0.8 with openvino, 2.3 "
        "without), and a minute of video has 1500 frames; gpen-512 is two to three times faster"
    )
    if not fast_format:
        yield (
            "this processor does not compute in bfloat16, so networks run in float32, which takes "
            "two to three times as long as bfloat16"
        )
    if _version("openvino") is None:
        yield "without openvino GPEN runs in torch, which takes two to three times as long"
    if usable_cores() <= 2:
        cores = "one core is" if usable_cores() == 1 else "two cores are"
        yield f"{cores} shared by decoding, networks and encoding, which else run side by side"


def _runs_now(machine: Sequence[Finding], rows: Sequence[weights.Row]) -> Iterator[str]:
    if any(finding.vital for finding in machine):
        return
    yield "vidrestore demo; vidrestore restore IN OUT --restorer fusion --detector haar"
    whole = [row.name for row in rows if row.path and not row.message]
    runtime = any(_version(name) for name in _RUNTIMES)
    options = [f"--restorer {name}" for name in whole if name.startswith("gpen-")]
    options += ["--detector yunet" for name in whole if name == "yunet"]
    packs = [name for name in whole if name.startswith("buffalo") and runtime]
    options += [
        "--detector insightface" + ("" if name == "buffalo_l" else f" --set detect.pack={name}")
        for name in packs
    ]
    yield from (f"{option}, whose weights are here" for option in options)
