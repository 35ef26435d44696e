"""Networks of single people: each restores its person, and the network for all the others."""

import pickle
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.io
import torch
from helpers.events import messages
from helpers.media import (
    AS_PAINTED,
    analysis_of_file,
    mild_image,
    plain_track,
    planes_of,
    write_video,
)

from vidrestore.analysis.choice import EVERYONE, Choice
from vidrestore.analysis.people import surely_recognized
from vidrestore.analysis.result import Analysis
from vidrestore.api import restore_video
from vidrestore.cli import console
from vidrestore.common.errors import ClusterError, ConfigError, InputError, UsageError
from vidrestore.common.events import Progress
from vidrestore.common.profiles import load_settings
from vidrestore.jobs import estimate as estimates
from vidrestore.jobs import key_frames, personal_networks
from vidrestore.jobs.plan import plan_job
from vidrestore.jobs.request import RestoreRequest
from vidrestore.jobs.summary import NetworkUse
from vidrestore.jobs.work_folder import work_folder
from vidrestore.media.decode import DecodeErrors, decode
from vidrestore.media.probe import fingerprint
from vidrestore.models.gpen.network import GPEN
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.personal.personal_file import write_personal_file
from vidrestore.personal.scores import Scores
from vidrestore.personal.trainer import Look, TrainingRecord
from vidrestore.review.preview import write_preview

