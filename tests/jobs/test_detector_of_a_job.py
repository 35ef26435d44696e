"""The detector that "auto" stands for: named in what a run tells, and kept by the job."""

import json
import shutil
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.events import messages
from helpers.media import AS_PAINTED, OneFace, Painter, mild_image, write_video
from helpers.videos import Command

from vidrestore.analysis.pipeline import analyze_video
from vidrestore.api import restore_video
from vidrestore.common.errors import OutputError
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Detect, Settings
from vidrestore.jobs.work_folder import WorkFolder
from vidrestore.models import factory, weights
from vidrestore.models.detectors import DetectionModels

FRAMES, SIZE = 150, (160, 120)
OPTIONS = AS_PAINTED | {
    "encode.codec": "ffv1", "restore.repeats": False, "job.segment_frames": 48,
    "detect.every": 5, "weights.offline": True,
}  # fmt: skip


class Stopping(Painter):
    """Stops in the last of three segments."""

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        if sum(self.batches) == 120:
            raise OSError("a defect of the restorer")
        return super().__call__(windows)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the detectors that were opened; each sees the same face."""
    names: list[str] = []

    def open_detector(how: Detect, **_: object) -> OneFace:
        names.append(how.detector)
        return OneFace()

    monkeypatch.setattr(factory, "open_detector", open_detector)
    return names


@pytest.fixture
def tape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    images = [mild_image(*SIZE, "yuv420p", i) for i in range(FRAMES)]
    times = [40 * i for i in range(FRAMES)]
    return write_video(tmp_path / "tape.mkv", images, pts=times, time_base=Fraction(1, 1000))


def settings_with(**options: Any) -> Settings:
    return load_settings(options=OPTIONS | {k.replace("__", "."): v for k, v in options.items()})


def install_yunet() -> None:
    (Path("weights") / weights.load_table()["yunet"].file).write_bytes(b"opened by nobody here")


def install_pack() -> None:
    weights.pack_folder(Path("weights"), "buffalo_l").mkdir(parents=True)


@pytest.mark.long
@pytest.mark.parametrize("remember", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_resumed_job_keeps_its_detector_after_a_pack_was_installed(
    tape: Path, opened: list[str], remember: bool
) -> None:
    settings, target = settings_with(detect__remember=remember), tape.with_name("out.mkv")
    install_yunet()
    with pytest.raises(OutputError, match="a defect"):
        restore_video(tape, target, settings, restorer=Stopping())
    assert set(opened) == {"yunet"}
    note = json.loads((tape.parent / "out.mkv.vidrestore/job.json").read_text())
    assert note["models"] == {"detector": "yunet", "has_mesh": False, "recognizes": False}
    install_pack()
    told: list[Any] = []
    painter = Painter()
    summary = restore_video(tape, target, settings, restorer=painter, on_event=told.append)
    assert set(opened) == {"yunet"}
    assert summary.detector == "yunet"
    # The finished segments are used, so only the faces of the last one are restored.
    assert summary.faces > FRAMES - 10
    assert 0 < sum(painter.batches) <= summary.faces - 90
    said = [message for message in messages(told) if "--no-resume" in message]
    assert len(said) == 1
    assert "detector yunet" in said[0]
    assert "insightface" in said[0]


@pytest.mark.long
def test_a_given_analysis_needs_the_mesh_for_expressions_only_and_a_lost_one_is_told(
    tape: Path, opened: list[str], shared: Path
) -> None:
    if not (mesh := shared / "models" / weights.load_table()["face-mesh"].file).exists():
        pytest.skip(f"needs {mesh}")
    install_yunet()
    settings, target = settings_with(people__recognise=False), tape.with_name("out.mkv")
    analysis = analyze_video(tape, settings)
    shutil.copy(mesh, "weights")

    def note() -> dict[str, Any]:
        return dict(json.loads((tape.parent / "out.mkv.vidrestore/job.json").read_text()))

    def run(restorer: Painter, settings: Settings = settings) -> list[str]:
        told: list[Any] = []
        with suppress(OutputError):
            restore_video(
                tape, target, settings, restorer=restorer, analysis=analysis, on_event=told.append
            )
        return [message for message in messages(told) if "mesh" in message]

    assert run(Stopping()) == []
    assert note()["models"] is None
    assert len(note()["judge"]["the face mesh"]) == 64
    (Path("weights") / mesh.name).unlink()
    lost, changed = run(Painter())
    assert lost.startswith("the expressions of restored faces are not compared")
    assert changed.startswith("since this job began, the face mesh is no longer there")
    assert "rendered again" in changed
    target.unlink()
    asked = settings_with(people__recognise=False, guard__expression=1.5, detect__mesh="off")
    assert run(Painter(), asked) == [
        "guard.expression has no effect, because the face mesh is not used"
    ]


def test_the_note_of_a_job_tells_what_changed_in_the_networks_that_compare(tmp_path: Path) -> None:
    work = WorkFolder(tmp_path)
    work.begin("source", resume=True)
    work.note_models("source", DetectionModels("yunet", has_mesh=True, recognizes=False))
    assert work.note_judge("source", {"the face mesh": "a"}) is None
    (tmp_path / "segments/0000.json").write_text("{}")
    for now, change in (("a", None), ("b", "has changed"), ("", "is no longer there"),
                        ("", None), ("a", "was added")):  # fmt: skip
        message = work.note_judge("source", {"the face mesh": now, "the recognizer": "new"})
        assert (message is None) == (change is None)
        assert message is None or f"the face mesh {change}" in message
    models = work.begun_with("source")
    assert models is not None
    assert models.has_mesh
    work.note_models("source", None)
    assert work.begun_with("source") is None
    assert work.note_judge("source", {"the face mesh": "a"}) is None


@pytest.mark.long
def test_a_new_job_takes_what_is_installed_by_then(tape: Path, opened: list[str]) -> None:
    target = tape.with_name("out.mkv")
    install_yunet()
    with pytest.raises(OutputError, match="a defect"):
        restore_video(tape, target, settings_with(), restorer=Stopping())
    install_pack()
    summary = restore_video(tape, target, settings_with(people__recognise=False),
                            restorer=Painter(), resume=False)  # fmt: skip
    assert summary.detector == "insightface"
    assert set(opened) == {"yunet", "insightface"}


@pytest.mark.long
def test_the_detector_is_named_by_summary_analysis_and_report(
    tape: Path, opened: list[str], command: Command
) -> None:
    plain = ("--set", "weights.offline=true", "--restorer", "fusion", "--set", "detect.every=5")
    found = command("analyze", tape.name, "--no-estimate", "-o", "a.npz", *plain)
    assert found.status == 0
    assert "faces found with" in found.out
    assert "haar" in found.out
    assert found.err.count("Haar cascades") == 1
    assert found.err.count("face mesh") == 1
    found = command("analyze", tape.name, "--no-estimate", "--json", *plain)
    assert json.loads(found.out.splitlines()[-1])["analysis"]["detector"] == "haar"
    install_yunet()
    done = command("restore", tape.name, "out.mkv", "--report", "page.html", *plain)
    assert done.status == 0
    (row,) = [line for line in done.out.splitlines() if "faces found with" in line]
    assert "yunet" in row
    assert "yunet" in Path("page.html").read_text()
    done = command("restore", tape.name, "again.mkv", "--json", "--analysis", "a.npz", *plain)
    assert json.loads(done.out.splitlines()[-1])["summary"]["detector"] == "haar"
    assert "Haar cascades" not in done.out + done.err
