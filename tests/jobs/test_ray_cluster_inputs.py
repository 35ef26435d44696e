"""What a worker is sent: all that a segment is made from, and hashes that need no worker."""

import pickle
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from helpers import gpen_formula, intra_sources
from helpers.cluster_tape import Tinted, frames_of
from helpers.events import is_at, messages
from helpers.media import (
    AS_PAINTED,
    analysis_of_file,
    mild_image,
    packets,
    plain_track,
    write_video,
)
from helpers.swap_tape import SIDE_PX, SIZE, image_of, pictures

from vidrestore.api import restore_video
from vidrestore.common.errors import OutputError
from vidrestore.common.profiles import load_settings
from vidrestore.jobs import workers as worker_module
from vidrestore.jobs.render import FrameCounter, RenderJob
from vidrestore.jobs.work_folder import SegmentFile
from vidrestore.media.decode import TimeRange
from vidrestore.restoration.segments import Segment

FRAMES = 96
OPTIONS = {
    "encode.codec": "ffv1", "encode.check": False, "job.segment_frames": 48, **AS_PAINTED,
}  # fmt: skip


@dataclass
class Desk:
    """A worker in this process, which is sent its work as one elsewhere is; each segment is tried
    twice, as where the first try was given up for lost."""

    segments: int = 0

    def check(self, settings, own_restorer) -> None:
        pass

    def render(
        self, work: RenderJob, segments: Sequence[Segment], progress: FrameCounter
    ) -> Generator[tuple[Segment, SegmentFile]]:
        worker = worker_module._Worker()
        setup = worker_module._WorkerSetup(
            worker_module.version("vidrestore"), torch.get_num_threads(), (),
            pickle.dumps(worker_module._sendable(work)),
        )  # fmt: skip
        worker.open(setup)
        for segment in segments:
            lost, _ = worker.render(segment)
            part, _ = worker.render(segment)
            assert lost.path != part.path
            progress.report(segment, segment.frame_count)
            self.segments += 1
            yield segment, part


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> tuple[Path, Path, Path]:
    """The source, the one before a swap, and a plate."""
    folder = tmp_path_factory.mktemp("videos")
    both = [pictures(i // 10) for i in range(FRAMES)]
    before, source = (
        write_video(folder / f"{name}.mkv", [image_of(pair[k]) for pair in both])
        for k, name in enumerate(("before", "source"))
    )
    large = tuple(2 * side for side in SIZE)
    plate = [mild_image(*large, "yuv420p", i // 10) for i in range(FRAMES)]
    return source, before, write_video(folder / "plate.mkv", plate)


@pytest.mark.long
@pytest.mark.parametrize("form", ["tiff", pytest.param("prores", marks=pytest.mark.long)])
def test_all_that_a_segment_is_made_from_is_sent(videos, tmp_path, monkeypatch, form):
    source, before, plate = videos
    monkeypatch.chdir(source.parent)
    span = TimeRange(Fraction(0), Fraction(100))
    analysis = analysis_of_file(
        source, [plain_track(8, centre=(80, 80), side=SIDE_PX, first_frame=44)]
    )
    layers = []
    for name, workers in (("alone", None), ("sent", Desk())):
        restore_video(
            source.name, tmp_path / f"{name}.mkv",
            load_settings(options=OPTIONS | {"layer.format": form}), restorer=Tinted(),
            analysis=analysis, span=span, before_swap=Path(before.name), plate=Path(plate.name),
            layer=tmp_path / name, workers=workers,
        )  # fmt: skip
        files = sorted((tmp_path / name).iterdir())
        layers.append([(each.name, each.read_bytes()) for each in files])
    assert workers.segments == 2
    assert pictures_of(tmp_path / "sent.mkv")[50] != pictures_of(plate)[50]
    assert frames_of(tmp_path / "sent.mkv") == frames_of(tmp_path / "alone.mkv")
    if form == "tiff":
        assert layers[0] == layers[1]
    else:
        for name in ("source.fill.mov", "source.matte.mov"):
            assert frames_of(tmp_path / "sent" / name) == frames_of(tmp_path / "alone" / name)
    assert {path.name for path in tmp_path.iterdir()} == {"alone", "sent", "alone.mkv", "sent.mkv"}


@pytest.mark.long
def test_a_worker_copies_the_packets_of_untouched_frames(tmp_path):
    source = intra_sources.write(tmp_path, intra_sources.COPIED["prores standard"])
    analysis = analysis_of_file(source, [plain_track(2, centre=(80, 60), side=50, first_frame=3)])
    found, desk = [], Desk()
    for name, workers in (("alone", None), ("sent", desk)):
        target = tmp_path / f"{name}.mov"
        settings = load_settings(options=OPTIONS | {"encode.codec": "auto"})
        summary = restore_video(
            source, target, settings, restorer=Tinted(), analysis=analysis, workers=workers
        )
        found.append((summary.copied_frames, packets(target, 0)))
    assert desk.segments == 1
    assert found[0] == found[1]
    assert found[0][0] == intra_sources.FRAMES - 2


def pictures_of(path: Path) -> list[list[bytes]]:
    return [planes for _, planes in frames_of(path)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.save(gpen_formula.build("gpen-256").state_dict(), folder / "GPEN-BFR-256.pth")
    return folder


@pytest.mark.long
@pytest.mark.parametrize("restorer", ["gpen-auto", "fusion"])
@pytest.mark.parametrize("begun", ["alone", "sent"])
def test_what_was_begun_without_workers_goes_on_with_them_and_back(
    videos, weights, tmp_path, restorer, begun
):
    source, _, _ = videos
    tracks = [
        plain_track(1, centre=(48, 32), side=32, first_frame=first, track_id=first)
        for first in (5, 90)
    ]
    analysis = analysis_of_file(source, tracks)
    analysis = replace(analysis, template="gpen")
    settings = load_settings(options=OPTIONS | {
        "restore.restorer": restorer, "restore.device": "cpu", "weights.folder": weights,
        "weights.offline": True, "restore.engine": "torch", "align.template": "gpen",
    })  # fmt: skip
    target, desk, said = tmp_path / "out.mkv", Desk(), []

    def break_off(event) -> None:
        if is_at(event, "restore", 49):
            raise OutputError("enough")

    ways = (None, desk) if begun == "alone" else (desk, None)
    with pytest.raises(OutputError, match="enough"):
        restore_video(source, target, settings, analysis=analysis, workers=ways[0],
                      on_event=break_off)  # fmt: skip
    before = desk.segments
    summary = restore_video(source, target, settings, analysis=analysis, workers=ways[1],
                            on_event=said.append)  # fmt: skip
    assert "1 of 2 segments is done already" in messages(said)
    assert desk.segments == (1 if begun == "alone" else before)
    assert summary.faces == 2
    assert summary.restorers == ("gpen-256" if restorer == "gpen-auto" else "fusion",)