SHOTS = ((0, 24), (24, 48))
FRAMES = SHOTS[-1][1]
# The frames of each shot in which both people are visible.
SEEN = 6
# Anna stands on the left, Ben on the right.
LEFT, RIGHT = (slice(0, 64), slice(0, 64)), (slice(0, 64), slice(64, 128))
ANNA, BEN, NEITHER = np.eye(3, 16, dtype=np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The weights of a small network, and networks of Anna and Ben."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(small_gpen(0).state_dict(), folder / "GPEN-BFR-256.pth")
    personal_file(folder / "anna.safetensors", 1, ANNA)
    personal_file(folder / "ben.safetensors", 2, BEN)
    return folder


def small_gpen(seed: int, size: int = 256) -> GPEN:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPEN(size, style_dim=8, n_mlp=1, narrow=0.015625)


def personal_file(
    path: Path, seed: int, embedding: Any, base: str = "gpen-256", size: int = 256
) -> Path:
    best = Look(40, Scores(31.0, 0.5, 0.8), True)
    record = TrainingRecord(Scores(30.0, 0.4, 0.7), best, (best,), (), 1.0)
    write_personal_file(
        path, small_gpen(seed, size), record, base=base, learned=20, apart=5, embedding=embedding
    )
    return path


@pytest.fixture(scope="module")
def tape(tmp_path_factory) -> Path:
    images = [mild_image(128, 64, "yuv420p", seed) for seed in range(FRAMES)]
    return write_video(tmp_path_factory.mktemp("tape") / "tape.mkv", images)


@pytest.fixture(scope="module")
def faces(tape) -> Analysis:
    """Two people in two shots, whom a recognizer joined."""
    tracks = [
        replace(
            plain_track(SEEN, centre=(x, 32), side=32, first_frame=first + 4, track_id=number),
            person_id=person,
            embedding=embedding,
        )
        for first, _ in SHOTS
        for number, person, x, embedding in (
            (2 * (first > 0), 1, 32, ANNA),
            (2 * (first > 0) + 1, 2, 96, BEN),
        )
    ]
    known = replace(analysis_of_file(tape, tracks), shots=SHOTS, people_are_joined=True)
    return replace(known, fingerprint=fingerprint(tape))


def settings_for(folder: Path, restorer: str = "gpen-256", **more: Any):
    how = {"restore.restorer": restorer, "restore.device": "cpu", "weights.folder": folder,
           "weights.offline": True, "restore.engine": "torch", "restore.number_format": "float32",
           "encode.codec": "ffv1", "encode.check": False, "deflicker.amount": 0,
           "guard.identity": 0, "guard.features": 0, "guard.expression": 0, "detect.mesh": "off",
           "job.segment_frames": 48}  # fmt: skip
    people = more.pop("person", ())
    settings = load_settings(options=AS_PAINTED | how | more)
    return settings.model_validate(settings.model_dump(exclude_unset=True) | {"person": people})


def run(tape, target, faces, folder, restorer="gpen-256", choice=EVERYONE, told=None, **more):
    how = {name: more.pop(name) for name in ("keep_job", "redo_shots", "workers") if name in more}
    return restore_video(
        tape, target, settings_for(folder, restorer, **more), analysis=faces, choice=choice,
        on_event=None if told is None else told.append, **how,
    )  # fmt: skip


def pictures(path: Path) -> list[np.ndarray]:
    """The luma of each frame."""
    return [planes_of(frame.image)[0] for frame in decode(path, DecodeErrors())]


def same(one: Sequence[np.ndarray], other: Sequence[np.ndarray], part: Any) -> bool:
    return all(np.array_equal(a[part], b[part]) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def outputs(tape, faces, folder, tmp_path_factory):
    """The frames of runs in which one network restored everyone."""
    made: dict[str, list[np.ndarray]] = {}

    def of(name: str) -> list[np.ndarray]:
        if name not in made:
            target = tmp_path_factory.mktemp("outputs") / "out.mkv"
            restorer = name if name == "gpen-256" else str(folder / f"{name}.safetensors")
            everyone = Choice(people="1,2")
            run(tape, target, faces, folder, restorer, everyone)
            made[name] = pictures(target)
        return made[name]

    return of


def test_each_of_two_people_gets_the_own_network(tape, faces, folder, outputs, tmp_path, capsys):
    people = [
        {"name": "Anna", "restorer": str(folder / "anna.safetensors")},
        {"name": "Ben", "restorer": str(folder / "ben.safetensors")},
    ]
    summary = run(tape, target := tmp_path / "out.mkv", faces, folder, person=people)
    both = pictures(target)
    assert same(both, outputs("anna"), LEFT)
    assert same(both, outputs("ben"), RIGHT)
    assert not same(outputs("anna"), outputs("ben"), LEFT)
    assert summary.networks == (
        NetworkUse("anna.safetensors (Anna)", (1,), 2 * SEEN),
        NetworkUse("ben.safetensors (Ben)", (2,), 2 * SEEN),
    )
    console.show_summary(summary, target)
    assert "anna.safetensors (Anna): 12 faces of person 1" in capsys.readouterr().out


@pytest.mark.long
def test_a_personal_file_alone_leaves_other_people_to_its_base(
    tape, faces, folder, outputs, tmp_path
):
    target = tmp_path / "out.mkv"
    summary = run(tape, target, faces, folder, str(folder / "anna.safetensors"))
    mixed = pictures(target)
    assert same(mixed, outputs("anna"), LEFT)
    assert same(mixed, outputs("gpen-256"), RIGHT)
    assert not same(mixed, outputs("anna"), RIGHT)
    assert [(use.restorer, use.people) for use in summary.networks] == [
        ("anna.safetensors", (1,)),
        ("gpen-256", (2,)),
    ]


def test_named_people_get_the_network_and_others_stay(tape, faces, folder, outputs, tmp_path):
    target = tmp_path / "out.mkv"
    anna = str(folder / "anna.safetensors")
    summary = run(tape, target, faces, folder, anna, Choice(people="1"))
    assert summary.networks == (NetworkUse("anna.safetensors", (1,), 2 * SEEN),)
    assert same(pictures(target), outputs("anna"), LEFT)
    assert same(pictures(target), pictures(tape), RIGHT)


@pytest.mark.long
def test_a_redone_shot_gets_the_networks_of_the_new_run(tape, faces, folder, outputs, tmp_path):
    target, shots = tmp_path / "out.mkv", tmp_path / "shots.toml"
    run(tape, target, faces, folder, str(folder / "anna.safetensors"), keep_job=True)
    first = pictures(target)
    shots.write_text(people_in(folder, {2: "ben"}))
    summary = run(tape, target, faces, folder, choice=Choice(shots=shots), redo_shots="2")
    redone, (begin, end) = pictures(target), SHOTS[1]
    assert same(redone[:begin], first[:begin], ...)
    assert same(redone[begin:end], outputs("gpen-256")[begin:end], LEFT)
    assert same(redone[begin:end], outputs("ben")[begin:end], RIGHT)
    assert summary.networks == (
        NetworkUse("anna.safetensors", (1,), SEEN),
        NetworkUse("gpen-256", (1, 2), 2 * SEEN),
        NetworkUse("ben.safetensors", (2,), SEEN),
    )


def test_a_larger_network_of_one_person_changes_no_one_else(tape, faces, tmp_path):
    """The crops of a face are as large as its own network needs, whoever else is restored."""
    anna, usual = tmp_path / "anna.safetensors", tmp_path / "usual.pth"
    torch.save(small_gpen(0, 32).state_dict(), usual)
    personal_file(anna, 1, ANNA, size=64)
    found = []
    for people in ([], [{"name": "Anna", "restorer": str(anna)}]):
        target = tmp_path / f"{len(people)}.mkv"
        run(tape, target, faces, tmp_path, str(usual), person=people)
        found.append(pictures(target))
    assert same(*found, RIGHT)
    assert not same(*found, LEFT)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_run_that_goes_on_mixes_no_networks(tape, faces, folder, outputs, tmp_path, is_replaced):
    anna, target = tmp_path / "anna.safetensors", tmp_path / "out.mkv"
    personal_file(anna, 1, ANNA)
    people = [{"name": "Anna", "restorer": str(anna)},
              {"name": "Ben", "restorer": str(folder / "ben.safetensors")}]  # fmt: skip

    class StopError(Exception):
        """In the place of a signal, in the second segment."""

    def stop(event):
        if isinstance(event, Progress) and (event.stage, event.frame) == ("restore", 30):
            raise StopError

    settings = settings_for(folder, person=people)
    with pytest.raises(StopError):  # a job that is kept has a segment for each shot
        restore_video(tape, target, settings, analysis=faces, on_event=stop, keep_job=True)
    if is_replaced:
        personal_file(anna, 2, ANNA)
    told: list[Any] = []
    run(tape, target, faces, folder, told=told, person=people, keep_job=True)
    assert any("1 of 2 segments is done already" in each for each in messages(told)) != is_replaced
    both = pictures(target)
    assert same(both, outputs("ben" if is_replaced else "anna"), LEFT)
    assert same(both, outputs("ben"), RIGHT)


def people_in(folder: Path, networks: dict[int, str]) -> str:
    return "".join(
        f'[people.{person}]\nrestorer = "{folder / name}.safetensors"\n'
        for person, name in networks.items()
    )


def planned(tape, faces, settings, tmp_path, choice=EVERYONE, told=None):
    """The plan of a run, which opens the networks and restores nothing."""
    request = RestoreRequest(tape, tmp_path / "out.mkv", settings, analysis=faces, choice=choice)
    request.validate()
    with work_folder(request.target, lambda message: None) as work:
        return plan_job(request, work, None if told is None else told.append)


def assigned_to(tape, faces, settings, tmp_path, choice=EVERYONE, told=None) -> dict[int, str]:
    """Number of a track -> the stem of the file of its own network."""
    names = planned(tape, faces, settings, tmp_path, choice, told).job.restorers
    assert names.stretches == [(0, None)]
    return {track: Path(name).stem for track, name in names.of_tracks.items()}


def test_a_list_of_shots_goes_before_a_profile(tape, faces, folder, tmp_path):
    shots = tmp_path / "shots.toml"
    shots.write_text(people_in(folder, {2: "anna"}))
    people = [{"name": "Ben", "restorer": str(folder / "ben.safetensors")}]
    settings = settings_for(folder, person=people)
    assert assigned_to(tape, faces, settings, tmp_path) == {1: "ben", 3: "ben"}
    choice = Choice(shots=shots)
    assert assigned_to(tape, faces, settings, tmp_path, choice) == {1: "anna", 3: "anna"}


def test_the_photo_of_a_person_goes_before_the_embedding(
    tape, faces, folder, tmp_path, monkeypatch
):
    (photo := tmp_path / "ben.jpg").write_bytes(b"not looked at")
    monkeypatch.setattr(personal_networks, "reference_embedding", lambda *_: BEN)
    anna = str(folder / "anna.safetensors")
    people = [{"name": "Ben", "reference": str(photo), "restorer": anna}]
    settings = settings_for(folder, person=people, **{"detect.detector": "haar"})
    unknown = replace(faces, people_are_joined=False)
    with pytest.raises(UsageError, match="cannot recognize without"):
        assigned_to(tape, unknown, settings, tmp_path)
    assert assigned_to(tape, faces, settings, tmp_path) == {1: "anna", 3: "anna"}


def test_a_person_who_is_not_there_is_named(tape, faces, folder, tmp_path):
    told: list[Any] = []
    file = personal_file(tmp_path / "carl.safetensors", 3, NEITHER)
    settings = settings_for(folder, str(file))
    assert assigned_to(tape, faces, settings, tmp_path, told=told) == {}
    assert any("surely that of carl, for whom" in message for message in messages(told))


@pytest.mark.parametrize("left_out", [None, "-2"])
def test_without_a_recognizer_the_person_must_be_named(tape, faces, folder, tmp_path, left_out):
    unknown, choice = replace(faces, people_are_joined=False), Choice(people=left_out)
    settings = settings_for(folder, str(folder / "anna.safetensors"))
    with pytest.raises(UsageError, match=r"anna\.safetensors is for one person.*--people"):
        planned(tape, unknown, settings, tmp_path, choice)
    plan = planned(tape, unknown, settings, tmp_path, Choice(people="1"))
    assert plan.job.settings.restore.restorer.endswith("anna.safetensors")
    assert plan.job.restorers.of_tracks == {}


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"embedding": None}, "holds no embedding by which carl can be recognized"),
        ({"embedding": NEITHER, "base": "other"}, "made from the network 'other', which is none"),
        ({"embedding": np.eye(8, dtype=np.float32)[0]}, "has 8 numbers and .* have 16"),
    ],
)
def test_a_file_that_cannot_tell_its_person_is_refused(
    tape, faces, folder, tmp_path, how: dict[str, Any], why
):
    file = personal_file(tmp_path / "carl.safetensors", 3, **how)
    with pytest.raises(UsageError, match=why):
        planned(tape, faces, settings_for(folder, str(file)), tmp_path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[[shot]]\nstart = "0"\nend = "9"\nrestorer = "{anna}"\n', "under a heading .people.1"),
        ('[people.3]\nrestorer = "{anna}"\n', "name person 3, but the video has only 1, 2"),
        ("[people.1]\n", r"\[people\.1\]: it has no restorer"),
        ('[people.0]\nrestorer = "{anna}"\n', "must be a number from 1"),
        ('[people.1]\nname = "Anna"\n', "no entry 'name'"),
        ("people = 3\n", "by headings such as"),
        ("[people]\n1 = 3\n", "a heading with entries"),
    ],
)
def test_a_list_of_shots_that_is_wrong_is_refused(tape, faces, folder, tmp_path, text, why):
    (shots := tmp_path / "shots.toml").write_text(
        text.replace("{anna}", str(folder / "anna.safetensors"))
    )
    with pytest.raises(ConfigError, match=why):
        planned(tape, faces, settings_for(folder), tmp_path, Choice(shots=shots))


