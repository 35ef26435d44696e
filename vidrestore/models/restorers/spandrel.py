"""The restorer for GFPGAN, RestoreFormer and CodeFormer in .pth files, through spandrel."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from vidrestore.common.checksums import FileHashes
from vidrestore.common.errors import UsageError, WeightsError
from vidrestore.imaging.device_copies import to_device
from vidrestore.models.admission import (
    LEAST_BFLOAT16_DB,
    LEAST_DB,
    Exact,
    FloatArray,
    Form,
    first_admitted,
    kept_exact,
)
from vidrestore.models.gpen.cuda import repeatable_convolutions
from vidrestore.models.restorers import FileRestorer, all_finite, memory_errors
from vidrestore.models.restorers.gpen import FORMATS, probe_image
from vidrestore.models.spandrel_networks import CODEFORMER, build, version_text

# All three families were made for faces of this size.
_SIDE_PX = 512
_CPU = torch.device("cpu")


class Spandrel(FileRestorer):
    """GFPGAN, RestoreFormer or CodeFormer, built by spandrel, each face by itself or several.

    On the processor it runs in float32. On another device the rule of `admission` decides whether
    it runs there. The networks themselves are called, with R'G'B' in [-1, 1] as their authors call
    them, and without the random noise that GFPGAN adds while it is trained.

    Args:
        path: The weight file.
        state: Its content, as `read_checkpoint` returns it.
        family: Name of the family, see `restorer_family`.
        extra: The extra that builds it.
        device: The preferred device.
        others: The devices that follow where the rule does not admit the preferred one; default:
            none, so that it is an error.
        number_format: "float32", "float16", "bfloat16" or "auto" (default), which is float16 on a
            device where the network supports it and the rule admits it, else float32.
        fidelity: CodeFormer's fidelity weight in [0, 1].
        exact_folder: Folder that keeps the results of the processor; None, the default: none is
            kept.
        on_notice: Receives a notice of each choice that is not the usual one.
        hashes: Hashes of the files that this run has read already. Default: none.

    Raises:
        UsageError: The extra is not installed, the network does not support the number format, or
            the rule admits no device.
        WeightsError: The weights do not fit into the network, or it restores nothing.
        MemoryError: The network does not fit into the memory.
    """

    template = "ffhq"
    size = _SIDE_PX
    most_at_once: int | None = None

    def __init__(
        self,
        path: Path,
        state: Mapping[str, torch.Tensor],
        family: str,
        extra: str,
        *,
        device: torch.device,
        others: Sequence[torch.device] = (),
        number_format: str = "auto",
        fidelity: float,
        exact_folder: Path | None = None,
        on_notice: Callable[[str], None] = lambda message: None,
        hashes: FileHashes | None = None,
    ) -> None:
        super().__init__(path, hashes)
        self._family, self._extra = family, extra
        self._fidelity = fidelity
        self.name = f"{path.name} ({family})"
        with memory_errors():
            descriptor = build(path, state, family, extra)
            if extra == CODEFORMER:
                on_notice(
                    f"{path.name} holds CodeFormer, whose weights and code are for non-commercial "
                    "use"
                )
            form = self._admitted(descriptor, (device, *others), number_format, exact_folder,
                                  on_notice)  # fmt: skip
            if form is None:
                self._check_format(descriptor, number_format)
                dtype = FORMATS.get(number_format, torch.float32)
                form = _CPU, dtype, descriptor.model.to(dtype)
                if device.type == "cuda":  # whose batches would only take memory here
                    self.most_at_once = 1
                self._check_result(self._picture_through(form))
        self._device, self._dtype, self._model = form
        self.is_cheap = self._device.type != "cpu"

    @cached_property
    def cache_key(self) -> str:
        """A text that names all on which restored faces depend besides the windows."""
        run = f"{self._dtype} on {self._device}, fidelity {self._fidelity}"
        run += f", torch {torch.__version__}, {version_text(self._extra)}"
        return f"{self.name}, weights {self.weights_sha256}, {run}"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Restore faces.

        Args:
            windows: (B, 1, 3, 512, 512) float32 RGB in [0, 1].

        Returns:
            (B, 3, 512, 512) float32 RGB in [0, 1], on the device of the windows; NaN where the
            result is not finite.
        """
        image = to_device(windows[:, 0] * 2 - 1, self._device)
        restored = self._run(self._model, image, self._dtype)
        bad = ~all_finite(restored)
        restored = restored.mul_(0.5).add_(0.5).clamp_(0, 1)
        restored[bad] = math.nan
        return restored.to(windows.device)

    @torch.no_grad()
    def _run(self, model: Any, image: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Run a network on (B, 3, S, S) in [-1, 1]; the result is float32."""
        how: dict[str, Any] = {}
        if self._family == "CodeFormer":
            how = {"weight": self._fidelity}
        elif self._family == "GFPGAN":
            how = {"randomize_noise": False}
        with repeatable_convolutions():
            result: torch.Tensor = model(image.to(dtype), **how)[0]
        return result.float()

    def _picture_through(self, form: tuple[torch.device, torch.dtype, Any]) -> FloatArray:
        device, dtype, model = form
        result = self._run(model, to_device(probe_image(_SIDE_PX), device), dtype)
        return result.clamp(-1, 1).cpu().numpy()

    def _check_result(self, result: FloatArray) -> None:
        """Raise WeightsError where the result for the built-in picture is no picture."""
        if result.shape != (1, 3, _SIDE_PX, _SIDE_PX) or not math.isfinite(float(result.sum())):
            raise WeightsError(
                f"the network in {self._path} returns no finite picture of {_SIDE_PX} pixels; get "
                "the file again"
            )

    def _check_format(self, descriptor: Any, number_format: str) -> None:
        supported = {"float16": descriptor.supports_half, "bfloat16": descriptor.supports_bfloat16}
        if not supported.get(number_format, True):
            raise UsageError(
                f"{self._family} cannot compute in {number_format}; use --set "
                "restore.number_format=auto"
            )

    def _admitted(
        self,
        descriptor: Any,
        devices: Sequence[torch.device],
        number_format: str,
        exact_folder: Path | None,
        on_notice: Callable[[str], None],
    ) -> tuple[torch.device, torch.dtype, Any] | None:
        """Return device, type and network as the rule admits it; None for the processor."""
        accelerators = [device for device in devices if device.type != "cpu"]
        if not accelerators:
            return None
        self._check_format(descriptor, number_format)
        if number_format in FORMATS:
            formats = [number_format]
        else:
            formats = ["float16", "float32"] if descriptor.supports_half else ["float32"]
        forms = [
            self._form(descriptor, device, name, number_format)
            for device in accelerators
            for name in formats
        ]

        def exact() -> Exact:
            key = f"{self.name}, weights {self.weights_sha256}, fidelity {self._fidelity}"
            key += f", torch {torch.__version__}, {version_text(self._extra)}"
            whole = _CPU, torch.float32, descriptor.model
            found = kept_exact(
                exact_folder, key, lambda: Exact.measured(lambda: self._picture_through(whole))
            )
            self._check_result(found.result)
            return found

        admitted = first_admitted(
            self._path.name,
            forms,
            exact,
            otherwise="the processor runs it" if len(accelerators) < len(devices) else None,
            on_notice=on_notice,
        )
        return None if admitted is None else admitted[1]

    def _form(
        self, descriptor: Any, device: torch.device, name: str, number_format: str
    ) -> Form[tuple[torch.device, torch.dtype, Any]]:
        def opened() -> tuple[torch.device, torch.dtype, Any]:
            # A copy, since the network itself stays what the others are compared to.
            return device, FORMATS[name], copy.deepcopy(descriptor.model).to(device, FORMATS[name])

        return Form(
            f"{name} on {device}",
            opened,
            self._picture_through,
            LEAST_BFLOAT16_DB if name == number_format == "bfloat16" else LEAST_DB,
        )
