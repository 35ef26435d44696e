"""The diagnosis of this machine; a broken part becomes a row of the table, never an error."""

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
from vidrestore.common.settings import Detect
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
    "hevc_nvenc": "writes hevc on a GPU if encode.hardware is set",
    "av1_nvenc": "writes av1 on a GPU if encode.hardware is set",
}
"""The encoders that vidrestore uses, and what for."""
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of `vidrestore doctor`."""

    what: str
    """The part of the machine or the program."""
    found: str
    """The state of the part, such as its version."""
    follows: str = ""
    """What vidrestore does because of this state, or what the user can do about it."""
    is_required: bool = False
    """Whether the part is broken and nothing can run without it."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that `vidrestore doctor` found."""

    findings: tuple[Finding, ...]
    """The rows of the table."""
    slow: tuple[str, ...]
    """Sentences that say what will be slow, and why."""
    runs_now: tuple[str, ...]
    """Sentences that say what runs without any download."""

    @property
    def can_run(self) -> bool:
        """Whether no part is broken that everything needs."""
        return not any(finding.is_required for finding in self.findings)


def diagnose(weights_folder: Path | None = None) -> Diagnosis:
    """Examine this machine, without network access and without reading weight files in full.

    Args:
        weights_folder: A folder to search for weight files before all others. None: only the
            usual folders.

    Returns:
        What was found; a part that is broken is a finding, not an error.
    """
    problems: tuple[Finding, ...] = ()
    rows: list[weights.Row] = []
    try:
        rows = weights.list_weights(weights.search_folders(weights_folder))
    except Exception as error:  # such as an unreadable folder or a missing manifest
        _log.debug("the weights cannot be listed", exc_info=True)
        problems = (_broken("weights", error),)
    machine: tuple[Finding, ...] = (
        _guarded("Python", _python),
        *(_guarded(what, probe, is_required=True) for what, probe in _REQUIRED),
        *(_guarded(what, probe) for what, probe in _PROBES),
    )
    return Diagnosis(
        findings=(*machine, *problems, *_detection(rows), *map(_weight, rows)),
        slow=tuple(_slow()),
        runs_now=tuple(_runs_now(machine, rows)),
    )


def versions() -> Iterator[Finding]:
    """Name the versions of what vidrestore runs on, and the devices of this machine.

    Yields:
        A finding for each part, also for one that is broken or not installed.
    """
    yield _guarded("Python", _python)
    named = {
        "torch",
        "av",
        "OpenCV",
        "ffmpeg",
        "onnxruntime",
        "openvino",
        "CUDA device",
        "processor",
    }
    for what, probe in (*_REQUIRED, *_PROBES):
        if what in named:
            yield _guarded(what, probe)


def _guarded(what: str, probe: Callable[[], Finding], *, is_required: bool = False) -> Finding:
    """Return the finding of a probe, or a finding that the part is broken."""
    try:
        return probe()
    except Exception as error:  # a broken library may raise anything
        _log.debug("%s is broken", what, exc_info=True)
        return _broken(what, error, is_required=is_required)


def _broken(what: str, error: Exception, *, is_required: bool = False) -> Finding:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    follows = "nothing can run without it" if is_required else ""
    return Finding(what, f"BROKEN: {reason}", follows, is_required=is_required)


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
        return Finding(what, f"BROKEN: {program} ({chosen}): {reason}", problem, is_required=True)
    words = done.stdout.split()
    if done.returncode or words[:2] != ["ffmpeg", "version"]:
        reason = f"it is no ffmpeg, or fails (status {done.returncode})"
        return Finding(what, f"BROKEN: {program} ({chosen}): {reason}", problem, is_required=True)
    return Finding(what, f"{' '.join(words[2:3])}, {program} ({chosen})")


def _encoders() -> Finding:
    av: Any = importlib.import_module("av")

    def is_available(name: str) -> bool:
        try:
            av.codec.Codec(name, "w")
        except Exception as error:  # the name of av's own class depends on its version
            _log.debug("there is no encoder %s: %r", name, error)
            return False
        return True

    available = [name for name in _ENCODERS if is_available(name)]
    used = [f"{name} {use}" for name, use in _ENCODERS.items() if use and name in available]
    missing = [name for name, use in _ENCODERS.items() if use and name not in available]
    follows = "; ".join(used) + (f"; missing: {', '.join(missing)}" if missing else "")
    if not used:
        return Finding(
            "encoders", "BROKEN: no usable encoder", "no video can be written", is_required=True
        )
    return Finding("encoders", ", ".join(available), follows)


def _device() -> Finding:
    devices = _cuda_devices()
    if not devices:
        from vidrestore.models.devices import why_not

        found = next((name for name in ("mps", "xpu") if why_not(name) is None), None)
        if found is not None:
            follows = f"networks run on {found} where it gives what the processor gives"
            return Finding("CUDA device", "none", follows)
        follows = "networks run on the processor"
        return Finding("CUDA device", "none", f"{follows}: {why_not('cuda')}")
    found = ", ".join(f"cuda:{i} {name}, {size:.0f} GiB" for i, (name, size) in enumerate(devices))
    return Finding("CUDA device", found, "networks run there unless --device cpu is given")