def keys_of(plan) -> list[str]:
    return list(plan.rendering._segment_keys(plan.rendering.segments))


@pytest.fixture
def clock(monkeypatch):
    """A face takes a second for each 64 pixels of the side of its network, and all else nothing."""
    monkeypatch.setattr(estimates, "_seconds_of", lambda network, side, *_: side / 64)
    monkeypatch.setattr(estimates, "_seconds_per_frame", lambda *_: (0.0, 0.25))
    monkeypatch.setattr(key_frames, "saves_time", lambda *_: False)


def costs(tape, faces, settings, choice=EVERYONE) -> dict[str, tuple[Any, ...]]:
    """Restorer -> (people, faces, seconds for a face), of an estimate."""
    found = estimates.estimate(tape, faces, settings, choice=choice)
    assert isinstance(found, estimates.Estimate), found
    total = sum(each.faces * each.seconds_per_face for each in found.networks)
    assert found.seconds == pytest.approx(total)
    assert found.seconds_per_face == pytest.approx(
        total / sum(each.faces for each in found.networks)
    )
    assert found.restorer == ", ".join(each.restorer for each in found.networks)
    return {
        each.restorer: (each.people, each.faces, each.seconds_per_face) for each in found.networks
    }


def test_an_estimate_counts_each_person_with_the_own_network(tape, faces, folder, tmp_path, clock):
    small = personal_file(tmp_path / "small.safetensors", 1, ANNA, size=64)
    anna = {"name": "Anna", "restorer": str(small)}
    ben = {"name": "Ben", "restorer": str(folder / "ben.safetensors")}
    of_anna, usual = ((1,), 2 * SEEN, 1.0), ((2,), 2 * SEEN, 4.0)
    assert costs(tape, faces, settings_for(folder, person=[anna])) == {
        "small.safetensors (Anna)": of_anna, "gpen-256": usual,
    }  # fmt: skip
    assert costs(tape, faces, settings_for(folder, str(small))) == {
        "small.safetensors": of_anna, "gpen-256": usual,
    }  # fmt: skip
    assert costs(tape, faces, settings_for(folder, person=[anna, ben])) == {
        "small.safetensors (Anna)": of_anna, "ben.safetensors (Ben)": usual,
    }  # fmt: skip
    alone = Choice(people="1")
    assert costs(tape, faces, settings_for(folder, str(small)), alone) == {
        "small.safetensors": of_anna
    }


