"""GPEN-BFR on batches of faces, in the number format that suits the machine."""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Callable
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from vidrestore.common.checksums import FileHashes
from vidrestore.common.errors import UsageError, WeightsError, system_reason
from vidrestore.models.gpen.checkpoint import load_checkpoint, load_gpen
from vidrestore.models.gpen.cuda import CudaGPEN, form_for, repeatable_convolutions
from vidrestore.models.gpen.inference import InferenceGPEN
from vidrestore.models.gpen.memory import batch_that_fits, free_bytes
from vidrestore.models.gpen.network import GPEN
from vidrestore.models.restorers import MOST_AT_ONCE, Restorer, all_finite, memory_errors

if TYPE_CHECKING:
    from vidrestore.models.restorers import openvino

_log = logging.getLogger("vidrestore")

FORMATS = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
# float16 is about 70 dB from float32 on sound weights; below this something overflowed.
_LEAST_FLOAT16_DB = 60.0
# OpenVINO rounds to bfloat16 more often than torch does; about 45 dB on sound weights.
_LEAST_OPENVINO_DB = 38.0

Network = Callable[[torch.Tensor], torch.Tensor]
_Loaded = tuple[Network, int, torch.dtype]


class Gpen(Restorer):
    """A GPEN of any size; each face by itself, several at once.

    `number_format` "auto": on CUDA float16 if a built-in picture comes out as in float32, else
    bfloat16; on a CPU bfloat16 where its instructions have it, else float32. `engine` "auto": on a
    CPU OpenVINO where it is installed and a built-in picture comes out as in float32, else torch.
    A face whose result is not finite is computed again in float32. `on_notice` is told what was
    chosen or repeated. `cache_folder` is where OpenVINO keeps what it compiled.
    `hashes` are those of the run, so that the file is not read again for its own.

    `most_at_once`: on CUDA how many faces there is memory for; None on a CPU. `is_cheap` on CUDA,
    where writing a large face takes longer than restoring it.
    """

    template = "gpen"
    most_at_once: int | None = None

    def __init__(
        self,
        path: Path,
        *,
        expected_size: int | None = None,
        device: torch.device,
        number_format: str = "auto",
        engine: str = "torch",
        cache_folder: Path | None = None,
        on_notice: Callable[[str], None] = lambda message: None,
        hashes: FileHashes | None = None,
    ) -> None:
        self._hashes = hashes or FileHashes()
        self._path, self._device, self._say = path, device, on_notice
        self._cache_folder = cache_folder or path.parent
        self._exact: Network | None = None
        self.is_cheap = device.type != "cpu"
        self._run_as = run_as(device, number_format, engine)
        self.engine = "torch"
        with memory_errors():
            found = self._from_openvino(expected_size, engine, number_format)
            if found is not None:
                self.engine = "openvino"
            else:
                found = self._from_torch(expected_size, number_format)
        self._network: Network
        self._network, self.size, self.dtype = found
        self.name = f"gpen-{self.size}"

    @cached_property
    def weights_sha256(self) -> str:
        return self._hashes.sha256(self._path)

    @cached_property
    def cache_key(self) -> str:
        run = f"{self.dtype}, {self.engine}, {self._run_as}"
        return f"{self.name}, weights {self.weights_sha256}, {run}"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """(B, 1, 3, S, S) -> (B, 3, S, S), RGB in [0, 1]."""
        image = windows[:, 0] * 2 - 1
        try:
            restored = self._network(image)
        except torch.OutOfMemoryError:
            self.most_at_once = max(len(image) // 2, 1)
            raise
        bad = ~all_finite(restored)
        if bad.any() and self.dtype != torch.float32:
            restored[bad] = self._in_float32(image[bad])
            bad = ~all_finite(restored)
        restored.mul_(0.5).add_(0.5).clamp_(0, 1)
        restored[bad] = math.nan  # clipping would have made a colour of infinity
        return restored

    def _in_float32(self, image: torch.Tensor) -> torch.Tensor:
        if self._exact is None:
            name = str(self.dtype).removeprefix("torch.")
            self._say(f"{self.name} gave no finite result in {name}; such faces run in float32")
            self._exact = self._prepared(self._load(self.size), torch.float32, 1)
        return torch.cat([self._exact(image[b : b + 1]) for b in range(len(image))])

    def release(self) -> None:
        """Free the memory that is kept between calls; the next one takes it again."""
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

    def _from_torch(self, expected_size: int | None, wanted: str) -> _Loaded:
        gpen = self._load(expected_size)
        size = gpen.config.size
        if self._device.type == "cpu":
            dtype = self._cpu_format(wanted)
            return self._prepared(gpen, dtype), size, dtype
        dtype = FORMATS.get(wanted, torch.float16)
        exact = float32_result(gpen, self._device) if wanted == "auto" else None
        network = self._prepared(gpen, dtype)
        if exact is None:
            # So that what does not fit is known before the work begins.
            network(probe_image(size).to(self._device))
        elif (psnr_db := psnr_to_float32_db(network, exact, self._device)) < _LEAST_FLOAT16_DB:
            dtype = torch.bfloat16
            self._say_too_far(size, psnr_db, "float16", _LEAST_FLOAT16_DB, "bfloat16")
            del network  # before its successor is made
            network = self._prepared(gpen, dtype)
        return network, size, dtype

    def _prepared(self, gpen: GPEN, dtype: torch.dtype, batch: int | None = None) -> Network:
        """For `batch` faces; None: for as many as there is memory for, which becomes known."""
        if self._device.type == "cpu":
            return InferenceGPEN(gpen, dtype)
        torch.cuda.empty_cache()
        if batch is None:
            free = free_bytes(self._device)
            batch = max(batch_that_fits(free, gpen.config, dtype, MOST_AT_ONCE), 1)
            self.most_at_once = batch
        network = InferenceGPEN(gpen, dtype, form_for(self._device, self._say)).to(self._device)
        return CudaGPEN(network, batch=batch, on_notice=self._say)

    def _cpu_format(self, wanted: str) -> torch.dtype:
        if wanted == "auto":
            return torch.bfloat16 if has_bfloat16() else torch.float32
        return FORMATS[wanted]

    def _from_openvino(self, expected_size: int | None, engine: str, wanted: str) -> _Loaded | None:
        """The network as OpenVINO runs it, or None where torch is to run it.

        Once it was measured against float32, the weights need not be loaded again, only hashed.
        """
        from vidrestore.models.restorers import openvino

        if engine == "torch" or (engine == "auto" and self._device.type != "cpu"):
            return None
        if not openvino.is_installed():
            if engine == "auto":
                return None
            raise UsageError(
                "the engine openvino is not installed; pip install 'vidrestore[openvino]', or "
                "--set restore.engine=torch"
            )
        dtype = self._cpu_format(wanted)
        try:
            sha256 = self.weights_sha256
        except OSError as error:
            raise self._unreadable(error) from error
        folder = self._cache_folder
        kept = openvino.OpenVinoCache(folder, self._path.stem, sha256, str(dtype))
        try:
            network, size, psnr_db = self._kept_or_compiled(kept, expected_size, dtype)
        except (OSError, openvino.UnusableError) as error:
            if isinstance(error, OSError):
                reason = f"cannot be written: {system_reason(error)}"
                reason = f"{folder}, where OpenVINO keeps what it compiles, {reason}"
            else:
                reason = f"OpenVINO cannot run {self._path.name}: {error}"
            if engine != "auto":
                raise WeightsError(f"{reason}; use --set restore.engine=torch") from error
            self._say(f"{reason}; torch runs the network")
            return None
        if psnr_db < _LEAST_OPENVINO_DB:
            self._say_too_far(size, psnr_db, "OpenVINO", _LEAST_OPENVINO_DB, "torch")
            return None
        return network, size, dtype

    def _kept_or_compiled(
        self, kept: openvino.OpenVinoCache, expected_size: int | None, dtype: torch.dtype
    ) -> tuple[Network, int, float]:
        """The network as OpenVINO runs it, S, and its PSNR to float32 in decibel."""
        from vidrestore.models.restorers.openvino import UnusableError

        try:
            if (found := self._kept(kept, expected_size, dtype)) is not None:
                return found
        except UnusableError as error:  # told below, unless another run is about to replace it
            _log.info("what OpenVINO compiled is not used: %s", error)
        with kept.alone():
            try:
                if (found := self._kept(kept, expected_size, dtype)) is not None:
                    return found
                why = f"{self._path.name} is compiled for OpenVINO and measured, which is done once"
            except UnusableError as error:
                _log.info("what OpenVINO compiled is not used: %s", error)
                why = (
                    f"what OpenVINO had made of {self._path.name} is not used, since {error}; "
                    "it is compiled and measured anew"
                )
            gpen = self._load(expected_size)
            self._say(why)
            return self._compiled(kept, gpen, dtype)

    def _kept(
        self, kept: openvino.OpenVinoCache, expected_size: int | None, dtype: torch.dtype
    ) -> tuple[Network, int, float] | None:
        from vidrestore.models.restorers.openvino import CompiledGPEN

        found = kept.load()
        if found is None:
            return None
        measured, content = found
        if expected_size not in (None, measured.size):
            self._load(expected_size)  # which says what is wrong
        network = CompiledGPEN.from_content(content, bfloat16=dtype == torch.bfloat16)
        return network, measured.size, measured.psnr_db

    def _compiled(
        self, kept: openvino.OpenVinoCache, gpen: GPEN, dtype: torch.dtype
    ) -> tuple[Network, int, float]:
        from vidrestore.models.restorers.openvino import CompiledGPEN

        size = gpen.config.size
        # First, so that its memory is free again when OpenVINO asks for its own.
        exact = float32_result(gpen, torch.device("cpu"))
        network = CompiledGPEN.compiled(gpen, kept.folder, bfloat16=dtype == torch.bfloat16)
        psnr_db = psnr_to_float32_db(network, exact, torch.device("cpu"))
        kept.keep(network.content(), size, psnr_db)
        return network, size, psnr_db

    def _say_too_far(
        self, size: int, psnr_db: float, what: str, least_db: float, instead: str
    ) -> None:
        self._say(
            f"gpen-{size} is {psnr_db:.0f} dB from float32 in {what}, less than {least_db:.0f}; "
            f"it runs in {instead}"
        )


def holds_gpen(path: Path) -> bool:
    """The file holds the weights of a GPEN as they are, so that the exact network can take them."""
    try:
        load_checkpoint(path)
    except WeightsError as error:
        _log.debug("%s is not for the exact network: %s", path, error)
        return False
    return True


def run_as(device: torch.device, number_format: str, engine: str) -> str:
    """All that decides how a GPEN is run, as far as it is known before one is opened.

    Args:
        device: Where it runs.
        number_format: As asked for, "auto" included.
        engine: As asked for, "auto" included.

    Returns:
        A text for `cache_key`.
    """
    parts = [f"torch {torch.__version__}"]
    if device.type == "cuda":
        parts.append(torch.cuda.get_device_name(device))
    else:
        parts.append(f"{device.type} with bfloat16" if has_bfloat16() else device.type)
        if engine != "torch" and importlib.util.find_spec("openvino") is not None:
            parts.append(f"openvino {version('openvino')}")
    return ", ".join([*parts, f"format {number_format}", f"engine {engine}"])


def has_bfloat16() -> bool:
    """The processor multiplies bfloat16 matrices itself; without that the format is slower."""
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(found.get(name)) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def float32_result(gpen: GPEN, device: torch.device) -> torch.Tensor:
    """(1, 3, S, S) on the CPU: what the built-in input gives in float32, clipped like a picture."""
    image = probe_image(gpen.config.size)
    if device.type != "cpu":
        try:
            with repeatable_convolutions():
                exact = InferenceGPEN(gpen, torch.float32).to(device)
                result: torch.Tensor = exact(image.to(device))
            return result.clamp(-1, 1).cpu()
        except torch.OutOfMemoryError:
            # It takes twice what is wanted in the end, and the processor has room.
            _log.info("%s has no room to compare with float32, so the processor does it", device)
    result = InferenceGPEN(gpen, torch.float32)(image)
    return result.clamp(-1, 1)


def psnr_to_float32_db(network: Network, exact: torch.Tensor, device: torch.device) -> float:
    """PSNR of what `network` makes of the built-in input against `float32_result`."""
    result = network(probe_image(exact.shape[-1]).to(device)).clamp(-1, 1).cpu()
    error = float(((exact - result) / 2).square().mean())
    if math.isnan(error):
        return -math.inf
    return math.inf if error == 0 else -10 * math.log10(error)


def probe_image(size: int) -> torch.Tensor:
    """(1, 3, S, S) in [-1, 1]: smooth shapes and fine texture in all channels."""
    v, u = torch.meshgrid(*(torch.linspace(0, 1, size),) * 2, indexing="ij")
    waves = [
        0.6 * torch.sin(2 * math.pi * ((c + 1) * u + v)) + 0.4 * torch.sin(60 * (7 + c) * u * v)
        for c in range(3)
    ]
    return torch.stack(waves)[None]
