"""The restorer for face-restoration networks in ONNX files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vidrestore.common.checksums import FileHashes
from vidrestore.common.errors import WeightsError
from vidrestore.models.onnx_session import (
    first_run,
    import_onnxruntime,
    inputs_of,
    on_a_device,
    open_network,
    type_of,
)
from vidrestore.models.restorers import FileRestorer
from vidrestore.models.restorers.gpen import probe_image
from vidrestore.models.weight_file import names_in_graph

# Patterns of names in a graph that only one family of networks has, by the family's template.
_TEMPLATES = {
    "gpen": re.compile(r"\becd\d+\b"),
    "ffhq": re.compile(r"stylegan_decoder|position_emb|\bquantize\b|fuse_convs_dict"),
}
# Factor and summand that map each range to [0, 1].
_RANGES = {"[-1, 1]": (0.5, 0.5), "[0, 1]": (1.0, 0.0), "[0, 255]": (1 / 255, 0.0)}
# Largest value of white, overshoot included, and largest undershoot of black as a share of white.
_OVERSHOOT, _BELOW_BLACK = 1.6, 0.1
# Larger values do not belong to the range [-1, 1], even in the result of an untrained network.
_MOST_SIGNED = 20.0
# Share of the range by which a face may differ when the batch has another face, too.
_MOST_DIFFERENCE = 0.05
# Side of the faces where the graph leaves it open: that of most face restorers.
_USUAL_PX = 512


class Onnx(FileRestorer):
    """GPEN, GFPGAN, RestoreFormer, CodeFormer and their kin, through onnxruntime.

    The graph takes (N, 3, S, S) RGB in [-1, 1] in float32, float16 or float64; N and S may be open.
    A second input of one number, in front of the picture or behind it, is CodeFormer's fidelity
    weight. The constructor runs the network on a built-in picture. The results show which output is
    a picture, the order of its axes, whether its range is [-1, 1], [0, 1] or [0, 255], and whether
    the network can restore several faces at once.

    Args:
        path: The .onnx file.
        device: The preferred device. The rule of `admission` decides whether a provider of
            onnxruntime runs the network there.
        is_auto: Whether the user left the choice of the device open, see `on_a_device`.
        fidelity: CodeFormer's fidelity weight in [0, 1].
        template: Template of the landmarks, "gpen" or "ffhq". None (default) derives it from names
            in the graph; without such names it is "gpen" for a file whose name contains "gpen",
            else "ffhq".
        on_notice: Receives a notice of each property of the network that is not the usual one, and
            of a template that is a guess.

    Raises:
        WeightsError: The file is not a face restorer, or cannot run.
        MemoryError: There is too little memory for the network.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: torch.device,
        is_auto: bool = False,
        fidelity: float,
        template: str | None = None,
        on_notice: Callable[[str], None] = lambda message: None,
        hashes: FileHashes | None = None,
    ) -> None:
        super().__init__(path, hashes)
        self._notify = on_notice
        self._session = open_network(path)
        image, others = inputs_of(self._session, path)
        self._faces, side = self._shape(image)
        self.size = side
        self.template = template or self._detect_template()
        self._image, self._dtype = image.name, type_of(image, path)
        self._others = {o.name: self._weight(o, fidelity) for o in others}
        self._fidelity = fidelity
        probe = probe_image(side).numpy().astype(self._dtype)
        self._output, self._channels_last = self._detect_output(probe)
        alone = self._run(probe)
        self._to_unit = self._detect_range(alone)
        self._most = 1 if self._faces == 1 or self._mixes_faces(probe, alone) else self._faces
        if self._faces is not None and self._faces > 1:
            self._notify(self._about_fixed_number())
        self._session = on_a_device(
            self._session,
            path,
            {self._image: self._filled(probe), **self._others},
            (self._output,),
            device=device,
            is_auto=is_auto,
            on_notice=on_notice,
        )
        provider = self._session.get_providers()[0]
        self.name = f"{path.name} (onnxruntime, {provider})"
        self.is_cheap = provider != "CPUExecutionProvider"

    @cached_property
    def cache_key(self) -> str:
        """A text that names all on which restored faces depend besides the windows."""
        run = f"fidelity {self._fidelity}, template {self.template}"
        run += f", onnxruntime {import_onnxruntime().__version__}"
        return f"{self.name}, weights {self.weights_sha256}, {run}"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Restore faces.

        Args:
            windows: (B, 1, 3, S, S) float32 RGB in [0, 1].

        Returns:
            (B, 3, S, S) float32 RGB in [0, 1], on the device of the windows.
        """
        image = (windows[:, 0] * 2 - 1).cpu().numpy().astype(self._dtype)
        most = self._most or len(image)
        parts = [image[first : first + most] for first in range(0, len(image), most)]
        restored = torch.from_numpy(np.concatenate([self._run(part) for part in parts]))
        factor, summand = self._to_unit
        return restored.mul_(factor).add_(summand).clamp_(0, 1).to(windows.device)

    def _run(self, image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Run the network on (B, 3, S, S); the result is float32, in the network's own range."""
        feeds = {self._image: self._filled(image), **self._others}
        (result,) = self._session.run([self._output], feeds)
        if self._channels_last:
            result = result.transpose(0, 3, 1, 2)
        return np.array(result[: len(image)], np.float32, order="C")

    def _filled(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Repeat the last face up to the number of faces that the graph fixes."""
        missing = (self._faces or 0) - len(image)
        return image if missing <= 0 else np.concatenate([image, *[image[-1:]] * missing])

    def _about_fixed_number(self) -> str:
        name = self._path.name
        if self._most == 1:
            return f"{name} takes {self._faces} faces and mixes them, so each face runs by itself"
        return (
            f"{name} computes {self._faces} faces in each run, however few there are; "
            f"--batch-size {self._faces} gives it as many where it can"
        )

    def _detect_template(self) -> str:
        """Return the template that names in the graph or the file's name indicate."""
        names = names_in_graph(self._path)
        for template, pattern in _TEMPLATES.items():
            if any(pattern.search(name) for name in names):
                return template
        is_named_gpen = "gpen" in self._path.name.lower()
        template = "gpen" if is_named_gpen else "ffhq"
        why = "since the file's name contains it" if is_named_gpen else "which most networks use"
        self._notify(
            f"no name in {self._path.name} indicates the template of its landmarks; vidrestore "
            f"uses {template}, {why}; vidrestore weights try compares both, and align.template "
            "sets another"
        )
        return template

    def _detect_output(self, probe: npt.NDArray[Any]) -> tuple[str, bool]:
        """Return the output that is a picture, and whether its channels are the last axis."""
        probe, side = self._filled(probe), probe.shape[-1]
        results = first_run(self._session, self._path, {self._image: probe, **self._others})
        shapes = [tuple(getattr(value, "shape", ())) for value in results]
        for i, (output, shape) in enumerate(zip(self._session.get_outputs(), shapes, strict=True)):
            if shape not in ((len(probe), 3, side, side), (len(probe), side, side, 3)):
                continue
            if i:
                self._notify(
                    f"of the outputs of {self._path.name}, {output.name} is used, the first that "
                    "is a picture"
                )
            if shape[1] != 3:
                self._notify(
                    f"the result of {self._path.name} has its channels as the last axis; "
                    "vidrestore moves them"
                )
            return output.name, shape[1] != 3
        shapes_text = " and ".join(str(shape) for shape in shapes)
        raise WeightsError(
            f"the network in {self._path} maps {probe.shape} to {shapes_text}; a face restorer "
            f"returns ({len(probe)}, 3, {side}, {side})"
        )

    def _detect_range(self, result: npt.NDArray[np.float32]) -> tuple[float, float]:
        """Return factor and summand to [0, 1], from the result for black to white."""
        if not np.isfinite(result).all():
            raise WeightsError(
                f"the network in {self._path} returns no finite result for a built-in picture; get "
                "the file again, or use one in another number format"
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
                f"the network in {self._path} returns values from {low:.3g} to {high:.3g} for a "
                f"picture from black to white; a face restorer returns one of {', '.join(_RANGES)}"
            )
        if name != "[-1, 1]":
            self._notify(f"the result of {self._path.name} is in {name}; vidrestore converts it")
        return _RANGES[name]

    def _mixes_faces(self, probe: npt.NDArray[Any], alone: npt.NDArray[np.float32]) -> bool:
        """Return whether two faces of a batch affect each other, or cannot run at once."""
        try:
            together = self._run(np.concatenate([probe, -probe]))
        except Exception as error:  # onnxruntime has no base class for its errors
            if "allocate memory" in str(error):
                raise MemoryError(str(error)) from error
            together = alone
        span = float(alone.max() - alone.min())
        if (
            len(together) == 2
            and float(np.abs(together[0] - alone[0]).max()) <= _MOST_DIFFERENCE * span
        ):
            return False
        if self._faces is None:
            self._notify(
                f"{self._path.name} takes one face at a time, though its graph leaves their number "
                "open"
            )
        return True

    def _shape(self, image: Any) -> tuple[int | None, int]:
        """Return the number of faces of the input, None where it is open, and their side S."""
        shape: Sequence[Any] = image.shape
        sides = [each if isinstance(each, int) and each > 0 else None for each in shape]
        faces, channels, height, width = sides if len(sides) == 4 else (None, 0, 0, 0)
        side = width or height
        if (height, width) == (None, None) and channels in (3, None):
            self._notify(
                f"the graph of {self._path.name} leaves the size of its faces open; vidrestore "
                f"gives it {_USUAL_PX} x {_USUAL_PX} pixels"
            )
            side = _USUAL_PX
        if (
            side
            and channels in (3, None)
            and {height, width} <= {side, None}
            and side & (side - 1) == 0
        ):
            return faces, side
        raise WeightsError(
            f"the network in {self._path} takes {shape}; a face restorer takes (N, 3, S, S) with S "
            "a power of two"
        )

    def _weight(self, value: Any, fidelity: float) -> Any:
        """Return the value of the second input; WeightsError where it is not a single number."""
        shape = [n if isinstance(n, int) and n > 0 else 1 for n in value.shape]
        if int(np.prod(shape)) != 1:
            raise WeightsError(
                f"the network in {self._path} needs a second input {value.name} of shape "
                f"{value.shape}; vidrestore supports only a single number, CodeFormer's weight"
            )
        return np.full(shape, fidelity, type_of(value, self._path))
