"""From films and photographs to the file of a network, and what is refused on the way."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.person_film import ANNA, BERT, SIDE, ByColor, Studio, picture, track_of
from helpers.small_disk import Disk
from helpers.videos import Command
from safetensors.torch import load_file

from vidrestore import api
from vidrestore.analysis.cache import OTHER_FRAMES
from vidrestore.common import files
from vidrestore.common.errors import (
    ConfigError,
    InputError,
    OutputError,
    UsageError,
    VidrestoreError,
    WeightsError,
)
from vidrestore.common.events import Event, Notice, TrainingProgress
from vidrestore.common.files import held
from vidrestore.models import devices
from vidrestore.models.gpen.checkpoint import load_gpen
from vidrestore.personal import forecast as forecast_module
from vidrestore.personal import networks, objectives, saved_state
from vidrestore.personal import run as run_module
from vidrestore.personal.crop_choice import FEWEST_CROPS
from vidrestore.personal.discriminator import Discriminator
from vidrestore.personal.film_conditions import film_conditions
from vidrestore.personal.forecast import Forecast, forecast
from vidrestore.personal.identity import judge_of
from vidrestore.personal.person import Source
from vidrestore.personal.personal_file import read_description
from vidrestore.personal.request import photographs_in
from vidrestore.personal.run import Trained, run


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums over several threads depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Studio:
    return Studio(tmp_path, monkeypatch)


def notices(events: list[Event]) -> str:
    return "\n".join(event.message for event in events if isinstance(event, Notice))


def test_a_network_learns_a_person(studio: Studio) -> None:
    film = studio.film("film.mkv")
    events: list[Event] = []
    trained: list[Trained] = []
    record = run(studio.request(film), events.append, trained.append)
    target = studio.folder / "anna.safetensors"
    description = read_description(target)
    assert description is not None
    assert record.is_better
    assert (description.base, description.before, description.after) == (
        "base", record.base, record.best.scores,
    )  # fmt: skip
    assert description.learned + description.apart == 20
    assert description.apart == 4
    assert np.allclose(description.embedding, ANNA)
    assert load_gpen(target, SIDE) is not None
    steps = [event.step for event in events if isinstance(event, TrainingProgress)]
    assert steps == list(range(1, 10))
    told = notices(events)
    assert "16 crops from 1 file are learned from, and 4 crops are set apart" in told
    assert re.search(r"after 9 steps, compared with base .* PSNR \+", told)
    assert "takes up to" in told
    # No picture is in the file, and nothing else stays.
    assert {*load_file(target)} == {*load_file(studio.base)}
    assert sorted(path.name for path in studio.folder.iterdir()) == [
        "anna.safetensors", "base.safetensors", "film.mkv",
    ]  # fmt: skip
    crops = trained[0].training_set.crops
    assert crops.shape == (16, SIDE, SIDE, 3)
    assert crops[..., 0].mean() > crops[..., 2].mean() > 20


def test_the_embedding_can_be_left_out(studio: Studio) -> None:
    run(studio.request(studio.film("film.mkv"), keeps_embedding=False))
    description = read_description(studio.folder / "anna.safetensors")
    assert description is not None
    assert description.embedding is None


def test_the_python_door(studio: Studio) -> None:
    film, target = studio.film("film.mkv"), studio.folder / "anna.safetensors"
    record = api.personalize(film, str(target), studio.settings(), person=1)
    assert record.is_better
    assert len(record.losses) == 9


@pytest.mark.long
def test_a_person_is_found_in_other_files(studio: Studio) -> None:
    first = studio.film("first.mkv", 20, tracks=[track_of(20)])
    bert = replace(track_of(20, number=1), person_id=2, embedding=BERT)
    # Here Anna has another number.
    second = studio.film(
        "second.mkv", 40, tracks=[replace(bert, person_id=1), replace(
            track_of(20, first_frame=20, number=2), person_id=2)],
        shown=lambda i: np.fliplr(picture(i, is_bert=i < 20)).copy(),
    )  # fmt: skip
    album = studio.folder / "album"
    for i in range(3):
        studio.photograph(album / f"anna{i}.png", shows=i)
    studio.photograph(album / "bert.png", is_bert=True)
    (album / "broken.jpg").write_bytes(b"no picture")
    (album / "notes.txt").write_text("no picture")
    events: list[Event] = []
    trained: list[Trained] = []
    request = studio.request(first, second, photos=album, settings=studio.settings(crops=100))
    run(request, events.append, trained.append)
    told = notices(events)
    assert "from 5 files" in told
    assert "1 photograph of" in told
    assert "does not show the person" in told
    assert "1 photograph of" in told
    assert "cannot be read" in told
    used = trained[0].training_set
    crops = np.concatenate([used.crops, used.apart])
    # Less those that are within a second of the crops that are set apart, or show the same.
    assert 30 <= len(crops) <= 43
    assert (crops[..., 0].mean(axis=(1, 2)) > crops[..., 2].mean(axis=(1, 2))).all()
    assert studio.analyzed.count(second) == 1


@pytest.mark.long
def test_bad_faces_of_the_film_are_imitated(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "film_conditions", film_conditions)
    film = studio.film("film.mkv", 100, shown=lambda i: picture(i, blur_px=3.0 if i >= 60 else 0.0))
    events: list[Event] = []
    trained: list[Trained] = []
    run(studio.request(film), events.append, trained.append)
    assert 10 < trained[0].film_conditions < 30
    assert "imitate" in notices(events)
    (source,) = _sources(studio, film)
    conditions = film_conditions([source], SIDE, trained[0].training_set.crops[0])
    widths = [each.edges_px for each in conditions]
    assert len(conditions) == trained[0].film_conditions
    # The portrait has edges of about 1 px of its own.
    assert np.median(widths) == pytest.approx(np.hypot(3.0, 1.0), rel=0.2)


def _sources(studio: Studio, path: Path) -> list[Source]:
    from vidrestore.media.probe import probe

    known = studio._find_analysis(probe(path), studio.settings())
    return [Source(path, known.analysis, known.analysis.tracks, is_kept=False)]


class StopError(Exception):
    """In the place of a signal."""


@pytest.mark.long
def test_a_stopped_training_goes_on(studio: Studio) -> None:
    film, target = studio.film("film.mkv"), studio.folder / "anna.safetensors"
    run(studio.request(film))
    whole = target.read_bytes()
    target.unlink()

    state = studio.folder / "anna.safetensors.training" / "state.pt"
    events: list[Event] = []
    for after in (2, 4):  # before the first state and after it
        with pytest.raises(StopError):
            run(studio.request(film), _stop_after(after, events))
        assert state.exists() == (after > 3)
        assert not target.exists()
        assert ("is kept in" in notices(events)) == (after > 3)
    kept = f"training after 3 steps is kept in {state.parent}; the same command goes on from there"
    assert kept in notices(events)
    events.clear()
    run(studio.request(film), events.append)
    assert target.read_bytes() == whole
    assert "goes on after step 3" in notices(events)
    assert not state.parent.exists()


def _stop_after(step: int, events: list[Event] | None = None) -> Callable[[Event], None]:
    def stop(event: Event) -> None:
        if events is not None:
            events.append(event)
        if isinstance(event, TrainingProgress) and event.step == step:
            raise StopError

    return stop


@pytest.mark.long
def test_a_state_of_other_settings_is_named(studio: Studio) -> None:
    film = studio.film("film.mkv")
    with pytest.raises(StopError):
        run(studio.request(film), _stop_after(4))
    events: list[Event] = []
    run(studio.request(film, settings=studio.settings(seed=1)), events.append)
    assert "training begins anew" in notices(events)


def saved(state: Path, **changes: Any) -> None:
    torch.save(torch.load(state, weights_only=True) | changes, state)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda state: saved(state, networks={"gpen": {}, "average": {}}), "in another form"),
        (lambda state: (state.unlink(), os.mkfifo(state)), "is a pipe .*; remove it"),
    ],
)
def test_a_state_that_cannot_be_read_is_refused_and_stays(
    studio: Studio, change: Callable[[Path], None], why: str
) -> None:
    film, state = studio.film("film.mkv"), studio.folder / "anna.safetensors.training" / "state.pt"
    with pytest.raises(StopError):
        run(studio.request(film), _stop_after(4))
    change(state)
    with pytest.raises(UsageError, match=rf"state\.pt {why}|state\.pt is the state .*{why}"):
        run(studio.request(film))
    assert state.exists()


def test_an_error_of_the_receiver_is_its_own(studio: Studio) -> None:
    def fail(event: Event) -> None:
        if isinstance(event, TrainingProgress):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run(studio.request(studio.film("film.mkv")), fail)


def test_a_run_that_ends_meanwhile_may_take_its_folder_with_it(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def taken(path: Path, *, wait: bool) -> Any:
        if not tries:
            path.parent.rmdir()
        tries.append(path)
        return held(path, wait=wait)

    monkeypatch.setattr(files, "held", taken)
    run(studio.request(studio.film("film.mkv")))
    assert len(tries) == 2


def test_a_disk_that_fills_up_or_goes_away_keeps_the_last_state(studio: Studio, disk: Disk) -> None:
    film, target = studio.film("film.mkv"), disk.folder / "anna.safetensors"
    filler, state = disk.folder / "filler", disk.folder / "anna.safetensors.training" / "state.pt"

    def fill(event: Event) -> None:
        if isinstance(event, TrainingProgress) and event.step == 5:
            disk.remount("size=1500k")
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))

    with pytest.raises(OutputError, match=r"no space is left in .*; make room and run the same"):
        run(studio.request(film, target=target), fill)
    assert {*disk.folder.rglob("*")} == {filler, state, state.parent, state.parent / "lock"}
    filler.unlink()
    disk.remount("size=64m")
    events: list[Event] = []
    run(studio.request(film, target=target), events.append)
    assert "goes on after step 3" in notices(events)
    assert [*disk.folder.iterdir()] == [target]
    disk.remount("ro")
    with pytest.raises(OutputError, match="for the network cannot be written to: read-only"):
        run(studio.request(film, target=disk.folder / "ben.safetensors"))
    disk.remount("rw")


@pytest.mark.long
def test_a_page_on_a_full_disk_costs_no_network(studio: Studio, disk: Disk) -> None:
    film, page = studio.film("film.mkv"), disk.folder / "page.html"
    disk.remount("size=4k")
    events: list[Event] = []
    api.personalize(
        film, studio.folder / "anna.safetensors", studio.settings(), person=1, report=page,
        on_event=events.append,
    )  # fmt: skip
    told = notices(events)
    assert "page.html could not be written (no space left on device)" in told
    assert [*disk.folder.iterdir()] == []
    assert {path.name for path in studio.folder.iterdir()} == {
        "film.mkv", "base.safetensors", "anna.safetensors", "disk",
    }  # fmt: skip


def test_a_kept_analysis_of_other_frames_is_made_again(studio: Studio) -> None:
    film = studio.film("film.mkv")
    studio.kept_wrongly = film
    events: list[Event] = []
    run(studio.request(film), events.append)
    assert studio.analyzed == [film, film]
    assert OTHER_FRAMES in notices(events)
    assert (studio.folder / "anna.safetensors").exists()


def test_the_discriminator_is_used_where_it_is_here(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = studio.folder / "GPEN-BFR-32-D.pth"
    torch.save(Discriminator(SIDE, narrow=0.03125).state_dict(), path)
    monkeypatch.setattr(networks, "judges_here", lambda *_: (True, False))
    monkeypatch.setattr(networks, "weight_finder", lambda *_: lambda name: path)
    events: list[Event] = []
    record = run(studio.request(studio.film("film.mkv")), events.append)
    assert {"discriminator", "adversarial", "pixel"} <= set(record.losses[1].losses)
    assert record.best.scores.identity is not None  # by the recognizer alone
    told = notices(events)
    assert "training does without ir-se50" in told
    assert "gpen-32-d" not in told


def test_without_any_judge_of_likeness_detail_decides(studio: Studio) -> None:
    studio.recognizer = None
    events: list[Event] = []
    record = run(studio.request(studio.film("film.mkv")), events.append)
    assert record.is_better
    assert record.best.scores.identity is None
    assert "likeness is not judged" in notices(events)
    description = read_description(studio.folder / "anna.safetensors")
    assert description is not None
    assert description.embedding is None


def test_a_full_memory_is_named(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(objectives, "add_generator_gradients", fill)
    with pytest.raises(UsageError, match="2 faces in each step do not fit into the memory of cpu"):
        run(studio.request(studio.film("film.mkv")))


def test_a_file_that_cannot_be_written_costs_no_training(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    film, target = studio.film("film.mkv"), studio.folder / "anna.safetensors"

    def full(*_: object, **__: object) -> None:
        raise OutputError("no space is left")

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_personal_file", full)
        with pytest.raises(OutputError):
            run(studio.request(film))
    events: list[Event] = []
    run(studio.request(film), events.append)
    assert target.exists()
    assert not [event for event in events if isinstance(event, TrainingProgress)]
    assert not (studio.folder / "anna.safetensors.training").exists()


def test_files_of_the_user_beside_the_state_stay(studio: Studio) -> None:
    folder = studio.folder / "anna.safetensors.training"
    folder.mkdir()
    (folder / "notes.txt").write_text("of value")
    with pytest.raises(UsageError, match="14 crops of 14"):
        run(studio.request(studio.film("film.mkv", FEWEST_CROPS - 1)))
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_a_state_on_a_full_disk(disk: Disk) -> None:
    """The archive of torch fails a second time at its end, with another error."""
    disk.remount("size=600k")
    part = {"weights": torch.zeros(200_000)}
    with pytest.raises(OSError, match="No space left"):
        saved_state.write(disk.folder / "state.pt", "key", part=part)
    assert list(disk.folder.iterdir()) == []


def test_two_runs_do_not_share_a_state(studio: Studio) -> None:
    film = studio.film("film.mkv")

    def train_too(event: Event) -> None:
        if isinstance(event, TrainingProgress):
            run(studio.request(film))

    with pytest.raises(UsageError, match=r"another run is training .*anna\.safetensors; wait"):
        run(studio.request(film), train_too)


def test_a_run_removes_the_state_before_another_can_begin(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove, tries = run_module._remove_empty, []

    def try_first(folder: Path, state: Path) -> None:
        with pytest.raises(BlockingIOError), held(folder / "lock", wait=False):
            pass
        tries.append(folder)
        remove(folder, state)

    monkeypatch.setattr(run_module, "_remove_empty", try_first)
    run(studio.request(studio.film("film.mkv")))
    assert len(tries) == 1
    assert not tries[0].exists()


def test_a_file_that_another_run_wrote_meanwhile_stays(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    film, target = studio.film("film.mkv"), studio.folder / "anna.safetensors"
    planned = run_module.forecast

    def too_late(*given: Any) -> Forecast:
        target.write_bytes(b"of value")
        return planned(*given)

    monkeypatch.setattr(run_module, "forecast", too_late)
    with pytest.raises(UsageError, match="exists already; add --overwrite"):
        run(studio.request(film))
    assert target.read_bytes() == b"of value"
    assert not target.with_name("anna.safetensors.training").exists()


def one_run(folder: str) -> None:
    """Train in a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        studio = Studio(Path(folder), patch)
        film = studio.film("film.mkv")
        settings = studio.settings(steps=40, check_every=2, patience=99)
        run(studio.request(film, settings=settings))


