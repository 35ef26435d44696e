"""Workers: the same frames whoever renders them, and whatever happens to who does."""

import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from helpers.cluster_tape import FRAMES, Tinted, assert_same, faces_of, make_tape
from helpers.events import messages
from helpers.media import (
    AS_PAINTED,
)

from vidrestore.analysis.result import Analysis
from vidrestore.api import restore_video
from vidrestore.common.errors import ClusterError, InputError, OutputError, UsageError, WeightsError
from vidrestore.common.events import Progress
from vidrestore.common.profiles import load_settings
from vidrestore.jobs import ray_cluster
from vidrestore.jobs.plan import ways_to_encode
from vidrestore.jobs.render import FrameCounter, RenderJob
from vidrestore.jobs.work_folder import WorkFolder, segment_file
from vidrestore.media.probe import fingerprint, probe
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration.companion import ALONE, PairedVideo, Pairing
from vidrestore.restoration.segments import Segment
from vidrestore.restoration.statistics import RestorationStats

OPTIONS = {
    "encode.codec": "ffv1", "encode.check": False, "job.segment_frames": 48, **AS_PAINTED,
}  # fmt: skip


class Failing(Tinted):
    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        raise WeightsError("the weights of failing are no good; fetch them again")


class Deadly(Tinted):
    """Ends its process, as often as it is told to."""

    def __init__(self, notes: Path, times: int) -> None:
        self._notes, self._times = notes, times

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        for number in range(self._times):
            with suppress(FileExistsError):
                (self._notes / str(number)).touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(windows)


class Unsendable(Tinted):
    def __init__(self) -> None:
        self.lock = threading.Lock()


@pytest.fixture(scope="module")
def tape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tape(tmp_path_factory.mktemp("tape"))


@pytest.fixture(scope="module")
def faces(tape: Path) -> Analysis:
    return faces_of(tape)


