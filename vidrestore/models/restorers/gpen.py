"""The restorer GPEN, in the number format and with the engine that suit the machine."""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vidrestore.common.checksums import FileHashes
from vidrestore.common.errors import UsageError, WeightsError, system_reason
from vidrestore.imaging.device_copies import to_device
from vidrestore.models.admission import (
    LEAST_BFLOAT16_DB,
    LEAST_DB,
    Exact,
    FloatArray,
    Form,
    first_admitted,
    kept_exact,
    psnr_db_of,
)
from vidrestore.models.gpen.checkpoint import load_checkpoint, load_gpen
from vidrestore.models.gpen.cuda import CudaGPEN, form_for, is_plain
from vidrestore.models.gpen.inference import InferenceGPEN
from vidrestore.models.gpen.memory import batch_that_fits, free_bytes
from vidrestore.models.gpen.network import GPEN
from vidrestore.models.gpen.variants import (
    WITHOUT_FLOAT64,
    for_processor,
    has_bfloat16,
    is_faster_than_openvino,
)
from vidrestore.models.restorers import (
    MOST_AT_ONCE,
    FileRestorer,
    LatentRestorer,
    all_finite,
    memory_errors,
)

if TYPE_CHECKING:
    from vidrestore.models.restorers import openvino

_log = logging.getLogger("vidrestore")

FORMATS = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
# On a device, the fastest first.
_FORMATS_ON_DEVICES = ("float16", "bfloat16", "float32")
_CPU = torch.device("cpu")
# OpenVINO rounds to bfloat16 more often than torch does: sound weights reach about 45 dB.
_LEAST_OPENVINO_DB = 38.0

Network = Callable[[torch.Tensor], torch.Tensor]
_Loaded = tuple[Network, int, torch.dtype]