@pytest.mark.long
def test_killed_runs_give_the_same_file(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    here = Path(__file__).parent
    code = (
        f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]\n"
        "import torch; torch.set_num_threads(1)\n"
        "from helpers.processes import kill_after_call\n"
        "from vidrestore.personal.trainer import Trainer\n"
        "if sys.argv[2:]: kill_after_call(eval(sys.argv[2]), sys.argv[3], int(sys.argv[4]))\n"
        "import test_personalize; test_personalize.one_run(sys.argv[1])"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "whole")], check=True)
    target = tmp_path / "killed" / "anna.safetensors"
    state = tmp_path / "killed" / "anna.safetensors.training" / "state.pt"
    # While the second state is written, between two states, and after one.
    for moment in ("torch save 2", "Trainer _train_step 5", "Trainer _save 3"):
        given = [str(tmp_path / "killed"), *moment.split()]
        process = subprocess.run([sys.executable, "-c", code, *given])
        assert process.returncode == -signal.SIGKILL
        assert state.exists()
        assert not target.exists()
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "killed")], check=True)
    assert target.read_bytes() == (tmp_path / "whole" / "anna.safetensors").read_bytes()
    assert not state.parent.exists()


def test_a_network_that_is_not_better_is_refused(studio: Studio) -> None:
    film = studio.film("film.mkv")
    report = studio.folder / "report.html"
    settings = studio.settings(decoder_rate=1e-9, encoder_rate=1e-9, steps=3)
    with pytest.raises(VidrestoreError, match=r"not better than base .* no file is written"):
        api.personalize(film, studio.folder / "anna.safetensors", settings, person=1, report=report)
    assert {path.name for path in studio.folder.iterdir()} == {
        "film.mkv", "base.safetensors", "report.html",
    }  # fmt: skip
    assert "It was not written." in report.read_text()


