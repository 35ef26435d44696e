"""What analyze says: people, how long it will take, and a sheet to choose from."""

import json
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.footage import images
from helpers.media import (
    OneFace,
    analysis_of,
    analysis_of_file,
    info_of,
    mild_image,
    plain_track,
    write_video,
)

from vidrestore.analysis.description import as_dict, best_views, people_of
from vidrestore.analysis.result import Fields, info_of_pictures
from vidrestore.analysis.strength import eye_distances_px
from vidrestore.cli import main
from vidrestore.cli.console import show_analysis
from vidrestore.common.errors import OutputError, UsageError
from vidrestore.common.profiles import load_settings
from vidrestore.common.timecode import duration_text
from vidrestore.imaging.geometry import template
from vidrestore.jobs import estimate as estimate_module
from vidrestore.jobs.estimate import Estimate, estimate
from vidrestore.models.restorers import LatentRestorer
from vidrestore.review.contact_sheet import readable, write_contact_sheet

SIZE = (160, 120)
FRAMES = 12
OPTIONS = {"restore.restorer": "fusion", "detect.detector": "haar", "detect.remember": False}


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    images = [mild_image(*SIZE, "yuv420p", i) for i in range(FRAMES)]
    return write_video(tmp_path / "tape.mkv", images)


def with_people(tape: Path):
    """Person 2 in the first half, person 1 all along, of them in two tracks."""
    tracks = [
        plain_track(6, centre=(50, 60), side=40, track_id=0),
        replace(plain_track(6, centre=(50, 60), side=40, track_id=1), first_frame=6),
        replace(plain_track(6, centre=(110, 60), side=40, track_id=2), person_id=2),
    ]
    tracks = [replace(t, person_id=1) if t.track_id < 2 else t for t in tracks]
    return analysis_of_file(tape, tracks)


