import av
import pytest

from vidrestore.common.events import Progress
from vidrestore.media.probe import probe
from vidrestore.review.demo import run_demo


@pytest.mark.long
def test_the_demo_gains_a_decibel_and_leaves_its_files(tmp_path):
    events = []
    demo = run_demo(tmp_path / "demo", events.append)
    assert demo.gain_db >= 1.0
    assert demo.evaluation.frame_counts_equal
    assert demo.evaluation.largest_time_error_seconds == 0
    assert demo.evaluation.frames_with_faces == demo.summary.frames == 100
    assert demo.evaluation.output.face_ssim > demo.evaluation.source.face_ssim
    names = sorted(path.name for path in (tmp_path / "demo").iterdir())
    assert names == ["compare.png", "restored.mp4", "source.mp4", "truth.mp4"]
    assert probe(tmp_path / "demo" / "source.mp4").info.width == 640
    with av.open(str(tmp_path / "demo" / "restored.mp4")) as container:
        assert len(container.streams.audio) == 1
    stages = {event.stage for event in events if isinstance(event, Progress)}
    assert stages == {"analyze", "restore", "check"}