def too_few(studio: Studio) -> dict[str, Any]:
    return {"sources": (studio.film("film.mkv", FEWEST_CROPS - 1),)}


def blurred(studio: Studio) -> dict[str, Any]:
    return {"sources": (studio.film("film.mkv", 60, shown=lambda i: picture(i, blur_px=4.0)),)}


def small(studio: Studio) -> dict[str, Any]:
    own = track_of(60)
    matrices = own.matrices * np.float32(20)  # a twentieth of the side
    return {"sources": (studio.film("film.mkv", 60, tracks=[replace(own, matrices=matrices)]),)}


def two_people(studio: Studio) -> dict[str, Any]:
    film = studio.film("film.mkv", 60, shown=lambda i: picture(i, is_bert=i % 3 == 0))
    return {"sources": (film,)}


def no_recognizer_for_two_files(studio: Studio) -> dict[str, Any]:
    studio.recognizer = None
    return {"sources": (studio.film("a.mkv"), studio.film("b.mkv"))}


def no_recognizer_for_a_photograph(studio: Studio) -> dict[str, Any]:
    studio.recognizer = None
    photo = studio.photograph(studio.folder / "anna.png")
    return {"sources": (studio.film("a.mkv"),), "person": None, "reference": photo}


def no_such_person(studio: Studio) -> dict[str, Any]:
    return {"sources": (studio.film("film.mkv"),), "person": 7}


