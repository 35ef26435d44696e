"""The detector SCRFD from an InsightFace pack."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vidrestore.common.errors import WeightsError
from vidrestore.common.system import usable_cores
from vidrestore.models.detectors import Detection, Detector, detection
from vidrestore.models.onnx_session import first_run, on_a_device, processor_options

if TYPE_CHECKING:
    import torch

# From this score on, something resembles a face.
_HINT_SCORE = 0.2


class InsightFace(Detector):
    """The detector of a pack folder that is known to be complete (see weights.py).

    The picture is fitted into a square of `size_px`. Only that size is used: with two sizes, the
    better score would win in each frame, and the landmarks would jump between the sizes.
    """

    def __init__(
        self,
        pack_folder: Path,
        *,
        size_px: int,
        score: float,
        threads: int | None = None,
        device: torch.device | None = None,
        is_auto: bool = False,
        on_notice: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Open the network.

        Args:
            pack_folder: Folder of the pack.
            size_px: Side of the square into which pictures are fitted, in pixels.
            score: Smallest score of a detection, in [0, 1].
            threads: Threads for one picture; None (default) for one per core that this process may
                use.
            device: The preferred device. The rule of `admission` decides whether a provider of
                onnxruntime runs the network there. None, the default: the processor.
            is_auto: Whether the user left the choice of the device open, see `on_a_device`.
            on_notice: Receives a notice where a device does not run the network. Default: none is
                sent.

        Raises:
            WeightsError: The pack cannot be loaded.
        """
        self.least_score = score
        options = processor_options(threads or usable_cores())
        # The library prints to standard output, which is for the output of vidrestore.
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from insightface.app import FaceAnalysis

            try:
                analysis = FaceAnalysis(
                    name=str(pack_folder.resolve()),
                    allowed_modules=["detection"],
                    providers=["CPUExecutionProvider"],
                    sess_options=options,
                )
                analysis.prepare(ctx_id=-1, det_thresh=score, det_size=(size_px, size_px))
            except Exception as error:
                raise WeightsError(
                    f"the InsightFace pack in {pack_folder} cannot be loaded "
                    f"({error or type(error).__name__}); delete it and fetch it again"
                ) from error
        self._model = analysis.det_model
        if device is not None:
            _move(self._model, device, is_auto=is_auto, on_notice=on_notice)

    def __call__(self, picture: npt.NDArray[np.uint8]) -> list[Detection]:
        """Detect faces.

        Args:
            picture: (H, W, 3) uint8 BGR.

        Returns:
            The faces, in pixels of the picture.
        """
        boxes, landmarks = self._model.detect(picture)
        return [detection(b[:4], p, b[4]) for b, p in zip(boxes, landmarks, strict=True)]

    def with_hint(self, picture: npt.NDArray[np.uint8]) -> tuple[list[Detection], bool]:
        """Detect faces, and tell whether anything else resembles one.

        Args:
            picture: (H, W, 3) uint8 BGR.

        Returns:
            What `__call__` returns, and whether another score reaches 0.2.
        """
        # A box never drops another one with a higher score.
        lowest = min(_HINT_SCORE, self.least_score)
        boxes, landmarks = self._model.detect(picture, det_thresh=lowest)
        found = [detection(b[:4], p, b[4]) for b, p in zip(boxes, landmarks, strict=True)]
        faces = [face for face in found if face.score >= self.least_score]
        return faces, len(found) > len(faces)


def _move(
    model: Any, device: torch.device, *, is_auto: bool, on_notice: Callable[[str], None]
) -> None:
    """Move the network of a detector to a device that the rule of `admission` admits."""
    from vidrestore.models.restorers.gpen import probe_image

    width, height = model.input_size
    picture = probe_image(max(width, height))[..., :height, :width].contiguous().numpy()
    path, feeds = Path(model.model_file), {model.input_name: picture}
    first_run(model.session, path, feeds)
    moved = on_a_device(
        model.session,
        path,
        feeds,
        model.output_names,
        device=device,
        is_auto=is_auto,
        on_notice=on_notice,
    )
    if moved is not model.session:
        # Else the library would open the file again for each size, beside the admitted session.
        model.static_shape_sessions = False
        model.session = moved
