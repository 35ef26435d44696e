"""Analyses on disk: given back exactly, or refused in one sentence."""

import hashlib
import io
import json
import re
from dataclasses import fields, replace
from fractions import Fraction

import numpy as np
import pytest
from helpers.media import analysis_of, info_of, plain_track, random_image, write_video

from vidrestore.analysis import storage
from vidrestore.analysis.alignment import align
from vidrestore.analysis.borders import Margins
from vidrestore.analysis.result import Fields
from vidrestore.analysis.tracks import RawTrack, mean_direction
from vidrestore.common.errors import InputError
from vidrestore.common.settings import Align
from vidrestore.imaging.frame import PictureChange
from vidrestore.imaging.geometry import apply, invert, template, upright
from vidrestore.media.probe import fingerprint, probe
from vidrestore.models.face_mesh import SHAPE_POINTS


def full_analysis():
    """Every field away from its default."""
    random = np.random.default_rng(0)
    tracks = []
    for i in range(3):
        track = plain_track(7 + i, centre=(20, 20), side=19.3, first_frame=i, track_id=i)
        embedding = mean_direction([random.normal(size=8)]) if i else None
        score = random.random(7 + i).astype(np.float32)
        track = replace(track, score=score, embedding=embedding, person_id=2)
        if i != 1:
            points = random.random((7 + i, len(SHAPE_POINTS), 2)).astype(np.float16)
            angles = random.uniform(-90, 90, (7 + i, 2)).astype(np.float32)
            track = replace(track, shapes=points, angles_degrees=angles)
        tracks.append(track)
    info = info_of(
        64, 48, display_matrix=(0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30), transfer="pq",
        mastering_display=tuple(Fraction(i + 1, 50000) for i in range(10)),
        content_light=(1000, 400), guessed=frozenset({"matrix", "range"}),
    )  # fmt: skip
    own = Fields("keep", "bff", info, np.arange(6), random.integers(0, 1 << 32, 6, np.uint32))
    return replace(
        analysis_of(info, 12, tracks),
        fields=own,
        crc32=random.integers(0, 1 << 32, 12).astype(np.uint32),
        shots=((0, 5), (5, 12)), skipped={"too small": 3}, corrupt_frames=1, decode_errors=2,
        repaired_times=3, detector_errors=4, one_thread=True, coarse_landmarks=True,
        detector="yunet", template="ffhq", fingerprint="f" * 64, people_are_joined=True,
        margins=Margins(1, 2, 3, 4, 2), fitted_frames=2, reduced_frames=1,
        changes=(PictureChange(5, "shape", "32 x 24 in yuv420p"),),
    )  # fmt: skip


def same(a, b):
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a) if f.init)
    return a == b