def no_weights(studio: Studio) -> dict[str, Any]:
    settings = studio.settings(base="gpen-256")
    offline = settings.weights.model_copy(update={"offline": True})
    film = studio.film("film.mkv")
    return {"sources": (film,), "settings": settings.model_copy(update={"weights": offline})}


REFUSED: dict[str, tuple[Callable[[Studio], dict[str, Any]], type[VidrestoreError], str]] = {
    "too few": (too_few, UsageError, r"14 crops of 14 can be learned from where at least 15"),
    "blurred": (blurred, UsageError, r"0 crops of 60 .* \(60 are too small, too blurred or turned"),
    "small": (small, UsageError, r"0 crops of 60 .* \(60 are too small"),
    "two people": (two_people, UsageError, r"20 of 60 differ from the others; choose one person"),
    "files": (no_recognizer_for_two_files, UsageError, r"needs the recognizer of an InsightFace"),
    "photo": (no_recognizer_for_a_photograph, UsageError, r"needs the recognizer .* with --person"),
    "person": (no_such_person, UsageError, r"there is no person 7 in this video, only 1;"),
    "weights": (no_weights, WeightsError, r"GPEN-BFR-256\.pth is in none of the folders"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_learned_is_refused(studio: Studio, name: str) -> None:
    prepare, kind, message = REFUSED[name]
    changes = prepare(studio)
    before = {path.name for path in studio.folder.iterdir()}
    with pytest.raises(kind, match=message) as refused:
        run(studio.request(**changes))
    assert str(refused.value).count(". ") == 0  # one sentence
    assert {path.name for path in studio.folder.iterdir()} == before


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"sources": ()}, UsageError, "no INPUT was named"),
        ({"person": None}, UsageError, "and neither was given"),
        ({"reference": Path("a.jpg")}, UsageError, "and both were given"),
        ({"target": Path("anna.pth")}, UsageError, r"must end in \.safetensors"),
        ({"report": Path("report.txt")}, UsageError, r"must end in \.html"),
        ({"photos": Path("no folder")}, VidrestoreError, "no folder of photographs"),
        ({"photos": Path("/dev/fd")}, InputError, "holds no photograph"),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    studio: Studio, changes: dict[str, Any], kind: type[VidrestoreError], message: str
) -> None:
    film = studio.film("film.mkv", 1)
    with pytest.raises(kind, match=message):
        studio.request(**({"sources": (film,)} | changes)).validate()


