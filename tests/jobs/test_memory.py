"""What `--scale` does not go with, and what it costs in memory."""

from pathlib import Path

import numpy as np
import pytest
from helpers.media import analysis_of, info_of, mild_image, plain_track, write_video

from vidrestore.cli import main
from vidrestore.common.errors import OutputError
from vidrestore.common.profiles import load_settings
from vidrestore.common.system import machine_memory
from vidrestore.jobs.memory import check_memory, memory_for_faces, memory_for_frames
from vidrestore.media.codecs import Encoding
from vidrestore.models.restorers import RestorerInfo
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration.companion import Pairing, enlarged
from vidrestore.restoration.segments import Segment, segment_key
from vidrestore.restoration.upscaling import Scaling, scaled_info

UHD = info_of(3840, 2160, "yuv420p10le")


def test_eight_k_is_refused_with_its_figure_where_memory_does_not_suffice(monkeypatch):
    large = scaled_info(UHD, 2)
    needed = memory_for_frames(UHD, large, Scaling(2), load_settings(), "hevc")
    monkeypatch.setattr("vidrestore.jobs.memory.machine_memory", lambda: 16 * 2**30)
    with pytest.raises(OutputError, match=r"7680 x 4320 pixels takes about 19\.8 GiB .* 16\.0 G"):
        check_memory(needed, large)
    monkeypatch.setattr("vidrestore.jobs.memory.machine_memory", lambda: 64 * 2**30)
    assert "about 19.8 GiB" in check_memory(needed, large)
    deeper = load_settings(options={"job.queue_frames": 64})
    assert memory_for_frames(UHD, large, Scaling(2), deeper, "hevc") > 1.2 * needed


def test_each_thread_of_x264_takes_memory():
    needed = [
        memory_for_frames(
            UHD, UHD, Scaling(1), load_settings(options={"encode.threads": count}), "h264"
        )
        for count in (4, 16)
    ]
    assert needed[1] - needed[0] == pytest.approx(12 * 10 * 3840 * 2160 * 3, rel=0.01)


class Network(RestorerInfo):
    name, size, reach_frames, template = "network", 512, 0, "gpen"


def test_segments_are_made_anew_for_another_size_and_another_network():
    def origin(factor, sha256=None):
        settings = load_settings(options={"scale.factor": factor})
        scaling = Scaling(factor, sha256 and Path("net.onnx"), sha256)
        pairing = Pairing(plate=enlarged(Path("source.mkv"), analysis, None, scaling))
        known = Assignment([(0, Network())])
        return segment_key(Segment(0, 0, 5), analysis, 0, known, "judge", settings,
                         Encoding("ffv1", "ffv1", "yuv420p10le", ".mkv"), pairing)  # fmt: skip

    analysis = analysis_of(UHD, 5, [])
    origins = [origin(2), origin(4), origin(2, "a"), origin(2, "b")]
    assert len(set(origins)) == 4
    assert origin(2) == origins[0]


def test_faces_in_sight_together_count_together():
    tracks = [
        plain_track(5, centre=(500, 500), side=400, first_frame=first, track_id=i, work_px=1024)
        for i, first in enumerate((0, 4, 9))
    ]
    found = []
    for some in (tracks[:1], tracks[:2], tracks[::2], []):
        analysis = analysis_of(UHD, 100, some)
        found.append(memory_for_faces(analysis, load_settings(), Assignment([(0, Network())])))
    one = found[0]
    assert found == [one, 2 * one, one, 0]
    # Crops are no larger than the network gives.
    assert 40 * 24 * 512**2 < one < 80 * 24 * 512**2


def test_the_crops_of_a_person_count_as_large_as_the_own_network_takes_them():
    class Larger(Network):
        size = 1024

    tracks = [
        plain_track(5, centre=(500, 500), side=400, track_id=i, work_px=1024) for i in range(2)
    ]
    analysis = analysis_of(UHD, 100, tracks)

    def needed(*own):
        restorers = Assignment([(0, Network())], dict.fromkeys(own, Larger()))
        return memory_for_faces(analysis, load_settings(), restorers)

    assert needed(1) == needed(0) == needed() / 2 * (1 + 4)
    assert needed(0, 1) == 4 * needed()


def test_no_more_crops_wait_than_there_are_frames():
    def needed(frames):
        track = plain_track(frames, centre=(500, 500), side=400, work_px=1024)
        return memory_for_faces(
            analysis_of(UHD, frames, [track]), load_settings(), Assignment([(0, Network())])
        )

    crop = 24 * 512**2
    assert needed(1) < 25 * crop
    assert needed(6) == needed(1) + 5 * crop
    assert needed(500) == needed(200) > needed(1) + 20 * crop


def test_the_machine_says_how_much_it_has():
    assert (machine_memory() or np.inf) > 2**28


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scale", "2", "--plate", "source.mkv"], "is as large as the plate"),
        (["--scale", "3"], "there is no factor '3', only 1, 2, 4"),
        (["--upscaler", "net.onnx"], "add --scale 2 or 4"),
        (["--scale", "2", "--upscaler", "net.onnx"], "net.onnx does not exist"),
    ],
)
def test_the_command_line_refuses(tmp_path, monkeypatch, capsys, options, said):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "source.mkv", [mild_image(64, 48, "yuv420p", 0)])
    with pytest.raises(SystemExit) as leaving:
        main(["restore", "source.mkv", "out.mkv", "--restorer", "fusion", "--detector", "haar",
              *options])  # fmt: skip
    assert leaving.value.code
    assert said in " ".join(capsys.readouterr().err.split())