def test_an_estimate_follows_a_list_of_shots(tape, faces, folder, tmp_path, clock):
    small = personal_file(tmp_path / "small.safetensors", 1, ANNA, size=64)
    torch.save(small_gpen(0, 128).state_dict(), plain := tmp_path / "plain.pth")
    cut = float((faces.pts[SHOTS[1][0]] - faces.pts[0]) * faces.info.time_base)
    (shots := tmp_path / "shots.toml").write_text(
        f'[[shot]]\nstart = "0"\nend = "{cut}"\n'
        f'[[shot]]\nstart = "{cut}"\nend = "99"\nrestorer = "{plain}"\n'
        f'[people.2]\nrestorer = "{small}"\n'
    )
    assert costs(tape, faces, settings_for(folder), Choice(shots=shots)) == {
        "gpen-256": ((1,), SEEN, 4.0),
        "plain.pth": ((1,), SEEN, 2.0),
        "small.safetensors": ((2,), 2 * SEEN, 1.0),
    }


def test_key_frames_spare_the_time_of_the_network_that_has_them(
    tape, faces, folder, tmp_path, clock, monkeypatch
):
    monkeypatch.setattr(key_frames, "saves_time", lambda network, *_: network.size == 256)
    small = personal_file(tmp_path / "small.safetensors", 1, ANNA, size=64)
    found = estimates.estimate(tape, faces, settings_for(folder, str(small)))
    assert isinstance(found, estimates.Estimate), found
    assert found.seconds == 2 * SEEN * (1.0 + 4.0)
    assert found.seconds_with_key_frames == 2 * SEEN * (1.0 + 0.25 * 4.0)
    used = settings_for(folder, str(small), **{"restore.key_frames": "auto"})
    found = estimates.estimate(tape, faces, used)
    assert isinstance(found, estimates.Estimate), found
    assert found.seconds == 2 * SEEN * (1.0 + 0.25 * 4.0)
    assert found.network_share == (1 + 0.25) / 2


