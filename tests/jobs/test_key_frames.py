"""Key frames in a job: decided once, the same frames in any segments, and counted."""

from pathlib import Path

import pytest
import torch
from helpers.media import AS_PAINTED
from helpers.shots_tape import FRAMES, Boiling, faces_of, frames_of, make_tape

from vidrestore.api import restore_video
from vidrestore.common.errors import OutputError
from vidrestore.common.profiles import load_settings
from vidrestore.jobs import estimate as estimates
from vidrestore.jobs import key_frames
from vidrestore.jobs.key_frames import plan_key_frames
from vidrestore.models.restorers.assignment import Assignment

OPTIONS = AS_PAINTED | {
    "encode.preset": "ultrafast", "job.segment_frames": 48, "encode.check": False,
    "encode.codec": "ffv1",
}  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tape(tmp_path_factory) -> Path:
    return make_tape(tmp_path_factory.mktemp("tape"))


def restored(tape: Path, target: Path, restorer=None, *, key_frames: str = "on", **options):
    settings = load_settings(options=OPTIONS | {"restore.key_frames": key_frames} | options)
    return restore_video(
        tape, target, settings, restorer=restorer or Boiling(), analysis=faces_of(tape)
    )


@pytest.fixture(scope="module")
def whole(tape, tmp_path_factory):
    """The frames, the summary and the number of network runs of a run in one segment."""
    target, network = tmp_path_factory.mktemp("whole") / "out.mkv", Boiling()
    summary = restored(tape, target, network, **{"job.segment_frames": 1000})
    return frames_of(target), summary, network.faces


@pytest.mark.long
def test_segments_do_not_change_key_frames_and_what_is_made_of_them(tape, whole, tmp_path):
    frames, summary, runs = whole
    assert summary.between > FRAMES / 2
    assert runs == FRAMES - summary.between
    in_parts = restored(tape, tmp_path / "out.mkv")
    assert frames_of(tmp_path / "out.mkv") == frames
    assert (in_parts.between, in_parts.faces) == (summary.between, summary.faces)
    assert summary.as_dict()["between"] == summary.between


@pytest.mark.long
def test_a_resumed_run_takes_the_decision_of_the_first(tape, whole, tmp_path, monkeypatch):
    asked = []

    def slow(network, side, device, settings) -> bool:
        asked.append(network.name)
        return True

    monkeypatch.setattr(key_frames, "saves_time", slow)
    with pytest.raises(OutputError, match="a defect"):
        restored(tape, tmp_path / "out.mkv", Boiling(breaks_at=40), key_frames="auto")
    assert asked == ["boiling"]
    again = Boiling()
    restored(tape, tmp_path / "out.mkv", again, key_frames="auto")
    assert asked == ["boiling"]
    assert frames_of(tmp_path / "out.mkv") == whole[0]
    assert again.faces < whole[2]


class Slow(Boiling):
    """A network that takes longer than all crops between key frames."""

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        for _ in range(40):
            torch.fft.fft2(torch.rand(16, 256, 256))
        return super().__call__(windows)


@pytest.mark.long
def test_the_times_of_this_machine_tell_a_slow_network_from_a_quick_one():
    how = load_settings(options=OPTIONS).restore
    slow, quick = (key_frames.saves_time(each, 32, CPU, how) for each in (Slow(), Boiling()))
    assert (slow, quick) == (True, False)


@pytest.fixture
def times(monkeypatch) -> None:
    """Other times than those of this machine: for a face, a slow network takes a little more than
    three times as long as everything else of key frames, and others take a little less."""
    monkeypatch.setattr(key_frames, "_seconds_without", lambda side: 1.0)
    monkeypatch.setattr(key_frames, "_seconds_of", seconds_of)


def seconds_of(network, *_) -> float:
    return 3.01 if isinstance(network, Slow) else 2.99


@pytest.mark.long
def test_a_quick_network_restores_every_frame_which_is_said(tape, tmp_path):
    plain = restored(tape, tmp_path / "off.mkv", key_frames="off")
    quick = restored(tape, tmp_path / "auto.mkv", key_frames="auto")
    assert frames_of(tmp_path / "auto.mkv") == frames_of(tmp_path / "off.mkv")
    assert quick.between == plain.between == 0
    assert any("too quick" in warning for warning in quick.warnings)
    assert not any("key frames" in warning for warning in plain.warnings)


def test_a_run_without_key_frames_keeps_the_decision_for_later_runs(tape):
    assert planned(tape, Boiling(), "off", {"boiling, 32 px, cpu": True}).saves_time == {
        "boiling, 32 px, cpu": True
    }


class Greedy(Boiling):
    """A network that does not fit into memory."""

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("too large")


@pytest.mark.long
def test_a_network_that_does_not_fit_into_memory_leaves_the_faces_and_ends_nothing(tape, tmp_path):
    summary = restored(tape, tmp_path / "out.mkv", Greedy(), key_frames="auto")
    assert summary.faces == 0
    assert len(frames_of(tmp_path / "out.mkv")) == FRAMES


class Seeing(Boiling):
    """A restorer that looks at several frames."""

    name, cache_key, reach_frames = "seeing", "seeing", 1

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        return super().__call__(windows[:, 1:2])


def planned(tape: Path, restorer, how: str, noted=None):
    settings = load_settings(options={"restore.key_frames": how, "restore.device": "cpu"})
    return plan_key_frames(faces_of(tape), Assignment([(0, restorer)]), settings, noted or {})


def test_a_restorer_that_sees_several_frames_restores_all_of_them(tape):
    plan = planned(tape, Seeing(), "on")
    assert not plan.tracks
    assert [note for note in plan.notes if "several frames" in note] == list(plan.notes)
    assert len(plan.notes) == 1


@pytest.mark.usefixtures("times")
def test_only_a_slow_network_has_key_frames_by_itself(tape):
    slow, quick = planned(tape, Slow(), "auto"), planned(tape, Boiling(), "auto")
    tracks = {track.track_id for track in faces_of(tape).tracks}
    assert slow.tracks == tracks
    assert not quick.tracks
    assert planned(tape, Boiling(), "auto", slow.saves_time).tracks == tracks
    assert planned(tape, Boiling(), "off").tracks == frozenset()


@pytest.mark.long
@pytest.mark.parametrize(
    ("restorer", "how", "is_offered"),
    [(Slow(), "off", True), (Boiling(), "off", False), (Slow(), "auto", False)],
    ids=["slow", "quick", "slow, asked for"],
)
@pytest.mark.usefixtures("times")
def test_the_estimate_offers_key_frames_where_they_save_time(
    tape, monkeypatch, restorer, how, is_offered
):
    count_network = estimates._seconds_per_frame
    monkeypatch.setattr(
        estimates, "_seconds_per_frame", lambda *given: (1.0, count_network(*given)[1])
    )
    monkeypatch.setattr(estimates, "_seconds_of", seconds_of)
    monkeypatch.setattr(estimates, "chosen_restorer", lambda settings, on_event: restorer)
    options = OPTIONS | {"restore.restorer": "fusion", "restore.key_frames": how}
    found = estimates.estimate(tape, faces_of(tape), load_settings(options=options))
    assert not isinstance(found, str), found
    if is_offered:
        assert found.seconds_with_key_frames < 0.9 * found.seconds
    else:
        assert found.seconds_with_key_frames is None
    assert (found.network_share < 0.6) == (how == "auto")
