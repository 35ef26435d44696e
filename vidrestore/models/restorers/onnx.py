"""Any face-restoration network that people own as an ONNX file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vidrestore.common.errors import WeightsError
from vidrestore.models.onnx_session import (
    first_run,
    import_onnxruntime,
    inputs_of,
    open_network,
    type_of,
)
from vidrestore.models.restorers.gpen import probe_image
from vidrestore.models.weight_file import names_in_graph, sha256_of

# Parts of names in a graph that only one family of networks has, and the template of that family.
_TEMPLATES = {
    "gpen": re.compile(r"\becd\d+\b"),
    "ffhq": re.compile(r"stylegan_decoder|position_emb|\bquantize\b|fuse_convs_dict"),
}
# What a range is called, and what leads from it to [0, 1]: factor and summand.
_RANGES = {"[-1, 1]": (0.5, 0.5), "[0, 1]": (1.0, 0.0), "[0, 255]": (1 / 255, 0.0)}
# A network overshoots white by less than that, and black by less than that share of white.
_OVERSHOOT, _BELOW_BLACK = 1.6, 0.1
# Beyond it no result is meant as [-1, 1], not even that of a network without training.
_MOST_SIGNED = 20.0
# Share of the range by which a face may differ when another one is restored beside it.
_MOST_APART = 0.05


class Onnx:
    """GPEN, GFPGAN, RestoreFormer, CodeFormer and their kin, through onnxruntime.

    The graph takes (1 or N, 3, S, S) RGB in [-1, 1]. A second input of one number is CodeFormer's
    fidelity weight, set to `fidelity`. It is run at once on a built-in picture, which shows which
    output is a picture, in which order its axes are and whether it is in [-1, 1], [0, 1] or
    [0, 255], and whether faces can be run together. `on_notice` is told what is not as usual.

    `template` is what is known of the file; None: the names in its graph say it. Where they do
    not, it is "gpen" for a file whose name has that word and else "ffhq", which `on_notice` is
    told. WeightsError for a file that is no face restorer.
    """

    reach_frames = 0

    def __init__(
        self,
        path: Path,
        *,
        device: torch.device,
        fidelity: float,
        template: str | None = None,
        on_notice: Callable[[str], None] = lambda message: None,
    ) -> None:
        self._path, self._say = path, on_notice
        self._session = open_network(path, device)
        image, others = inputs_of(self._session, path)
        side = self._side(image)
        self.size: int | None = side
        self.name = f"{path.name} (onnxruntime, {self._session.get_providers()[0]})"
        self.template = template or self._found_template()
        self._image, self._dtype = image.name, type_of(image, path)
        self._others = {o.name: self._weight(o, fidelity) for o in others}
        self._fidelity = fidelity
        self.is_cheap = self._session.get_providers()[0] != "CPUExecutionProvider"
        probe = probe_image(side).numpy().astype(self._dtype)
        self._output, self._channels_last = self._found_output(probe)
        alone = self._run(probe)
        self._to_unit = self._found_range(alone)
        self._one_by_one = isinstance(image.shape[0], int) or self._mixes_faces(probe, alone)

    @cached_property
    def weights_sha256(self) -> str:
        return sha256_of(self._path)

    @property
    def cache_key(self) -> str:
        run = f"fidelity {self._fidelity}, template {self.template}"
        run += f", onnxruntime {import_onnxruntime().__version__}"
        return f"{self.name}, weights {self.weights_sha256}, {run}"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """(B, 1, 3, S, S) -> (B, 3, S, S), RGB in [0, 1]."""
        image = (windows[:, 0] * 2 - 1).cpu().numpy().astype(self._dtype)
        parts = np.split(image, len(image)) if self._one_by_one else [image]
        restored = torch.from_numpy(np.concatenate([self._run(part) for part in parts]))
        factor, summand = self._to_unit
        return restored.mul_(factor).add_(summand).clamp_(0, 1).to(windows.device)

    def _run(self, image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """(B, 3, S, S) -> the same in float32, in the network's own range."""
        (found,) = self._session.run([self._output], {self._image: image, **self._others})
        if self._channels_last:
            found = found.transpose(0, 3, 1, 2)
        return np.array(found, np.float32, order="C")

    def _found_template(self) -> str:
        names = names_in_graph(self._path)
        for template, pattern in _TEMPLATES.items():
            if any(pattern.search(name) for name in names):
                return template
        called = "gpen" in self._path.name.lower()
        template = "gpen" if called else "ffhq"
        why = "as its file is called" if called else "which most networks want"
        self._say(
            f"nothing in {self._path.name} says where it wants the landmarks of a face; the "
            f"template {template} is used, {why}; vidrestore weights try compares both, and "
            "align.template sets another"
        )
        return template

    def _found_output(self, probe: npt.NDArray[Any]) -> tuple[str, bool]:
        """Name of the output that is a picture, and whether its channels are its last axis."""
        found = first_run(self._session, self._path, {self._image: probe, **self._others})
        side = probe.shape[-1]
        shapes = [tuple(getattr(value, "shape", ())) for value in found]
        for i, (output, shape) in enumerate(zip(self._session.get_outputs(), shapes, strict=True)):
            if shape not in ((1, 3, side, side), (1, side, side, 3)):
                continue
            if i:
                self._say(
                    f"of the outputs of {self._path.name} {output.name} is used, the first that "
                    "is a picture"
                )
            if shape[1] != 3:
                self._say(f"{self._path.name} gives its channels as the last axis, and is taken so")
            return output.name, shape[1] != 3
        gives = " and ".join(str(shape) for shape in shapes)
        raise WeightsError(
            f"the network in {self._path} makes {gives} of {probe.shape}; a face restorer gives "
            f"(1, 3, {side}, {side})"
        )

    def _found_range(self, result: npt.NDArray[np.float32]) -> tuple[float, float]:
        """Of a picture that spans all from black to white."""
        if not np.isfinite(result).all():
            raise WeightsError(
                f"the network in {self._path} gives no finite result for a built-in picture; it is "
                "damaged, or needs another number format"
            )
        low, high = (float(value) for value in np.quantile(result, (0.005, 0.995)))
        name = "[-1, 1]"
        if low >= -_BELOW_BLACK * max(high, 1) and high > low:
            if high > _MOST_SIGNED:
                name = "[0, 255]"
            elif high <= _OVERSHOOT:
                name = "[0, 1]"
        elif high == low or max(-low, high) > _MOST_SIGNED:
            raise WeightsError(
                f"the network in {self._path} makes values from {low:.3g} to {high:.3g} of a "
                f"picture from black to white; a face restorer gives {', '.join(_RANGES)}"
            )
        if name != "[-1, 1]":
            self._say(f"{self._path.name} gives its result in {name}, and is taken so")
        return _RANGES[name]

    def _mixes_faces(self, probe: npt.NDArray[Any], alone: npt.NDArray[np.float32]) -> bool:
        """Two faces cannot be run together, though the graph leaves their number open."""
        try:
            together = self._run(np.concatenate([probe, -probe]))
        except Exception as error:  # onnxruntime has no base class for its errors
            if "allocate memory" in str(error):
                raise MemoryError(str(error)) from error
            together = alone
        span = float(alone.max() - alone.min())
        if len(together) == 2 and float(np.abs(together[0] - alone[0]).max()) <= _MOST_APART * span:
            return False
        self._say(f"{self._path.name} takes one face at a time, whatever it says of their number")
        return True

    def _side(self, image: Any) -> int:
        shape: Sequence[Any] = image.shape
        side = shape[-1] if len(shape) == 4 else None
        batch = shape[0] if shape else None
        if isinstance(batch, int) and batch != 1:
            side = None
        if (
            isinstance(side, int)
            and side > 0
            and shape[1:] == [3, side, side]
            and side & (side - 1) == 0
        ):
            return side
        raise WeightsError(
            f"the network in {self._path} takes {shape}; a face restorer takes (1 or N, 3, S, S) "
            "with S a power of two"
        )

    def _weight(self, value: Any, fidelity: float) -> Any:
        numbers = [n for n in value.shape if isinstance(n, int)]
        if int(np.prod(numbers)) != 1 or len(numbers) != len(value.shape):
            raise WeightsError(
                f"the network in {self._path} wants a second input {value.name} of shape "
                f"{value.shape}; only a single number, CodeFormer's weight, is known"
            )
        return np.full(value.shape, fidelity, type_of(value, self._path))