@pytest.mark.parametrize("base", ["fusion", "gpen-auto", "gpen-colorize"])
def test_what_restores_no_face_by_its_weights_is_no_base(studio: Studio, base: str) -> None:
    film = studio.film("film.mkv", 1)
    with pytest.raises(ConfigError, match=f"{base} is no network that restores"):
        studio.request(film, settings=studio.settings(base=base)).validate()


def test_a_file_that_exists_stays(studio: Studio) -> None:
    film, target = studio.film("film.mkv", 1), studio.folder / "anna.safetensors"
    target.write_bytes(b"of value")
    with pytest.raises(UsageError, match="exists already; add --overwrite"):
        run(studio.request(film))
    with pytest.raises(UsageError, match="is the input itself"):
        run(studio.request(target, overwrite=True))
    with pytest.raises(UsageError, match="is the input itself"):
        run(studio.request(film, overwrite=True, settings=studio.settings(base=str(target))))
    assert target.read_bytes() == b"of value"


def test_photographs_are_the_visible_pictures_in_a_folder(tmp_path: Path) -> None:
    for name in ("b.JPG", "a 1%d.png", "._b.JPG", ".hidden.jpg", "notes.txt", "film.mkv"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in photographs_in(tmp_path)] == ["a 1%d.png", "b.JPG"]