@pytest.fixture(scope="module")
def alone(tape: Path, faces: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One segment, in this process."""
    target = tmp_path_factory.mktemp("alone") / "out.mkv"
    settings = load_settings(options=OPTIONS | {"job.segment_frames": 1000})
    restore_video(tape, target, settings, restorer=Tinted(), analysis=faces)
    return target


@pytest.fixture(scope="module")
def crew() -> Iterator[ray_cluster.WorkerPool]:
    pytest.importorskip("ray")
    with ray_cluster.local(3) as three:
        yield three


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 3])
def test_workers_give_the_frames_of_one_process(tape, faces, alone, crew, tmp_path, count):
    target, events = tmp_path / "out.mkv", []
    summary = restore_video(
        tape, target, load_settings(options=OPTIONS), restorer=Tinted(), analysis=faces,
        workers=replace(crew, count=count), on_event=events.append,
    )  # fmt: skip
    assert_same(target, alone)
    assert summary.faces == FRAMES
    assert list(tmp_path.iterdir()) == [target]
    counts = [event.frame for event in events if isinstance(event, Progress)]
    assert counts == sorted(set(counts))
    assert counts[-1] == FRAMES


@pytest.mark.long
def test_an_error_in_a_segment_is_the_callers(tape, faces, crew, tmp_path):
    with pytest.raises(WeightsError, match=r"^the weights of failing are no good; fetch them ag"):
        restore_video(tape, tmp_path / "out.mkv", load_settings(options=OPTIONS),
                      restorer=Failing(), analysis=faces, workers=crew)  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_what_a_lost_worker_did_is_done_again(tape, faces, alone, crew, tmp_path):
    notes, target, events = tmp_path / "notes", tmp_path / "out.mkv", []
    notes.mkdir()
    restore_video(
        tape, target, load_settings(options=OPTIONS), restorer=Deadly(notes, 2), analysis=faces,
        workers=crew, on_event=events.append,
    )  # fmt: skip
    assert_same(target, alone)
    assert len(list(notes.iterdir())) == 2
    said = messages(events)
    assert sum("a worker was lost" in message for message in said) in (1, 2)


@pytest.mark.long
def test_a_segment_that_is_lost_again_and_again_is_given_up(tape, faces, crew, tmp_path):
    notes, target = tmp_path / "notes", tmp_path / "out.mkv"
    notes.mkdir()
    with pytest.raises(ClusterError, match=r"segment 0 .* was lost 3 times"):
        restore_video(
            tape, target, load_settings(options=OPTIONS), restorer=Deadly(notes, 100),
            analysis=faces, workers=replace(crew, count=1),
        )  # fmt: skip
    assert len(list(notes.iterdir())) == 3
    assert list(tmp_path.iterdir()) == [notes]


@pytest.mark.long
def test_what_cannot_be_sent_is_refused_before_any_work(tape, crew, tmp_path):
    for options, restorer, why in (
        ({}, Unsendable(), "cannot be pickled"),
        ({"restore.device": "cuda:1"}, Tinted(), "use --device cuda, not cuda:1"),
        ({"restore.device": "cuda"}, Tinted(), "have no GPU"),
    ):
        with pytest.raises(UsageError, match=why):
            restore_video(tape, tmp_path / "out.mkv", load_settings(options=OPTIONS | options),
                          restorer=restorer, workers=replace(crew, gpus=0))  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_without_ray_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    for option, given in (("--workers", (2, None)), ("--cluster", (None, "auto"))):
        with pytest.raises(UsageError) as raised, ray_cluster.open_workers(*given):
            pass
        expected = f"{option} needs the extra: pip install 'vidrestore[cluster]'"
        assert str(raised.value) == expected
    with ray_cluster.open_workers(None, None) as nobody:
        assert nobody is None


def test_an_address_at_which_nothing_answers():
    pytest.importorskip("ray")
    with pytest.raises(UsageError, match="HOST:PORT or auto"), ray_cluster.connected("ray://a:1"):
        pass
    with (
        pytest.raises(ClusterError, match=r"no Ray cluster answers at 127\.0\.0\.1:9"),
        ray_cluster.connected("127.0.0.1:9"),
    ):
        pass


@pytest.mark.parametrize(
    ("nodes", "count", "expected"),
    [
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 1.0}], None, (3, 0, 1.0)),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0}], 4, (4, 0, 0.5)),
        ([{"CPU": 4.0}, {"CPU": 7.0}], None, (5, 2, 0)),
        ([{"CPU": 1.0}, {"CPU": 2.0}], None, (3, 1, 0)),
    ],
)
def test_what_a_worker_asks_for(monkeypatch, nodes, count, expected):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    crew = ray_cluster._pool(nodes, count)
    assert (crew.count, crew.cpus, crew.gpus) == expected


def order_of(source: Path, folder: Path, faces: Analysis, /, **changes: object):
    from vidrestore.jobs import workers as crew

    settings = load_settings(options=OPTIONS | {"detect.mesh": "off"})
    (encoding, *_) = ways_to_encode(probe(source).info, folder / "out.mkv", settings)
    work = RenderJob(
        source=source, fingerprint=fingerprint(source), folder=folder, analysis=faces,
        restorers=Assignment([(0, None)]), own_restorer=Tinted(), networks=[(0, "tinted")],
        judge="features", parser=None,
        settings=settings, encoding=encoding, header=None, span=None, pairing=ALONE, layering=None,
    )  # fmt: skip
    packed = pickle.dumps(replace(work, **changes))
    return crew._WorkerSetup(version("vidrestore"), torch.get_num_threads(), (), packed)


def test_a_node_that_has_not_what_it_needs_says_so(tape, faces, tmp_path):
    from vidrestore.jobs.workers import _Worker

    (tmp_path / "segments").mkdir()
    here = socket.gethostname()
    assert _Worker().open(order_of(tape, tmp_path, faces)) == []
    for changes, kind, why in (
        ({"source": Path("/no/tape.mkv")}, InputError, f"/no/tape.mkv does not exist on {here}"),
        ({"fingerprint": "other"}, InputError, f"tape.mkv on {here} is another file"),
        (
            {"pairing": Pairing(PairedVideo(Path("/no/b.mkv"), faces, None))},
            InputError,
            r"/no/b\.mkv",
        ),
        ({"judge": "w600k.onnx"}, ClusterError, f"{here} would use another recognizer or face"),
        ({"networks": [(0, "gpen-512")]}, ClusterError, "another .* not gpen-512 for track 0"),
        ({"folder": Path("/no/folder")}, OutputError, f"/no/folder does not exist on {here}"),
    ):
        with pytest.raises(kind, match=why):
            _Worker().open(order_of(tape, tmp_path, faces, **changes))
    with pytest.raises(ClusterError, match=r"run was started with 0\.0"):
        _Worker().open(order_of(tape, tmp_path, faces)._replace(version="0.0"))


def test_names_of_files_hold_on_other_machines(tape, faces, tmp_path, monkeypatch):
    from vidrestore.jobs import workers as crew

    monkeypatch.chdir(tmp_path)
    settings = load_settings(options={
        "restore.restorer": "faces.onnx", "weights.folder": "kept", "weights.also": ["other"],
    })  # fmt: skip
    work = pickle.loads(order_of(tape, tmp_path, faces).work)
    names = Assignment([(0, None), (50, "a.pth")], {3: "b.pth", 4: "gpen-512"})
    sent = crew._sendable(replace(work, settings=settings, restorers=names))
    assert sent.settings.restore.restorer == str(tmp_path / "faces.onnx")
    assert sent.settings.weights.folder == tmp_path / "kept"
    assert sent.settings.weights.also == (tmp_path / "other",)
    a, b = (str(tmp_path / name) for name in ("a.pth", "b.pth"))
    assert sent.restorers == Assignment([(0, None), (50, a)], {3: b, 4: "gpen-512"})


def test_the_count_of_frames_never_goes_back():
    told = []
    progress = FrameCounter(100, lambda event: told.append(event.frame))
    one, other = Segment(0, 0, 50), Segment(1, 50, 100)
    for segment, written in ((one, 10), (other, 5), (one, 0), (one, 9), (one, 50), (other, 50)):
        progress.report(segment, written)
    assert told == [10, 15, 55, 100]


def test_two_tries_at_one_segment_do_not_meet(tmp_path):
    folder = WorkFolder(tmp_path)
    folder.begin("source", resume=True)
    first, second = (folder.place("0000", ".mkv") for _ in range(2))
    first.write_bytes(b"half")
    second.write_bytes(b"whole")
    done = folder.finish("0000", "origin", segment_file(second, RestorationStats().as_dict()))
    assert folder.find("0000", ".mkv", "origin") == done
    assert done.path.read_bytes() == b"whole"
    folder.begin("source", resume=True)
    assert sorted(path.name for path in done.path.parent.iterdir()) == ["0000.json", "0000.mkv"]