def test_an_estimate_tells_what_a_run_would_refuse(tape, faces, folder, tmp_path):
    anna = str(folder / "anna.safetensors")
    unknown = replace(faces, people_are_joined=False)
    assert re.match(
        "the time cannot be estimated: .*anna.safetensors is for one person.*--people",
        estimates.estimate(tape, unknown, settings_for(folder, anna)),
    )
    large = [{"name": "Anna", "restorer": "gpen-512"}, {"name": "Ben", "restorer": anna}]
    (photo := tmp_path / "anna.jpg").write_bytes(b"no picture")
    large[0]["reference"] = str(photo)
    assert "without the recognizer of" in estimates.estimate(
        tape, unknown, settings_for(folder, person=large)
    )
    (shots := tmp_path / "shots.toml").write_text('[people.1]\nrestorer = "gpen-512"\n')
    assert "without the weights gpen-512; run" in estimates.estimate(
        tape, faces, settings_for(folder), choice=Choice(shots=shots)
    )


def test_the_keys_of_segments_name_all_networks(tape, faces, folder, tmp_path):
    anna, other = (tmp_path / f"{name}.safetensors" for name in ("anna", "other"))
    personal_file(anna, 1, ANNA)
    settings = settings_for(folder, str(anna))
    usual = keys_of(planned(tape, faces, settings, tmp_path))
    assert keys_of(planned(tape, faces, settings, tmp_path)) == usual
    personal_file(other, 3, ANNA)
    anna.write_bytes(other.read_bytes())
    assert keys_of(planned(tape, faces, settings, tmp_path)) != usual
    personal_file(anna, 1, ANNA)
    assert keys_of(planned(tape, faces, settings, tmp_path)) == usual
    torch.save(small_gpen(3).state_dict(), tmp_path / "GPEN-BFR-256.pth")
    other_base = settings_for(tmp_path, str(anna))
    assert keys_of(planned(tape, faces, other_base, tmp_path)) != usual


