"""Small films of one face or two, with the analyses that a detector and a recognizer would give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from helpers.media import analysis_of_file, plain_track, write_video
from safetensors.torch import save_file
from skimage import data

from vidrestore.analysis.cache import Known
from vidrestore.analysis.tracks import Track
from vidrestore.common.settings import Settings, Train
from vidrestore.imaging.frame import FloatArray
from vidrestore.models.detectors import Detection
from vidrestore.models.gpen.network import GPEN
from vidrestore.personal import person, run
from vidrestore.personal.forecast import Forecast
from vidrestore.personal.networks import base_name
from vidrestore.personal.request import PersonalizeRequest

SIDE = 32
ANNA, BERT = np.eye(8, dtype=np.float32)[:2]
FRAME_PX, FACE_PX = 224, 184.0
_CENTER = (FRAME_PX / 2, FRAME_PX / 2)


@cache
def _portrait() -> npt.NDArray[np.uint8]:
    """Reading the file for each frame takes longer than the training."""
    return data.astronaut()


def picture(i: int, *, is_bert: bool = False, blur_px: float = 0.0) -> npt.NDArray[np.uint8]:
    """(224, 224, 3) R'G'B' of a portrait that moves; Bert is the same in other colors."""
    x, y = 114 + 4 * (i % 5), 4 * (i % 3)
    shown = _portrait()[y : y + FRAME_PX, x : x + FRAME_PX]
    if is_bert:
        shown = shown[..., ::-1]
    if blur_px:
        shown = cv2.GaussianBlur(shown, (0, 0), blur_px)
    return np.ascontiguousarray(shown)


def film(path: Path, pictures: Sequence[npt.NDArray[np.uint8]]) -> Path:
    """Write five pictures a second."""
    images = [
        av.VideoFrame.from_ndarray(each, "rgb24").reformat(format="yuv444p") for each in pictures
    ]
    return write_video(path, images, pts=[2560 * i for i in range(len(images))])


def track_of(count: int, *, first_frame: int = 0, number: int = 0, **changes: Any) -> Track:
    """A face in the middle of the frame."""
    own = plain_track(
        count, centre=_CENTER, side=FACE_PX, first_frame=first_frame, track_id=number, work_px=192
    )
    return replace(own, embedding=ANNA, **changes)


class ByColor:
    """A recognizer: whoever has more red than blue is Anna."""

    dimension = 8

    def __call__(
        self, picture: npt.NDArray[np.uint8], faces: Sequence[Detection]
    ) -> list[FloatArray | None]:
        blue, _, red = picture.reshape(-1, 3).mean(axis=0)
        return [ANNA if red > blue else BERT for _ in faces]


def _forecast(settings: Settings, on_event: Any = None) -> Forecast:
    """As of a large machine; the true one takes a second."""
    train = settings.train
    return Forecast(
        base=base_name(train.base), size_px=SIDE, device="cpu", batch=train.batch,
        steps=train.steps, has_discriminator=False, has_identity=False, memory_bytes=10**9,
        room_bytes=10**10, crop_bytes=10**6, state_bytes=10**6, seconds=1.0,
    )  # fmt: skip


class Studio:
    """A folder with films, whose analyses are known, and a small network."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.recognizer: ByColor | None = ByColor()
        self.analyzed: list[Path] = []
        self.kept_wrongly: Path | None = None
        self._tracks: dict[Path, tuple[Track, ...]] = {}
        torch.manual_seed(0)
        network = GPEN(SIDE, style_dim=16, n_mlp=2, narrow=0.03125)
        self.base = folder / "base.safetensors"
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, self.base)
        patch.setattr(person, "find_analysis", self._find_analysis)
        patch.setattr(run, "forecast", _forecast)
        patch.setattr(run, "film_conditions", lambda *_: [])
        patch.setattr(run, "with_models_here", lambda settings, on_event: settings)
        patch.setattr(run, "chosen_recognizer", lambda *_: self.recognizer)

    def film(
        self,
        name: str,
        count: int = 30,
        *,
        tracks: Sequence[Track] | None = None,
        shown: Callable[[int], npt.NDArray[np.uint8]] = picture,
    ) -> Path:
        """Write a film of so many frames; by default Anna is in all of them."""
        path = film(self.folder / name, [shown(i) for i in range(count)])
        self._tracks[path] = (track_of(count),) if tracks is None else tuple(tracks)
        return path

    def photograph(self, path: Path, *, is_bert: bool = False, shows: int = 0) -> Path:
        """Write a picture."""
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), picture(shows, is_bert=is_bert)[..., ::-1])
        own = track_of(1)
        self._tracks[path] = (replace(own, embedding=BERT if is_bert else ANNA),)
        return path

    def request(self, *sources: Path, **changes: Any) -> PersonalizeRequest:
        """A short training."""
        fields = {"sources": sources, "target": self.folder / "anna.safetensors", "person": 1,
                  "settings": self.settings()}  # fmt: skip
        return PersonalizeRequest(**(fields | changes))

    def settings(self, **changes: Any) -> Settings:
        values = {"base": str(self.base), "steps": 9, "check_every": 3, "batch": 2, "crops": 20,
                  "decoder_rate": 0.01, "encoder_rate": 0.01, "half_life_images": 2,
                  "save_memory": False}  # fmt: skip
        return Settings(train=Train.model_validate(values | changes))

    def _find_analysis(
        self, probed: Any, settings: Settings, *, may_be_kept: bool = True, **_: Any
    ) -> Known:
        path = probed.path
        self.analyzed.append(path)
        known = replace(
            analysis_of_file(path, self._tracks[path]), fingerprint=probed.fingerprint,
            people_are_joined=True,
        )  # fmt: skip
        if path == self.kept_wrongly and may_be_kept:
            known = replace(known, crc32=known.crc32 + np.uint32(1))
            return Known(known, is_kept=True, settings=settings)
        return Known(known, is_kept=False, settings=settings)