def _kernels() -> Finding:
    """Try whether Triton runs GPEN's pointwise operations; it compiles at first use."""
    what = "Triton"
    if not _cuda_devices():
        follows = "GPEN's kernels for CUDA are not needed: there is no CUDA device"
        return Finding(what, _version("triton") or "not installed", follows)
    from vidrestore.models.gpen.cuda import is_plain, triton_kernels

    torch: Any = importlib.import_module("torch")
    problems: list[str] = []
    if triton_kernels(torch.device("cuda", 0), problems.append) is not None:
        follows = "; ".join(["runs GPEN's pointwise operations on CUDA", *problems])
        return Finding(what, str(_version("triton")), follows)
    if is_plain():
        follows = "VIDRESTORE_CUDA=plain switches GPEN's kernels and CUDA graphs off"
        return Finding(what, _version("triton") or "not installed", follows)
    follows = "torch runs GPEN's pointwise operations on CUDA, which is slower; "
    follows += problems[0] if problems else "pip install triton, if it exists for this platform"
    return Finding(what, _version("triton") or "not installed", follows)


def _cuda_devices() -> list[tuple[str, float]]:
    """Return the name and the memory, in GiB, of each CUDA device."""
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [(each.name, each.total_memory / _GIB) for each in found]


def _processor() -> Finding:
    from vidrestore.models.gpen.variants import capabilities, has_bfloat16

    found = capabilities()
    named = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "bf16")
    formats = [name for name in named if found.get(name)]
    name = found.get("cpu_name") or platform.machine()
    runs = "bfloat16" if has_bfloat16() else "float32"
    return Finding(
        "processor",
        f"{name}: {', '.join(formats) or 'no known format'}",
        f"networks run in {runs}",
    )


def _cores() -> Finding:
    usable, all_of_them = usable_cores(), machine_cores()
    count = f"{usable}" if usable == all_of_them else f"{usable} of {all_of_them} may be used"
    return Finding("cores", count)


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
    state = f"{', '.join(installed)}: {', '.join(providers)}"
    if len(installed) > 1:
        return Finding(
            what, state, "they overwrite each other; uninstall all of them, then install one"
        )
    if not _cuda_devices():
        return Finding(what, state, ".onnx networks run on the processor")
    if "CUDAExecutionProvider" in providers:
        return Finding(what, state, ".onnx networks and insightface run on the CUDA device")
    return Finding(
        what,
        state,
        ".onnx networks and insightface run on the processor; to run them on the CUDA device, "
        "`pip uninstall onnxruntime` and `pip install onnxruntime-gpu`",
    )


def _openvino() -> Finding:
    version = _version("openvino")
    if version is None:
        return Finding("openvino", "not installed", "optional; runs GPEN faster with bfloat16")
    return Finding("openvino", version, "runs GPEN on the processor where it agrees with torch")


def _insightface() -> Finding:
    version = _version("insightface")
    if version is None:
        return Finding("insightface", "not installed", "use --detector yunet or haar")
    return Finding("insightface", version, "the default detector, if its pack is here")


def _detection(rows: Sequence[weights.Row]) -> Iterator[Finding]:
    """Yield which detector is the default here, and whether the face mesh is."""
    installed = {row.name for row in rows if row.path and not row.message}
    if {Detect().pack, "yunet"} & installed:
        name = "insightface" if Detect().pack in installed else "yunet"
        yield Finding("default detector", name, "it is installed")
    else:
        yield Finding(
            "default detector",
            "yunet, which is missing",
            "the first run downloads it (0.2 MB, free for any use); without a download, haar",
        )
    if "face-mesh" in installed:
        yield Finding("face mesh", "here", "used with every detector")
    else:
        yield Finding(
            "face mesh",
            "missing",
            "downloaded with insightface and yunet, or by vidrestore weights fetch face-mesh "
            "(1.2 MB, free for any use); without it, masks and angles come from five landmarks",
        )


def _version(package: str) -> str | None:
    """Return the installed version of a package, or None if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


_REQUIRED: Sequence[tuple[str, Callable[[], Finding]]] = (
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
    """Yield sentences about what will be slow.

    The times were measured once, on two cores of a Xeon with AMX; other machines differ in them,
    and less in the ratios.
    """
    try:
        if _cuda_devices():
            return
        from vidrestore.models.gpen.variants import has_bfloat16

        fast_format = has_bfloat16()
    except Exception as error:  # torch is broken; a row of the table reports it
        _log.debug("what will be slow is not known: %r", error)
        return
    yield (
        "gpen-2048 on the processor takes seconds for a face (two cores took 0.8 s with openvino, "
        "2.3 s without), and a minute of video has 1500 frames; gpen-512 is two to three times "
        "faster"
    )
    if not fast_format:
        yield (
            "this processor is not fast in bfloat16, so networks run in float32, which takes "
            "two to three times as long as bfloat16"
        )
    elif _version("openvino") is None:
        yield "GPEN runs in torch, without openvino, which takes a quarter longer"
    if usable_cores() <= 2:
        cores = "one core is" if usable_cores() == 1 else "two cores are"
        yield f"{cores} shared by decoding, networks and encoding; more cores run them in parallel"


def _runs_now(machine: Sequence[Finding], rows: Sequence[weights.Row]) -> Iterator[str]:
    """Yield the commands and options that run without any download."""
    if any(finding.is_required for finding in machine):
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
    yield from (f"{option} (its weights are here)" for option in options)