def test_a_person_counts_once_whoever_names_the_network(tape, faces, folder, tmp_path):
    anna = str(folder / "anna.safetensors")
    alone = [{"name": "Anna", "restorer": anna}]
    told: list[Any] = []
    settings = settings_for(folder, anna, person=alone)
    assert assigned_to(tape, faces, settings, tmp_path, told=told) == {0: "anna", 2: "anna"}
    assert not any("surely" in message for message in messages(told))
    copy = shutil.copy(anna, tmp_path / "copy.safetensors")
    twice = settings_for(folder, person=[*alone, {"name": "Ann", "restorer": str(copy)}])
    with pytest.raises(UsageError, match=r"\[\[person\]\] Anna and Ann are recognized by the same"):
        assigned_to(tape, faces, twice, tmp_path)


def test_a_worker_opens_the_same_networks(tape, faces, folder, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    from importlib.metadata import version

    from vidrestore.jobs import workers as crew

    monkeypatch.chdir(folder)
    job = planned(tape, faces, settings_for(folder, "anna.safetensors"), tmp_path).job
    (tmp_path / "out.mkv.vidrestore" / "segments").mkdir(parents=True, exist_ok=True)
    sent = crew._packed(crew._sendable(job))
    monkeypatch.chdir(tmp_path)
    worker = crew._Worker()
    worker.open(crew._WorkerSetup(version("vidrestore"), torch.get_num_threads(), (), sent))
    own = {track: each.cache_name for track, each in worker._restorers.of_tracks.items()}
    assert own == {track: name for track, name in job.networks if track in (0, 2)}
    assert len({name for _, name in job.networks}) == 2
    moved, file = tmp_path / "anna.safetensors", str(folder / "anna.safetensors")
    elsewhere = job.restorers.converted(lambda name: name and str(moved))
    other = replace(pickle.loads(sent), restorers=elsewhere)
    setup = crew._WorkerSetup(version("vidrestore"), torch.get_num_threads(), (), b"")
    for content, kind, why in (
        (None, InputError, r"anna\.safetensors does not exist on .*; share its folder"),
        ("ben", ClusterError, r"another restorer .*: gpen-256 \w+ for track 0, not gpen-256 \w+ f"),
    ):
        if content is not None:
            shutil.copy(folder / f"{content}.safetensors", moved)
        with pytest.raises(kind, match=why) as refused:
            crew._Worker().open(setup._replace(work=pickle.dumps(other)))
        assert "track 2" not in str(refused.value)  # one that differs tells enough
    assert file in pickle.loads(sent).restorers.each()


class WithoutAFile:
    """Workers on a machine that lacks a file which the machine of the plan has."""

    def __init__(self, pool, path: Path) -> None:
        self._pool, self._path = pool, path
        self.check = pool.check

    def render(self, *given):
        self._path.unlink()
        yield from self._pool.render(*given)


@pytest.mark.long
def test_workers_restore_two_people_with_two_networks(tape, faces, folder, outputs, tmp_path):
    pytest.importorskip("ray")
    from vidrestore.jobs import ray_cluster

    anna, target = personal_file(tmp_path / "anna.safetensors", 1, ANNA), tmp_path / "out.mkv"
    people = [{"name": "Anna", "restorer": str(anna)},
              {"name": "Ben", "restorer": str(folder / "ben.safetensors")}]  # fmt: skip
    more = {"person": people, "keep_job": True}  # a job that is kept has two segments
    alone = run(tape, tmp_path / "alone.mkv", faces, folder, **more)
    with ray_cluster.local(2) as pool:
        summary = run(tape, target, faces, folder, workers=pool, **more)
        both = pictures(target)
        assert same(both, pictures(tmp_path / "alone.mkv"), ...)
        assert same(both, outputs("anna"), LEFT)
        assert same(both, outputs("ben"), RIGHT)
        assert summary.networks == alone.networks
        assert [use.people for use in summary.networks] == [(1,), (2,)]
        lacking = WithoutAFile(pool, anna)
        with pytest.raises(InputError, match=r"anna\.safetensors does not exist on .*; share its"):
            run(tape, tmp_path / "no.mkv", faces, folder, workers=lacking, **more)
    assert not (tmp_path / "no.mkv").exists()


def test_only_sure_faces_count_as_those_of_a_person():
    def seen(person, embedding, first=0, count=5):
        track = plain_track(count, centre=(9, 9), side=9, first_frame=first, track_id=person)
        return replace(track, person_id=person, embedding=embedding)

    def at(cosine: float) -> np.ndarray:
        return np.array([cosine, (1 - cosine**2) ** 0.5, *[0] * 14], np.float32)

    def found(*tracks, references=(ANNA,), names=None):
        return surely_recognized(references, tracks, similarity=0.45, names=names)

    assert found(seen(1, at(0.46)), seen(2, at(0.44), first=9), seen(3, None, first=9)) == {1: 0}
    assert found(seen(1, at(0.5)), seen(2, at(0.9), first=4)) == {2: 0}
    assert found(seen(1, at(0.5)), seen(2, at(0.9), first=5)) == {1: 0, 2: 0}
    assert found(seen(1, at(0.6)), references=(ANNA, BEN)) == {1: 1}
    assert found(seen(1, at(0.6)), seen(2, at(0.9)), references=(ANNA, BEN)) == {1: 1, 2: 0}
    # Two photos of one person, who is not twice in a frame.
    twins = seen(1, at(0.7)), seen(2, at(0.9), first=4)
    photos = (at(0.99), at(0.6))
    assert set(found(*twins, references=photos)) == {1, 2}
    assert set(found(*twins, references=photos, names=("Anna", "Anna"))) == {1}


def test_a_preview_shows_what_the_run_will_give(tape, faces, folder, tmp_path):
    def halves(restorer: str) -> tuple[np.ndarray, np.ndarray]:
        target = tmp_path / f"{Path(restorer).stem}.png"
        settings = settings_for(folder, restorer)
        shown = write_preview(tape, 0.2, target, settings, analysis=faces, apart=True)
        assert shown.faces == 2
        picture = skimage.io.imread(shown.files[1])
        return picture[:, :64], picture[:, 64:]

    (anna, other), (base_left, base_right) = map(
        halves, (str(folder / "anna.safetensors"), "gpen-256")
    )
    assert np.array_equal(other, base_right)
    assert not np.array_equal(anna, base_left)


@pytest.mark.parametrize("base", ["gpen-colorize", "fusion", "my\x1b[31mbase"])
def test_a_base_that_restores_no_one_else_is_refused(folder, tmp_path, base):
    path = personal_file(tmp_path / "anna.safetensors", 1, ANNA, base=base)
    with pytest.raises(UsageError, match=r"so other people would have no network") as refused:
        personal_networks.with_base_network(settings_for(folder, str(path)), EVERYONE)
    assert str(refused.value).isprintable()


def test_the_name_of_a_file_may_be_long(folder, tmp_path):
    path = personal_file(tmp_path / f"{'a' * 200}.safetensors", 1, ANNA)
    settings = personal_networks.with_base_network(settings_for(folder, str(path)), EVERYONE)
    assert [person.name for person in settings.person] == ["a" * 200]


def test_two_files_of_one_person_are_one_person(tape, faces, folder, tmp_path):
    """The file whose face is more like the person is taken, and its name alone tells the other."""
    files = {
        name: personal_file(tmp_path / f"{name}.safetensors", seed, np.array(
            [cosine, (1 - cosine**2) ** 0.5, *[0] * 14], np.float32))
        for name, seed, cosine in (("old", 1, 0.95), ("new", 2, 0.99))
    }  # fmt: skip
    for other, is_told in (("Anna", False), ("Ann", True)):
        people = [{"name": "Anna", "restorer": str(files["new"])},
                  {"name": other, "restorer": str(files["old"])}]  # fmt: skip
        told: list[Any] = []
        settings = settings_for(folder, person=people)
        assert assigned_to(tape, faces, settings, tmp_path, told=told) == {0: "new", 2: "new"}
        assert any("surely that of Ann," in message for message in messages(told)) == is_told


def test_a_network_of_two_people_names_neither_of_them(folder, faces):
    both = [{"name": name, "restorer": "gpen-2048"} for name in ("Anna", "Ben")]
    settings = settings_for(folder, person=both)
    names = Assignment(((0, "gpen-256"),), dict.fromkeys(range(4), "gpen-2048"))
    labels = personal_networks.labels_of(names, faces, settings, None)
    assert set(labels.values()) == {"gpen-2048"}
    alone = settings.model_copy(update={"person": settings.person[:1]})
    labels = personal_networks.labels_of(names, faces, alone, None)
    assert set(labels.values()) == {"gpen-2048 (Anna)"}