def test_people_are_counted_over_all_their_tracks():
    tracks = [replace(plain_track(10, centre=(20, 20), side=20, track_id=i), person_id=i // 2 + 1)
              for i in range(3)]  # fmt: skip
    tracks[1] = replace(tracks[1], first_frame=10)
    analysis = replace(analysis_of(info_of(64, 48), 20, tracks), shots=((0, 10), (10, 20)))
    first, second = people_of(analysis)
    assert (first.person_id, first.shots, first.tracks) == (1, (1, 2), (0, 1))
    assert (second.person_id, second.shots, second.tracks) == (2, (1,), (2,))
    assert first.seconds_on_screen == pytest.approx(2 * second.seconds_on_screen)
    json.dumps(as_dict(analysis), allow_nan=False)


def test_a_person_appears_from_track_to_track_without_short_gaps():
    """25 frames in a second; person 1 is away for 0.8 s, then for 1 s, and twice there at last."""
    spans = [(0, 30), (50, 75), (100, 150), (140, 160)]
    tracks = [
        replace(
            plain_track(end - first, centre=(20, 20), side=20, track_id=i),
            first_frame=first, person_id=1,
        )
        for i, (first, end) in enumerate(spans)
    ]  # fmt: skip
    faded = tracks[0].strength.copy()
    faded[:10] = 0
    tracks[0] = replace(tracks[0], strength=faded)
    tracks.append(replace(plain_track(40, centre=(40, 20), side=20, track_id=4), person_id=2))
    analysis = analysis_of(info_of(64, 48), 200, tracks)
    analysis = replace(analysis, pts=analysis.pts + 12800)
    first, second = as_dict(analysis)["people"]
    assert json.loads(json.dumps(first["appearances"])) == [[0.0, 3.0, 45], [4.0, 6.4, 70]]
    assert second["appearances"] == ((0.0, 1.6, 40),)
    faces = sum(part[2] for person in (first, second) for part in person["appearances"])
    assert faces == analysis.face_count


def test_the_facts_of_the_video_are_for_programs_too():
    info = info_of(
        720, 576, sample_aspect_ratio=Fraction(16, 15), display_orientation=(0, -1, 1, 0)
    )
    analysis = replace(
        analysis_of(info, 50, []), shots=((0, 20), (20, 35), (35, 50)),
        pts=12800 + 512 * np.arange(50),
    )  # fmt: skip
    found = as_dict(analysis)
    assert (found["width"], found["height"]) == (576, 768)
    assert (found["codec"], found["rate"], found["is_interlaced"]) == ("h264", 25.0, False)
    assert (found["seconds"], found["first_seconds"]) == (2.0, 1.0)
    assert found["cuts_seconds"] == [0.8, 1.4]


def test_fields_tell_that_footage_is_interlaced():
    """Each frame of the file has two pictures, at twice the rate."""
    own = info_of(720, 576, field_order="tff")
    for mode in ("keep", "bob"):
        pictures = info_of_pictures(own, mode)
        analysis = analysis_of(pictures, 40, [])
        fields = Fields(mode, "tff", own, 512 * np.arange(20), np.zeros(20, np.uint32))
        found = as_dict(replace(analysis, fields=fields, shots=((0, 10), (10, 40))))
        assert (found["is_interlaced"], found["rate"]) == (True, 25.0)
        assert (found["height"], found["seconds"]) == (576, 0.8)
        assert found["cuts_seconds"] == [0.2]


def test_all_tables_name_one_size_of_a_person(capsys):
    """The head turns away in half of the frames, where its eyes come together in the picture."""
    track = plain_track(10, centre=(60, 60), side=100)
    points = track.landmarks.copy()
    points[5:, :, 0] = 60 + 0.3 * (points[5:, :, 0] - 60)
    grown = track.matrices.copy()
    grown[8:] /= 2
    track = replace(track, landmarks=points, matrices=grown)
    analysis = analysis_of(info_of(120, 120), 10, [track])
    show_analysis(analysis, Path("tape.mkv"), None)
    shown = capsys.readouterr().out
    eyes = np.linalg.norm(template("gpen")[1] - template("gpen")[0])
    expected_px = eyes * (8 * 100 + 2 * 200) / 10
    assert re.findall(r"(\d+) px", shown) == 2 * [f"{expected_px:.0f}"]
    assert shown.count("mean, frontal") == 2
    (person,) = people_of(analysis)
    assert person.eye_distance_px == pytest.approx(expected_px)
    np.testing.assert_allclose(
        eye_distances_px(track, "gpen"), eyes * np.repeat([100, 200], [8, 2]), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (59.4, "59 s"), (60, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"),
     (86400, "1 day 0 h"), (273600, "3 days 4 h")],
)  # fmt: skip
def test_durations_are_said_in_two_units(seconds, text):
    assert duration_text(seconds) == text


def test_the_estimate_adds_faces_and_frames(tape):
    analysis = with_people(tape)
    cost = estimate(tape, analysis, load_settings(options=OPTIONS))
    assert isinstance(cost, Estimate)
    assert cost.restorer == "fusion"
    assert cost.seconds_per_face > 0
    assert cost.seconds_per_frame > 0
    total = FRAMES * cost.seconds_per_frame + analysis.face_count * cost.seconds_per_face
    assert cost.seconds == pytest.approx(total)


def test_the_estimate_counts_the_latent_codes(tape, monkeypatch):
    class Coded(LatentRestorer):
        name, codes_made, runs = "coded", 0, 0

        def __call__(self, windows):
            self.runs += 1
            return windows[:, 0]

        def codes(self, windows):
            self.codes_made += 1
            return windows[:, 0, 0, 0]

        def with_codes(self, windows, codes):
            return self(windows)

    for latent in ("frame", "shot"):
        coded = Coded()
        monkeypatch.setattr(estimate_module, "chosen_restorer", lambda *_, coded=coded: coded)
        cost = estimate(tape, with_people(tape), load_settings(options=OPTIONS | {
            "restore.latent": latent}))  # fmt: skip
        assert isinstance(cost, Estimate)
        assert coded.codes_made == (coded.runs if latent == "shot" else 0)


def test_the_probe_begins_where_the_first_face_is(tape):
    late = replace(plain_track(3, centre=(50, 60), side=40), first_frame=9)
    cost = estimate(tape, analysis_of_file(tape, [late]), load_settings(options=OPTIONS))
    assert isinstance(cost, Estimate)


def test_without_faces_only_frames_cost(tape):
    cost = estimate(tape, analysis_of_file(tape, []), load_settings(options=OPTIONS))
    assert isinstance(cost, Estimate)
    assert cost.seconds_per_face == 0


def test_an_estimate_fetches_nothing_and_says_how_to_get_what_is_missing(tape, monkeypatch):
    def fetch(*_, **__):
        raise AssertionError("nothing may be fetched")

    monkeypatch.setattr("vidrestore.models.weights.fetch", fetch)
    settings = load_settings(options=OPTIONS | {"restore.restorer": "gpen-2048"})
    assert "weights fetch gpen-2048" in estimate(tape, with_people(tape), settings)
    settings = load_settings(options=OPTIONS | {"restore.restorer": "nowhere.pth"})
    assert "nowhere.pth does not exist" in estimate(tape, with_people(tape), settings)


def test_views_are_spread_in_time_and_the_clearest_there():
    track = plain_track(50, centre=(20, 20), side=20)
    score = np.full(50, 0.5, np.float32)
    score[[3, 17, 22, 36, 49]] = 0.9
    places = best_views([replace(track, score=score)], [0], 5)
    assert places == [(0, 3), (0, 17), (0, 22), (0, 36), (0, 49)]
    assert best_views([plain_track(2, centre=(20, 20), side=20)], [0], 5) == [(0, 0), (0, 1)]


def test_a_sheet_shows_everybody_in_rows(tape, tmp_path):
    sheet = tmp_path / "sheet.png"
    write_contact_sheet(with_people(tape), tape, sheet)
    picture = cv2.imread(str(sheet))
    assert picture.shape[0] == 2 * (160 + 24 + 8)
    views = [picture[y : y + 160, x : x + 160] for y in (0, 192) for x in range(168, 1008, 168)]
    assert all(view.std() > 3 for view in views)
    source = cv2.cvtColor(mild_image(*SIZE, "yuv420p", 0).to_ndarray(format="bgr24"), 6)
    assert abs(views[0].mean() - source[40:80, 30:70].mean()) < 25


def test_a_folder_gets_a_picture_of_each(tape, tmp_path):
    analysis = with_people(tape)
    write_contact_sheet(analysis, tape, tmp_path / "who")
    pictures = {path.name: cv2.imread(str(path)) for path in (tmp_path / "who").glob("*.png")}
    assert sorted(pictures) == ["person_1.png", "person_2.png"]
    assert {picture.shape for picture in pictures.values()} == {(160, 160, 3)}
    for person in people_of(analysis):
        assert 0 <= person.clearest_seconds <= as_dict(analysis)["last_frame_seconds"]
    empty = tmp_path / "nobody"
    empty.mkdir()
    write_contact_sheet(analysis_of_file(tape, []), tape, empty)
    assert list(empty.iterdir()) == []


def test_a_dark_face_is_brightened_and_a_bright_one_stays():
    random = np.random.default_rng(0)
    face = np.asarray(0.5 + 0.1 * random.standard_normal((160, 160, 3)), np.float32).clip(0, 1)
    for light, around in ((1.0, 0.0), (0.7, 0.0), (0.3, 0.9), (0.1, 0.0)):
        picture = face * np.float32(light)
        picture[:, :8] = around  # beside the face
        picture[0, 0], picture[0, 1] = 0, 1
        seen = readable(picture)
        median = float(np.median(seen[60:100, 60:100].mean(axis=2)))
        assert (seen is picture) == (light > 0.6)
        assert median == pytest.approx(max(0.3, 0.5 * light), abs=0.02)
        assert (seen[0, 0] == 0).all()
        assert (seen[0, 1] == 1).all()
    black = np.zeros((160, 160, 3), np.float32)
    assert (readable(black) == 0).all()


def test_portraits_are_readable(tmp_path):
    dark = [np.full((120, 160, 3), 25, np.uint8) for _ in range(3)]
    tape = write_video(tmp_path / "dark.mkv", images(dark, "yuv420p"))
    analysis = analysis_of_file(tape, [plain_track(3, centre=(80, 60), side=60)])
    write_contact_sheet(analysis, tape, tmp_path / "who")
    write_contact_sheet(analysis, tape, tmp_path / "who.png")
    alone, sheet = (cv2.imread(str(tmp_path / name)) for name in ("who/person_1.png", "who.png"))
    assert abs(float(alone[80, 80].mean()) - 0.3 * 255) < 3
    assert np.array_equal(sheet[:160, 168:328], alone)


def test_a_sheet_that_cannot_be_made_says_why(tape, tmp_path):
    with pytest.raises(UsageError, match=r"\.png or \.jpg"):
        write_contact_sheet(with_people(tape), tape, tmp_path / "sheet.gif")
    with pytest.raises(UsageError, match="vidrestore found no face"):
        write_contact_sheet(analysis_of_file(tape, []), tape, tmp_path / "sheet.png")
    with pytest.raises(OutputError, match="cannot be written"):
        write_contact_sheet(with_people(tape), tape, tmp_path / "absent" / "sheet.png")


@pytest.mark.parametrize("name", ["sheet.png", "who/person_1.png"])
@pytest.mark.parametrize("old", [None, b"the old one"])
def test_a_full_disk_leaves_the_old_picture_and_no_empty_one(tape, disk, name, old):
    analysis, path = with_people(tape), disk.folder / name
    path.parent.mkdir(exist_ok=True)
    if old is not None:
        path.write_bytes(old)
    disk.remount("size=4k")
    with pytest.raises(OutputError, match="no space is left in"):
        write_contact_sheet(analysis, tape, path if path.parent == disk.folder else path.parent)
    found = [each for each in disk.folder.rglob("*") if each.is_file()]
    assert found == [path] * (old is not None)
    assert all(each.read_bytes() == old for each in found)


def run(capsys, *arguments) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["analyze", *map(str, arguments), "--detector", "haar"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_command_says_it_all(tape, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vidrestore.models.factory.open_detector", lambda *_, **__: OneFace())
    sheet = tmp_path / "sheet.jpg"
    said = run(capsys, tape, "--restorer", "fusion", "--contact-sheet", sheet)
    assert "time with fusion" in said
    assert "(guessed" in said
    assert "turned away" in said
    assert cv2.imread(str(sheet)) is not None
    assert "time with" not in run(capsys, tape, "--restorer", "fusion", "--no-estimate")


def test_the_command_estimates_what_is_chosen(tape, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vidrestore.models.factory.open_detector", lambda *_, **__: OneFace())
    (shots := tmp_path / "shots.toml").write_text('[people.1]\nrestorer = "gpen-2048"\n')
    chosen = run(capsys, tape, "--restorer", "fusion", "--estimate-shots", shots)
    assert "cannot be estimated without the weights gpen-2048" in " ".join(chosen.split())
    other = run(capsys, tape, "--restorer", "fusion", "--people", "3")
    assert "cannot be estimated: there is no person 3" in " ".join(other.split())
    for words, why in (
        (("--people", "1", "--no-estimate"), "remove one of them"),
        (("--people", "x"), "are named by numbers"),
        (("--estimate-shots", shots, "--shots", shots), "is the input itself"),
    ):
        with pytest.raises(SystemExit) as refused:
            main(["analyze", str(tape), *map(str, words)])
        assert refused.value.code == 2
        assert why in " ".join(capsys.readouterr().err.split())


def test_the_command_speaks_json(tape, capsys, monkeypatch):
    monkeypatch.setattr("vidrestore.models.factory.open_detector", lambda *_, **__: OneFace())
    *events, last = map(
        json.loads, run(capsys, tape, "--restorer", "fusion", "--json").splitlines()
    )
    assert {event["event"] for event in events} <= {"progress", "notice", "stages"}
    found = last["analysis"]
    assert (found["frames"], found["faces"], len(found["people"])) == (FRAMES, FRAMES, 1)
    assert found["estimate"]["seconds"] > 0
    (network,) = found["estimate"]["networks"]
    assert (network["restorer"], network["people"], network["faces"]) == ("fusion", [1], FRAMES)
    assert "matrix" in found["guessed"]