class Gpen(FileRestorer, LatentRestorer):
    """A GPEN of any size; each face by itself, several at once.

    A face whose result is not finite is computed again in float32. On CUDA, `most_at_once` is the
    number of faces for which there is memory; it is 1 where the CPU runs the
    network instead, and None where that was the first choice. `is_cheap` is True except on a
    CPU, since writing a large face to the disk takes longer than restoring it.

    Args:
        path: The weight file, in a format of `load_checkpoint`.
        expected_size: Side in pixels that the network must have; None (default) for any.
        device: The preferred device. Where it is not the CPU, the rule of `admission` decides
            whether and in which number format it runs the network.
        others: The devices that follow where the rule does not admit the preferred one; default:
            none, so that it is an error.
        number_format: "float32", "float16", "bfloat16" or "auto" (default). On a CPU, "auto" is
            bfloat16 where that is faster on the processor, else float32; on another device
            the first of float16, bfloat16 and float32 that the rule admits.
        engine: "torch" (default), "openvino" or "auto". On a CPU, "auto" is OpenVINO where it is
            installed and faster, and its result for a built-in picture is close to that in float32,
            else torch.
        cache_folder: Folder for the networks that OpenVINO compiles; None (default) for the folder
            of the weight file.
        exact_folder: Folder that keeps the results of the processor to which devices are compared;
            None, the default: none is kept.
        on_notice: Receives a notice of each choice that is not the usual one.

    Raises:
        WeightsError: The file does not hold a GPEN, or one of another size, or the engine
            "openvino" cannot run it.
        UsageError: The engine is "openvino", which is not installed; or the rule admits no device.
        MemoryError: The network does not fit into the memory.
    """

    template = "gpen"
    most_at_once: int | None = None

    def __init__(
        self,
        path: Path,
        *,
        expected_size: int | None = None,
        device: torch.device,
        others: Sequence[torch.device] = (),
        number_format: str = "auto",
        engine: str = "torch",
        cache_folder: Path | None = None,
        exact_folder: Path | None = None,
        on_notice: Callable[[str], None] = lambda message: None,
        hashes: FileHashes | None = None,
    ) -> None:
        super().__init__(path, hashes)
        self._device, self._notify = device, on_notice
        self._cache_folder, self._exact_folder = cache_folder or path.parent, exact_folder
        self._exact: Network | None = None
        self.engine = "torch"
        with memory_errors():
            loaded = None
            if device.type != "cpu" and engine != "openvino":
                loaded = self._on_a_device((device, *others), expected_size, number_format)
            if loaded is None:
                self._device = _CPU
                if device.type == "cuda":  # whose batches would only take memory here
                    self.most_at_once = 1
                loaded = self._from_openvino(expected_size, engine, number_format)
                if loaded is not None:
                    self.engine = "openvino"
                else:
                    loaded = self._from_torch(expected_size, number_format)
        self.is_cheap = self._device.type != "cpu"
        self._run_as = run_as(self._device, number_format, engine)
        self._network: Network
        self._network, self.size, self.dtype = loaded
        self.name = self.name or f"gpen-{self.size}"

    @cached_property
    def cache_key(self) -> str:
        """A text that names all on which restored faces depend besides the windows."""
        run = f"{self.dtype}, {self.engine}, {self._run_as}"
        return f"{self.name}, weights {self.weights_sha256}, {run}"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Restore faces.

        Args:
            windows: (B, 1, 3, S, S) float32 RGB in [0, 1].

        Returns:
            (B, 3, S, S) float32 RGB in [0, 1], on the device of the windows; NaN where not even
            float32 had a finite result.

        Raises:
            torch.OutOfMemoryError: The batch does not fit into the memory of the device. Then
                `most_at_once` is half of it.
        """
        return self._restored(windows, None)

    def codes(self, windows: torch.Tensor) -> torch.Tensor:
        """Compute the mapped latent codes of faces; the engine must be torch.

        Args:
            windows: (B, 1, 3, S, S) float32 RGB in [0, 1].

        Returns:
            (B, D) codes, on the device of the windows.
        """
        image = to_device(windows[:, 0] * 2 - 1, self._device)
        assert isinstance(self._network, CudaGPEN | InferenceGPEN), "the engine must be torch"
        return self._network.latent(image).to(windows.device)

    def with_codes(self, windows: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Restore faces with given latent codes; the engine must be torch.

        Args:
            windows: (B, 1, 3, S, S) float32 RGB in [0, 1].
            codes: (B, D) mapped latent codes.

        Returns:
            As `__call__`.

        Raises:
            torch.OutOfMemoryError: As `__call__`.
        """
        return self._restored(windows, to_device(codes, self._device))

    def _restored(self, windows: torch.Tensor, codes: torch.Tensor | None) -> torch.Tensor:
        image = to_device(windows[:, 0] * 2 - 1, self._device)
        try:
            restored = self._run(self._network, image, codes)
        except torch.OutOfMemoryError:
            self.most_at_once = max(len(image) // 2, 1)
            raise
        bad = ~all_finite(restored)
        if bad.any() and self.dtype != torch.float32:
            restored[bad] = self._in_float32(image[bad], None if codes is None else codes[bad])
            bad = ~all_finite(restored)
        restored.mul_(0.5).add_(0.5).clamp_(0, 1)
        restored[bad] = math.nan  # clipping would have turned infinity into a color
        return restored.to(windows.device)

    def _run(
        self, network: Network, image: torch.Tensor, codes: torch.Tensor | None
    ) -> torch.Tensor:
        if codes is None:
            return network(image)
        assert isinstance(network, CudaGPEN | InferenceGPEN), "the engine must be torch"
        restored: torch.Tensor = network(image, codes)
        return restored

    def _in_float32(self, image: torch.Tensor, codes: torch.Tensor | None) -> torch.Tensor:
        if self._exact is None:
            name = str(self.dtype).removeprefix("torch.")
            self._notify(
                f"{self.name} returned no finite result in {name}; such faces run in float32"
            )
            self._exact = self._prepared(self._load(self.size), torch.float32, self._device, 1)
        each = [slice(b, b + 1) for b in range(len(image))]
        return torch.cat([
            self._run(self._exact, image[b], None if codes is None else codes[b]) for b in each
        ])  # fmt: skip

    def release(self) -> None:
        """Free the memory that is kept between calls; the next call allocates it again."""
        for network in (self._network, self._exact):
            if isinstance(network, CudaGPEN | InferenceGPEN):
                network.release()

    def _load(self, expected_size: int | None) -> GPEN:
        try:
            return load_gpen(self._path, expected_size)
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> WeightsError:
        reason = system_reason(error)
        return WeightsError(f"{self._path} cannot be read: {reason}")

    def _from_torch(self, expected_size: int | None, number_format: str) -> _Loaded:
        gpen = self._load(expected_size)
        dtype = self._cpu_format(number_format)
        return InferenceGPEN(gpen, dtype), gpen.config.size, dtype

    def _on_a_device(
        self, devices: Sequence[torch.device], expected_size: int | None, number_format: str
    ) -> _Loaded | None:
        """Return the network on the first device that the rule admits; None for the CPU."""
        gpen = self._load(expected_size)
        size = gpen.config.size
        has_processor = any(each.type == "cpu" for each in devices)
        formats = (number_format,) if number_format in FORMATS else _FORMATS_ON_DEVICES
        candidates = [
            (device, name) for device in devices if device.type != "cpu" for name in formats
        ]
        forms = [self._form(gpen, device, name, number_format) for device, name in candidates]
        admitted = first_admitted(
            f"gpen-{size}",
            forms,
            lambda: self._exact_result(gpen),
            otherwise="the processor runs it" if has_processor else None,
            on_notice=self._notify,
        )
        if admitted is None:
            return None
        form, network = admitted
        self._device, name = candidates[forms.index(form)]
        return network, size, FORMATS[name]

    def _form(
        self, gpen: GPEN, device: torch.device, name: str, number_format: str
    ) -> Form[Network]:
        image, dtype = probe_image(gpen.config.size), FORMATS[name]

        def run(network: Network) -> FloatArray:
            result = network(to_device(image, device)).clamp(-1, 1)
            return result.float().cpu().numpy()

        return Form(
            f"{name} on {device}",
            lambda: self._prepared(gpen, dtype, device),
            run,
            LEAST_BFLOAT16_DB if name == number_format == "bfloat16" else LEAST_DB,
        )

    def _exact_result(self, gpen: GPEN) -> Exact:
        size = gpen.config.size
        # A faster form on the processor would leave a time that admits slower devices.
        form = for_processor(torch.float32)
        return kept_exact(
            self._exact_folder,
            f"gpen-{size}, weights {self.weights_sha256}, torch {torch.__version__}, {form}",
            lambda: Exact.measured(lambda: float32_result(gpen).numpy()),
        )

    def _prepared(
        self, gpen: GPEN, dtype: torch.dtype, device: torch.device, batch: int | None = None
    ) -> Network:
        """Prepare the network for `batch` faces; None sets `most_at_once` by the free memory."""
        if device.type == "cpu":
            return InferenceGPEN(gpen, dtype)
        if device.type != "cuda":
            return InferenceGPEN(gpen, dtype, WITHOUT_FLOAT64).to(device)
        torch.cuda.empty_cache()
        if batch is None:
            batch = max(batch_that_fits(free_bytes(device), gpen.config, dtype, MOST_AT_ONCE), 1)
            self.most_at_once = batch
        network = InferenceGPEN(gpen, dtype, form_for(device, self._notify, dtype)).to(device)
        return CudaGPEN(network, batch=batch, use_graphs=not is_plain(), on_notice=self._notify)

    def _cpu_format(self, number_format: str) -> torch.dtype:
        if number_format == "auto":
            return torch.bfloat16 if has_bfloat16() else torch.float32
        return FORMATS[number_format]

    def _from_openvino(
        self, expected_size: int | None, engine: str, number_format: str
    ) -> _Loaded | None:
        """Return the network as OpenVINO runs it; None where torch must run it.

        After the first measurement against float32, the weights are only hashed, not loaded.
        """
        from vidrestore.models.restorers import openvino

        if engine == "torch":
            return None
        dtype = self._cpu_format(number_format)
        if engine == "auto" and (is_faster_than_openvino(dtype) or not openvino.is_installed()):
            return None
        if not openvino.is_installed():
            raise UsageError(
                "the engine openvino is not installed; run pip install 'vidrestore[openvino]', or "
                "use --set restore.engine=torch"
            )
        try:
            sha256 = self.weights_sha256
        except OSError as error:
            raise self._unreadable(error) from error
        folder = self._cache_folder
        cache = openvino.OpenVinoCache(folder, self._path.stem, sha256, str(dtype))
        try:
            network, size, psnr_db = self._cached_or_compiled(cache, expected_size, dtype)
        except (OSError, openvino.UnusableError) as error:
            if isinstance(error, OSError):
                reason = f"cannot be written: {system_reason(error)}"
                reason = f"{folder}, where OpenVINO keeps what it compiles, {reason}"
            else:
                reason = f"OpenVINO cannot run {self._path.name}: {error}"
            if engine != "auto":
                raise WeightsError(f"{reason}; use --set restore.engine=torch") from error
            self._notify(f"{reason}; torch runs the network")
            return None
        if psnr_db < _LEAST_OPENVINO_DB:
            self._notify_inexact(size, psnr_db, "OpenVINO", _LEAST_OPENVINO_DB, "torch")
            return None
        return network, size, dtype

    def _cached_or_compiled(
        self, cache: openvino.OpenVinoCache, expected_size: int | None, dtype: torch.dtype
    ) -> tuple[Network, int, float]:
        """Return the network as OpenVINO runs it, S, and its PSNR to float32 in decibels."""
        from vidrestore.models.restorers.openvino import UnusableError

        try:
            if (cached := self._cached(cache, expected_size, dtype)) is not None:
                return cached
        except UnusableError as error:  # a notice follows, unless another run replaces the file
            _log.info("what OpenVINO compiled is not used: %s", error)
        with cache.alone():
            try:
                if (cached := self._cached(cache, expected_size, dtype)) is not None:
                    return cached
                why = f"{self._path.name} is compiled for OpenVINO and measured, which is done once"
            except UnusableError as error:
                _log.info("what OpenVINO compiled is not used: %s", error)
                why = (
                    f"the compiled network of {self._path.name} is not used, since {error}; "
                    "vidrestore compiles and measures it again"
                )
            gpen = self._load(expected_size)
            self._notify(why)
            return self._compiled(cache, gpen, dtype)

    def _cached(
        self, cache: openvino.OpenVinoCache, expected_size: int | None, dtype: torch.dtype
    ) -> tuple[Network, int, float] | None:
        from vidrestore.models.restorers.openvino import CompiledGPEN

        entry = cache.load()
        if entry is None:
            return None
        measured, content = entry
        if expected_size not in (None, measured.size):
            self._load(expected_size)  # raises the error that names both sizes
        network = CompiledGPEN.from_content(content, bfloat16=dtype == torch.bfloat16)
        return network, measured.size, measured.psnr_db

    def _compiled(
        self, cache: openvino.OpenVinoCache, gpen: GPEN, dtype: torch.dtype
    ) -> tuple[Network, int, float]:
        from vidrestore.models.restorers.openvino import CompiledGPEN

        size = gpen.config.size
        # Computed first, so that its memory is free again when OpenVINO allocates its own.
        exact = float32_result(gpen)
        network = CompiledGPEN.compiled(gpen, cache.folder, bfloat16=dtype == torch.bfloat16)
        psnr_db = psnr_to_float32_db(network, exact)
        cache.keep(network.content(), size, psnr_db)
        return network, size, psnr_db

    def _notify_inexact(
        self, size: int, psnr_db: float, form: str, least_db: float, replacement: str
    ) -> None:
        self._notify(
            f"the PSNR of gpen-{size} in {form} to its result in float32 is {psnr_db:.0f} dB, less "
            f"than {least_db:.0f} dB; it runs in {replacement}"
        )


def holds_gpen(path: Path) -> bool:
    """Return whether a file holds the unchanged weights of a GPEN, for the exact network.

    Args:
        path: The weight file.

    Returns:
        False where it holds another network or folded weights, or is damaged.

    Raises:
        OSError: The file cannot be read.
    """
    try:
        load_checkpoint(path)
    except WeightsError as error:
        _log.debug("%s is not for the exact network: %s", path, error)
        return False
    return True


def run_as(device: torch.device, number_format: str, engine: str) -> str:
    """Describe how a GPEN is run, as it is known before a network is opened.

    Args:
        device: The device.
        number_format: The setting, "auto" included.
        engine: The setting, "auto" included.

    Returns:
        A text for `cache_key`, which names versions, device and settings.
    """
    parts = [f"torch {torch.__version__}"]
    if device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
        if is_plain():
            parts.append("plain")
    elif device.type == "xpu":
        parts.append(torch.xpu.get_device_name(device))
    else:
        parts.append(f"{device.type} with bfloat16" if has_bfloat16() else device.type)
        if engine != "torch" and importlib.util.find_spec("openvino") is not None:
            parts.append(f"openvino {version('openvino')}")
    return ", ".join([*parts, f"format {number_format}", f"engine {engine}"])


def float32_result(gpen: GPEN) -> torch.Tensor:
    """Compute the result for the built-in picture in float32 on the processor.

    Args:
        gpen: The network, on the CPU.

    Returns:
        (1, 3, S, S) float32 RGB on the CPU, clipped to [-1, 1].
    """
    restored: torch.Tensor = InferenceGPEN(gpen, torch.float32)(probe_image(gpen.config.size))
    return restored.clamp(-1, 1)


def psnr_to_float32_db(network: Network, exact: torch.Tensor) -> float:
    """Measure the PSNR of a network's result for the built-in picture to that in float32.

    Args:
        network: The network, called with (1, 3, S, S) in [-1, 1] on the CPU.
        exact: (1, 3, S, S) result of `float32_result`.

    Returns:
        The PSNR in decibels; infinite where both results are equal, and minus infinity where the
        network's is not finite.
    """
    result = network(probe_image(exact.shape[-1])).clamp(-1, 1)
    return psnr_db_of(result.numpy(), Exact(exact.numpy(), 0.0))


def probe_image(size: int) -> torch.Tensor:
    """Make the built-in picture, which has smooth shapes and fine texture in all channels.

    Args:
        size: Side S in pixels.

    Returns:
        (1, 3, S, S) float32 RGB in [-1, 1] on the CPU.
    """
    v, u = torch.meshgrid(*(torch.linspace(0, 1, size),) * 2, indexing="ij")
    waves = [
        0.6 * torch.sin(2 * math.pi * ((c + 1) * u + v)) + 0.4 * torch.sin(60 * (7 + c) * u * v)
        for c in range(3)
    ]
    return torch.stack(waves)[None]
