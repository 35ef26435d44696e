"""Parts that break now and then: the rest is done, and what is missing is counted and said."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from helpers.events import messages
from helpers.media import AS_PAINTED, OneFace, Painter, analysis_of_file, plain_track
from helpers.videos import MakeVideo

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.api import restore_video
from vidrestore.common.errors import OutputError
from vidrestore.common.profiles import load_settings
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.encode import VideoWriter
from vidrestore.models import factory
from vidrestore.models.detectors import Detection

FRAMES, SIZE = 30, (160, 120)
OPTIONS = {"detect.threads": 2, "encode.codec": "ffv1", "guard.features": 0, **AS_PAINTED}


class Breaking(OneFace):
    """A detector that breaks at some pictures, which it counts."""

    def __init__(self, broken: set[int]) -> None:
        super().__init__()
        self._broken = broken

    def __call__(self, picture: Any) -> list[Detection]:
        if self.pictures in self._broken:
            self.pictures += 1
            raise RuntimeError("a defect of the detector")
        return super().__call__(picture)


@pytest.fixture
def source(make_video: MakeVideo) -> Path:
    return make_video(frames=FRAMES, size=SIZE, audio=True)


def frame_count(path: Path) -> int:
    return sum(1 for _ in decode(path, DecodeErrors()))


@pytest.mark.long
def test_a_detector_that_breaks_at_a_frame_costs_nothing_else(source, tmp_path, monkeypatch):
    """Each of two looks at every other frame; from the frame before the face is followed."""
    settings, detectors = load_settings(options=OPTIONS), []

    def opened(*_: Any, **__: Any) -> Breaking:
        detectors.append(Breaking({4}))
        return detectors[-1]

    monkeypatch.setattr(factory, "open_detector", opened)
    told: list[dict[str, Any]] = []
    target = tmp_path / "out.mkv"
    for runs in (1, 2):
        summary = restore_video(
            source, target, settings, restorer=Painter(), overwrite=True, on_event=told.append
        )
        # Nothing is remembered of an analysis that may be better the next time.
        assert len(detectors) == 3 * runs
    assert (summary.frames, frame_count(target)) == (FRAMES, FRAMES)
    assert summary.tracks == 1
    assert summary.faces >= FRAMES - 2
    (said,) = [line for line in summary.warnings if "detector" in line]
    assert said.startswith("the detector failed in 2 frames")
    notices = messages(told)
    assert sum("RuntimeError: a defect of the detector" in line for line in notices) == 2


def test_a_detector_that_breaks_again_and_again_ends_the_run(source, monkeypatch):
    monkeypatch.setattr(factory, "open_detector", lambda *_, **__: Breaking(set(range(3, 99))))
    with pytest.raises(RuntimeError, match="a defect of the detector"):
        analyze_video(source, load_settings(options=OPTIONS))


def test_a_restorer_without_memory_leaves_faces_and_counts_them(source, tmp_path):
    class Large(Painter):
        def __call__(self, windows: torch.Tensor) -> torch.Tensor:
            if len(self.batches) in (3, 4, 20):
                self.batches.append(0)
                raise MemoryError("no room")
            return super().__call__(windows)

    target = tmp_path / "out.mkv"
    analysis = analysis_of_file(source, [plain_track(FRAMES, centre=(80, 60), side=60)])
    summary = restore_video(source, target, load_settings(options=OPTIONS), restorer=Large(),
                            analysis=analysis)  # fmt: skip
    assert (summary.frames, frame_count(target)) == (FRAMES, FRAMES)
    assert summary.faces == FRAMES - 3
    assert summary.skipped == {"did not fit into memory": 3}


@pytest.mark.long
@pytest.mark.parametrize("error", [
    av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory"), MemoryError(),
])  # fmt: skip
def test_an_encoder_without_memory_says_so_and_what_is_done_stays(
    make_video, tmp_path, monkeypatch, error
):
    shots = ((0, 30), (30, 60), (60, 90))
    source, target = make_video(frames=90), tmp_path / "out.mkv"
    tracks = [plain_track(30, centre=(48, 32), side=32, first_frame=first, track_id=i)
              for i, (first, _) in enumerate(shots)]  # fmt: skip
    analysis = replace(analysis_of_file(source, tracks), shots=shots)
    settings = load_settings(options=OPTIONS | {"job.segment_frames": 48})
    mux, frames = VideoWriter._mux, []

    class Starved:
        def encode(self, image: Any) -> Any:
            raise error

    def starving(self: VideoWriter, image: Any) -> None:
        frames.append(image)
        if len(frames) == 50:
            context, self._context = self._context, Starved()
            try:
                mux(self, image)
            finally:
                self._context = context
        mux(self, image)

    monkeypatch.setattr(VideoWriter, "_mux", starving)
    with pytest.raises(
        OutputError, match=r"encoding frame \d+ into .* not enough memory"
    ) as raised:
        restore_video(source, target, settings, restorer=Painter(), analysis=analysis)
    assert raised.value.exit_status == 1
    monkeypatch.undo()
    again = Painter()
    summary = restore_video(source, target, settings, restorer=again, analysis=analysis)
    assert (summary.frames, frame_count(target)) == (90, 90)
    # Those of the segment under way were kept, too.
    assert 30 <= sum(again.batches) <= 60
    assert sorted(tmp_path.iterdir()) == [target, source]