def test_an_analysis_comes_back_to_the_last_bit(tmp_path):
    analysis = full_analysis()
    # Only the analysis of an enlarged source has `decoded`, and it is never kept.
    defaults = {f.name: f.default for f in fields(analysis) if f.init and f.name != "decoded"}
    for name, default in defaults.items():
        assert getattr(analysis, name) is not default, f"{name} proves nothing"
    storage.save(analysis, tmp_path / "a.npz")
    assert same(storage.load(tmp_path / "a.npz"), analysis)
    empty = replace(analysis_of(info_of(64, 48), 3, []))
    storage.save(empty, tmp_path / "b.npz")
    assert same(storage.load(tmp_path / "b.npz"), empty)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_what_is_no_analysis_is_refused(tmp_path, content):
    path = tmp_path / "a.npz"
    storage.save(full_analysis(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(InputError, match="analyze again"):
        storage.load(path)
    with pytest.raises(InputError, match="does not exist"):
        storage.load(tmp_path / "none.npz")


def test_an_analysis_of_another_video_is_refused(tmp_path):
    videos = [
        write_video(tmp_path / f"{i}.mkv", [random_image(64, 48, "yuv420p", i)]) for i in (1, 2)
    ]
    analysis = replace(full_analysis(), fingerprint=fingerprint(videos[0]))
    storage.check_source(analysis, probe(videos[0]), "a.npz")
    copy = tmp_path / "copy.mkv"
    copy.write_bytes(videos[0].read_bytes())
    storage.check_source(analysis, probe(copy), "a.npz")
    with pytest.raises(InputError, match=r"a\.npz belongs to another video"):
        storage.check_source(analysis, probe(videos[1]), "a.npz")


def resealed(path, change):
    """The file with other content, and a seal that fits it, as whoever means harm would write."""
    with np.load(path) as stored:
        arrays = dict(stored)
    header = json.loads(str(arrays["header"]))
    change(header, arrays)
    arrays["header"] = np.array(json.dumps(header))
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    seal(path, packed.getvalue())


def seal(path, content):
    path.write_bytes(content + b"\nsha256 " + hashlib.sha256(content).hexdigest().encode())


def small_analysis():
    """The smallest file with something of everything: each of its bits can be tried."""
    track = plain_track(2, centre=(20, 20), side=19.3)
    track = replace(track, embedding=mean_direction([np.ones(2)]))
    return replace(analysis_of(info_of(64, 48), 2, [track]), fingerprint="f" * 64)


def refusal(path):
    """What is said of a file that is refused; None where it is read."""
    said = None
    try:
        storage.load(path)
    except InputError as error:
        said = str(error)
    assert "\n" not in (said or "")
    return said


def flips(path, every):
    whole = path.read_bytes()
    for bit in every(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        yield bit
    path.write_bytes(whole)


def some(count):
    return sorted(np.random.default_rng(5).choice(count, 600, replace=False).tolist())


@pytest.mark.parametrize("every", [some, pytest.param(range, marks=pytest.mark.long)])
def test_every_flipped_bit_is_noticed(tmp_path, every):
    path = tmp_path / "a.npz"
    storage.save(small_analysis(), path)
    for bit in flips(path, every):
        assert refusal(path) is not None, bit
    assert refusal(path) is None


def test_content_that_no_reader_bears_is_refused_whatever_its_seal_says(tmp_path):
    """The seal is made anew after each flip, so that what is behind it is met."""
    path = tmp_path / "a.npz"
    storage.save(small_analysis(), path)
    whole = path.read_bytes()
    content = whole[: whole.rindex(b"\nsha256 ")]
    refused = 0
    for bit in some(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        seal(path, bytes(damaged))
        refused += refusal(path) is not None
    assert refused > 100
    for other in (b"", b"PK", b"x" * 500, content[:300]):
        seal(path, other)
        assert "not an analysis, or is damaged" in refusal(path)


def test_an_analysis_without_a_seal_is_called_one_of_another_version(tmp_path):
    path = tmp_path / "a.npz"
    storage.save(small_analysis(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"\nsha256 ")])
    assert "another version" in refusal(path)
    storage.save(small_analysis(), path)
    resealed(path, lambda header, arrays: header.update(version=2))
    assert "another version" in refusal(path)


def in_array(name, value, at=...):
    def change(header, arrays):
        arrays[name] = arrays[name].copy()
        arrays[name][at] = value

    return change


def in_header(name, value):
    def change(header, arrays):
        header[name] = value

    return change


def in_info(name, value):
    def change(header, arrays):
        header["info"][name] = value

    return change


def without(name):
    return lambda header, arrays: arrays.pop(name)


def as_type(name, dtype):
    def change(header, arrays):
        arrays[name] = arrays[name].astype(dtype)

    return change


def turned_by(linear):
    """The crops of the first track, seen through that in the unit crop."""

    def change(header, arrays):
        arrays["matrices"] = arrays["matrices"].copy()
        arrays["matrices"][:7] = np.float32(linear) @ arrays["matrices"][:7]

    return change


def as_film(sources):
    """Ten pictures of film, made of the given fields of twelve frames."""

    def change(header, arrays):
        header["fields"]["mode"] = "film"
        arrays["file_pts"], arrays["file_crc32"] = np.arange(15), np.zeros(15, np.uint32)
        arrays["file_sources"] = np.array(sources, np.int64)

    return change


FILM = [(at, at + (at % 4 == 1)) for at in range(12)]


def of_fields(name, value):
    def change(header, arrays):
        header["fields"][name] = value

    return change


NONSENSE = {
    "matrices that are no numbers": in_array("matrices", np.nan),
    "one matrix that is no number": in_array("matrices", np.inf, (3, 0, 1)),
    "matrices of 1e30": in_array("matrices", 1e30),
    "a matrix of 1e30": in_array("matrices", 1e30, (0, 0, 0)),
    "matrices of zeros": in_array("matrices", 0),
    "a face far away": in_array("matrices", 1e9, (0, 0, 2)),
    "landmarks that are no numbers": in_array("landmarks", np.nan, (1, 1, 1)),
    "landmarks far away": in_array("landmarks", -1e20, (1, 1, 1)),
    "scores that are no numbers": in_array("score", np.nan, 2),
    "a score above one": in_array("score", 1.5, 3),
    "a score below zero": in_array("score", -0.25, 3),
    "scores of a whole number": in_array("score", 100),
    "a sheared crop": turned_by([[1, 0.2], [0, 1]]),
    "an oblong crop": turned_by([[1, 0], [0, 1.3]]),
    "a mirrored crop": turned_by([[-1, 0], [0, 1]]),
    "a crop that is a line": turned_by([[1, 0], [0, 0]]),
    "a crop that is nearly a line": turned_by([[1, 1], [1, 1.0000001]]),
    "a matrix of one row": in_array("matrices", 0, (0, 1)),
    "a matrix that is no number": in_array("matrices", np.nan, (5, 1, 2)),
    "film out of order": as_film(FILM[:4] + FILM[6:7] + FILM[4:6] + FILM[7:]),
    "film that stands still": as_film([(0, 0)] * 12),
    "film of fields far apart": as_film([(at, 14 - at) for at in range(12)]),
    "film of frames that are not there": as_film([(at + 9, at + 9) for at in range(12)]),
    "film of frames before the first": as_film([(at - 1, at) for at in range(12)]),
    "times out of order": in_array("pts", [2048, 1536], slice(3, 5)),
    "shots out of order": in_header("shots", [[5, 12], [0, 5]]),
    "shots that begin before the first frame": in_header("shots", [[-3, 5], [5, 12]]),
    "strengths above one": in_array("strength", 1.5, 0),
    "strengths below zero": in_array("strength", -0.5, 0),
    "strengths that are no numbers": in_array("strength", np.nan, 0),
    "a track that begins at frame -5": in_array("first_frame", -5, 0),
    "a track that ends behind the end": in_array("first_frame", 11, 0),
    "a track without number": in_array("track_id", -1, 0),
    "two tracks of one number": in_array("track_id", 1),
    "nobody": in_array("person_id", 0, 0),
    "a work size that is none": in_array("work_px", 100, 0),
    "a work size of one pixel": in_array("work_px", 1, 0),
    "a work size without bound": in_array("work_px", 1 << 40, 0),
    "an embedding of no direction": in_array("embedding", 0),
    "an embedding that is no number": in_array("embedding", np.nan),
    "times that stand still": in_array("pts", 0),
    "times that run back": in_array("pts", -1, 3),
    "times of the file that run back": in_array("file_pts", -1, 3),
    "lengths that are negative": in_array("lengths", -1, 0),
    "lengths that are too long": in_array("lengths", 1 << 40, 0),
    "lengths that fit no row": in_array("lengths", 6, 0),
    "no times": without("pts"),
    "no checksums": without("crc32"),
    "no strengths": without("strength"),
    "no embeddings": without("embedding"),
    "times of another type": as_type("pts", np.float64),
    "checksums of another type": as_type("crc32", np.int64),
    "tracks that begin at halves": as_type("first_frame", np.float64),
    "strengths of another type": as_type("strength", np.float64),
    "shots that do not cover all": in_header("shots", []),
    "a shot without frames": in_header("shots", [[0, 5], [5, 5], [5, 12]]),
    "shots that run back": in_header("shots", [[0, 9], [9, 5], [5, 12]]),
    "shots of texts": in_header("shots", "0-12"),
    "counts of texts": in_header("corrupt_frames", "3"),
    "counts below zero": in_header("decode_errors", -3),
    "yes for a switch": in_header("one_thread", "yes"),
    "faces left out below zero": in_header("skipped", {"too small": -3}),
    "faces left out by text": in_header("skipped", {"too small": "3"}),
    "an unknown template": in_header("template", "other"),
    "no fingerprint": in_header("fingerprint", 5),
    "margins below zero": in_header("margins", {"left_px": -1}),
    "margins of all": in_header("margins", {"left_px": 40, "right_px": 40}),
    "margins of texts": in_header("margins", {"left_px": "1"}),
    "other margins": in_header("margins", {"middle_px": 1}),
    "no picture": in_info("width", 0),
    "a width below zero": in_info("width", -64),
    "a height that is a fraction": in_info("height", 48.5),
    "a width that is a switch": in_info("width", True),
    "a stream below zero": in_info("stream_index", -1),
    "a duration without end": in_info("duration_seconds_from_header", float("inf")),
    "a curve that is no number": in_info("curve", [[0.0, float("nan"), 1.0]]),
    "a rate below zero": in_info("frame_rate", "-25"),
    "a shape of pixels of thousands of digits": in_info("sample_aspect_ratio", "9" * 5000),
    "a key of its own in the picture": in_info("more", 1),
    "a key of its own": in_header("more", 1),
    "a count of thousands of digits": in_header("decode_errors", 10**4000),
    "frames of thousands of digits": in_info("frame_count_from_header", 10**4000),
    "a clock of hundreds of digits": in_info("time_base", "1/" + "9" * 300),
    "light of hundreds of digits": in_info("content_light", [10**300, 400]),
    "a count that is a fraction": in_header("decode_errors", 1.5),
    "a margin without end": in_header("margins", {"left_px": float("inf")}),
    "a margin that is a fraction": in_header("margins", {"left_px": 0.5}),
    "a key of its own in the fields": of_fields("more", 1),
    "a picture of texts": in_info("width", "64"),
    "a picture that is too large": in_info("height", 1 << 40),
    "no rate": in_info("frame_rate", "0"),
    "a rate over zero": in_info("frame_rate", "1/0"),
    "a rate of text": in_info("frame_rate", "fast"),
    "a duration that is no number": in_info("duration_seconds_from_header", float("nan")),
    "no turn": in_info("display_orientation", [1, 1, 1, 1]),
    "a long turn": in_info("display_orientation", [2, 0, 0, 2]),
    "an unknown matrix": in_info("matrix", "bt2021"),
    "deep nesting": in_header("skipped", [[[[[[[]]]]]]]),
    "an unknown word": in_info("color", "red"),
    "an unknown kind of fields": of_fields("mode", "other"),
    "an unknown order of fields": of_fields("order", "other"),
    "fields of fewer frames": of_fields("mode", "frame"),
    "film without sources": of_fields("mode", "film"),
    "another info": of_fields("info", {}),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_values_that_no_analysis_has_are_refused(tmp_path, name):
    path = tmp_path / "a.npz"
    storage.save(full_analysis(), path)
    assert refusal(path) is None
    resealed(path, lambda header, arrays: None)
    assert refusal(path) is None
    resealed(path, NONSENSE[name])
    assert re.search("damaged|makes no sense", refusal(path))


def test_film_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "a.npz"
    storage.save(full_analysis(), path)
    resealed(path, as_film(FILM))
    fields_of_film = storage.load(path).fields
    assert fields_of_film.sources.tolist() == [list(pair) for pair in FILM]


@pytest.mark.parametrize("turn", [[[0.8, -0.6], [0.6, 0.8]], [[3, 0], [0, 3]], [[0, -1], [1, 0]]])
def test_a_crop_that_is_turned_and_scaled_is_one(tmp_path, turn):
    path = tmp_path / "a.npz"
    storage.save(full_analysis(), path)
    resealed(path, turned_by(turn))
    assert refusal(path) is None


@pytest.mark.parametrize("orientation", [(1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, 1)])
@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(64, 45), Fraction(8, 9)])
def test_crops_as_alignment_makes_them_are_read(tmp_path, orientation, aspect):
    """In pictures that lie on their side, are mirrored, or have oblong pixels."""
    info = info_of(720, 576, display_orientation=orientation, sample_aspect_ratio=aspect)
    random = np.random.default_rng(3)
    points = template("gpen") * 80 + [200, 300] + random.normal(0, 3, (9, 5, 2))
    seen = apply(invert(upright(info).matrix), points).astype(np.float32)
    raw = RawTrack(0, (0, 9), seen, np.full(9, 0.75, np.float32))
    analysis = analysis_of(
        info, 9, align([raw], info, Align(smoothness=1.0), template_name="gpen", coarse=False)
    )
    storage.save(analysis, tmp_path / "a.npz")
    assert same(storage.load(tmp_path / "a.npz"), analysis)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (in_info("width", "64"), "info.width: input should be a valid integer"),
        (in_header("more", 1), "more: extra inputs are not permitted"),
        (in_header("decode_errors", -3), "decode_errors: input should be greater than or equal"),
        (in_header("margins", {"left_px": -1}), "a margin is negative"),
        (in_info("width", 0), "width and height must be at least 1 pixel, not 0 x 48"),
        (in_array("score", 1.5, 3), "a score of track 0 is not from 0 to 1"),
        (turned_by([[1, 0.2], [0, 1]]), "the crop of track 0 is sheared"),
        (in_array("shapes", np.nan, (3, 4, 0)), "the mesh of track 0 is far outside its crop"),
        (in_array("shapes", 300, (8, 4, 0)), "the mesh of track 2 is far outside its crop"),
        (in_array("angles_degrees", 181, (3, 0)), "an angle of track 0 is impossible"),
    ],
)
def test_the_sentence_names_what_cannot_be(tmp_path, change, reason):
    path = tmp_path / "a.npz"
    storage.save(full_analysis(), path)
    resealed(path, change)
    assert f"makes no sense, {reason}" in refusal(path)
    assert refusal(path).endswith("; analyze again")


def test_no_folder_and_no_pickle_is_an_analysis(tmp_path):
    folder = tmp_path / "folder.npz"
    folder.mkdir()
    assert "is a folder" in refusal(folder)
    path = tmp_path / "a.npz"
    storage.save(full_analysis(), path)

    def pickled(header, arrays):
        arrays["pts"] = np.array([print], object)

    resealed(path, pickled)
    assert "damaged" in refusal(path)