@pytest.mark.parametrize(
    ("base", "least_gb", "most_gb"),
    [("gpen-512", 4, 12), pytest.param("gpen-2048", 15, 40, marks=pytest.mark.long)],
)
def test_memory_and_time_follow_from_shapes(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, base: str, least_gb: float, most_gb: float
) -> None:
    def planned(room_gb: float, **changes: Any) -> Forecast:
        monkeypatch.setattr(forecast_module, "measured_speed", lambda device: 1e9)
        monkeypatch.setattr(devices, "machine_memory", lambda: int(room_gb * 1e9))
        return forecast(studio.settings(base=base, batch=4, save_memory=True, **changes))

    roomy, tight = planned(200), planned(21, minutes=0.5)
    assert least_gb * 1e9 < roomy.memory_bytes < most_gb * 1e9
    assert (roomy.batch, roomy.size_px) == (4, int(base.removeprefix("gpen-")))
    assert (tight.batch == 4) == (base == "gpen-512")
    assert tight.memory_bytes <= 0.9 * 21e9
    # Weights, momentum, averaged and best weights: four copies of 71 million float32.
    assert roomy.state_bytes == pytest.approx(4 * 4 * 71.1e6, rel=0.01)
    assert roomy.seconds > tight.seconds == 30
    with pytest.raises(UsageError, match=f"training {base} takes .* choose a smaller network"):
        planned(3)


def test_the_recognizer_judges_likeness() -> None:
    judge = judge_of(ByColor())
    faces = torch.zeros(2, 3, SIDE, SIDE)
    faces[0, 0] = faces[1, 2] = 1.0
    assert np.allclose(judge(faces).numpy(), [ANNA, BERT])
    unknown = judge_of(lambda picture, faces: [None])
    assert unknown(faces).abs().sum() == 0


def test_the_command(studio: Studio, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast_module, "measured_speed", lambda device: 1e9)
    film, target = studio.film("film.mkv"), studio.folder / "anna.safetensors"
    train = studio.settings().train
    options = [
        f"train.{name}={getattr(train, name)}"
        for name in ("check_every", "batch", "crops", "decoder_rate", "encoder_rate",
                     "half_life_images")
    ]  # fmt: skip
    settings = [word for option in options for word in ("--set", option)]
    words = ["personalize", film, "--person", 1, "-o", target, "--base", studio.base, *settings]
    dry = command(*words, "--dry-run", "--steps", 9, "--json")
    assert dry.status == 0
    (line,) = [json.loads(text) for text in dry.out.splitlines()]
    assert line["forecast"]["steps"] == 9
    assert not target.exists()
    assert studio.analyzed == []
    assert "disk, until training ends" in command(*words, "--dry-run").out
    done = command(*words, "--steps", 9, "--seed", 3, "--no-embedding", "--json")
    assert done.status == 0, done
    lines = [json.loads(text) for text in done.out.splitlines()]
    result = lines[-1]["training"]
    assert (result["target"], result["base"], result["learned"]) == (str(target), "base", 16)
    assert result["after"]["psnr_db"] > result["before"]["psnr_db"]
    assert result["embedding"] is False
    assert [each["step"] for each in lines if each.get("stage") == "train"] == list(range(1, 10))
    again = command(*words, "--steps", 9, "--overwrite")
    assert again.status == 0
    assert "better by" in again.out
    assert "16 learned from, 4 set apart" in again.out
    refused = command(*words)
    assert refused.status == 2
    assert "exists already" in refused.err
