"""Faces that the mesh confirms and follows: turned heads, false faces, and clips on a side."""

import json
from dataclasses import replace
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest
from helpers.media import info_of, write_video
from helpers.scenes import composed
from skimage import data

from vidrestore.analysis.detection import FirstLook, close_gaps, detect
from vidrestore.analysis.mesh_tracking import MeshTracker, Pictures, look_at_angles, score_of
from vidrestore.api import analyze_video
from vidrestore.common.errors import UsageError
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Detect
from vidrestore.imaging.frame import Frame
from vidrestore.imaging.geometry import apply, fit_similarity, invert, template
from vidrestore.models.detectors import Detection, Detector, detection
from vidrestore.models.face_mesh import FaceMesh, Mesh, square_of_landmarks
from vidrestore.models.factory import open_detector

EYES_PX = 60
TURNS_DEGREES = (30, 45, 60, 90, 120, 150, 180)


def detector_of(shared, kind):
    models = shared / "models"
    where = {"yunet": models / "face_detection_yunet_2023mar.onnx",
             "det_only": models / "insightface" / "models" / "det_only"}  # fmt: skip
    return open_detector(Detect(detector=kind, pack="det_only"), find_weights=where.__getitem__)


@pytest.fixture(scope="module")
def mesh_file(shared):
    file = shared / "models" / "face_landmark.tflite"
    if not file.exists():
        pytest.skip(f"there is no face mesh in {file.parent}")
    return file


def frame_of(picture, index):
    image = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
    return Frame(index, index * 51200, image)  # four seconds apart, so that each is searched


def faces_of(pictures, detector, mesh_file, **how):
    """The faces of pictures of one size, as pass one finds them, in pixels of the pictures."""
    height, width = pictures[0].shape[:2]
    info, settings = info_of(width, height, "gbrp"), Detect(**how)
    first = FirstLook(detector, info, settings)
    frames = (frame_of(picture, index) for index, picture in enumerate(pictures))
    meshes = MeshTracker(FaceMesh(mesh_file), least_score=detector.least_score)
    seen = detect(map(first, frames), detector, info, settings, meshes=meshes)
    return [observation.detections for _, observation in seen]


def portraits(shared, count):
    """Upright pictures of one head each, and its landmarks; 60 px between the eyes."""
    folder = shared / "real-restorers" / "solvay"
    files = sorted(folder.glob("face*.jpg"))
    if not files:
        pytest.skip(f"there are no pictures in {folder}")
    # GPEN's crops of 512 px have their faces at its template.
    places = template("gpen") * 512 - 0.5
    heads = [(cv2.imread(str(file))[:, 512:], places) for file in files[:count]]
    face = np.array([[200, 102], [247, 103], [220, 125], [199, 143], [240, 144]], float)
    heads.append((np.ascontiguousarray(data.astronaut()[..., ::-1]), face))
    for picture, points in heads:
        scale = EYES_PX / np.linalg.norm(points[1] - points[0])
        matrix = np.array([[scale, 0, 0.5 * scale - 0.5], [0, scale, 0.5 * scale - 0.5]])
        size = [round(side * scale) for side in picture.shape[1::-1]]
        yield cv2.resize(picture, size, interpolation=cv2.INTER_AREA), apply(matrix, points)


def turned(picture, points, degrees):
    """The picture turned clockwise about the face, which comes to the middle; and its points."""
    center = points.mean(axis=0)
    matrix = cv2.getRotationMatrix2D(tuple(center), -degrees, 1)
    matrix[:, 2] += np.array([320, 240]) - center
    whole = cv2.warpAffine(picture, matrix, (640, 480), borderValue=(90, 100, 110))
    return whole, apply(matrix, points)


def roll_degrees(face):
    return float(np.degrees(np.arctan2(*(face.landmarks[1] - face.landmarks[0])[::-1])))


def check_turned_heads(shared, mesh_file, detector, count, degrees):
    for picture, points in portraits(shared, count):
        views = [turned(picture, points, each) for each in (0, *degrees)]
        found = faces_of([view for view, _ in views], detector, mesh_file, any_angle=True)
        rolls = []
        for (_, wanted), faces in zip(views, found, strict=True):
            near = [f for f in faces if np.linalg.norm(f.landmarks.mean(0) - wanted.mean(0)) < 90]
            assert len(near) == 1  # and no second face within a head's size
            assert np.linalg.norm(near[0].landmarks - wanted, axis=1).max() < 0.35 * EYES_PX
            rolls.append(roll_degrees(near[0]))
        for each, roll in zip(degrees, rolls[1:], strict=True):
            assert abs((roll - rolls[0] - each + 180) % 360 - 180) < 3


def test_turned_heads_are_found_at_their_angle(shared, mesh_file):
    check_turned_heads(shared, mesh_file, detector_of(shared, "yunet"), 3, (45, 90, 150, 180))


@pytest.mark.long
@pytest.mark.parametrize(("kind", "count"), [("yunet", 29), ("insightface", 5)])
@pytest.mark.parametrize("sign", [1, -1])
def test_all_turned_heads_are_found_at_their_angle(shared, mesh_file, kind, count, sign):
    turns = [sign * degrees for degrees in TURNS_DEGREES]
    check_turned_heads(shared, mesh_file, detector_of(shared, kind), count, turns)


@pytest.mark.parametrize("kind", ["yunet", "insightface"])
def test_small_faces_are_aligned_as_the_authors_align_them(shared, mesh_file, kind):
    folder = shared / "real-restorers"
    if not (folder / "gpen_solvay_matrices.json").exists():
        pytest.skip(f"there are no pictures in {folder}")
    picture = cv2.imread(str(folder / "solvay" / "source.png"))
    (faces,) = faces_of([picture], detector_of(shared, kind), mesh_file)
    places = template("gpen") * 512 - 0.5
    errors = []
    for matrix in json.loads((folder / "gpen_solvay_matrices.json").read_text()).values():
        wanted = apply(invert(np.array(matrix)), places)
        near = min(faces, key=lambda face: np.linalg.norm(face.landmarks - wanted))
        own = fit_similarity(near.landmarks[None].astype(float), places)[0]
        errors.append(np.linalg.norm(apply(own, wanted) - places, axis=1).mean())
    assert len(errors) == 29
    assert np.mean(errors) < 5.5
    assert max(errors) < 14


def settings_for(shared, **options):
    return load_settings(
        options={"detect.detector": "yunet", "detect.remember": False,
                 "weights.also": [str(shared / "models")], **options}
    )  # fmt: skip


def clip_of(path, pictures):
    images = [
        av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="bgr24")
        for picture in pictures
    ]
    for image in images:
        assert image.format.name == "bgr24"
    return write_video(path, [image.reformat(format="bgr0") for image in images])


def frames_of_clip(path, first, count):
    if not path.exists():
        pytest.skip(f"there is no {path}")
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index >= first + count:
                break
            if index >= first:
                yield frame.to_ndarray(format="bgr24")


def size_of(track):
    """(n,) the height of the face, chin to forehead, in pixels."""
    points = track.shapes.astype(float)
    sides = 1 / np.sqrt(np.abs(np.linalg.det(track.matrices[:, :, :2].astype(float))))
    return (points.max(axis=1) - points.min(axis=1)).max(axis=1) * sides


def one_track(path, shared, pictures):
    (track,) = analyze_video(clip_of(path, pictures), settings_for(shared)).tracks
    return track


def turned_crops(tmp_path, shared, upright, turns, wanted):
    """The largest distance, in each frame, of the crops of a turned clip from the upright clip's,
    whose track is `wanted`, in pixels at 512."""
    height, width = upright[0].shape[:2]
    on_side = [np.rot90(picture, turns) for picture in upright]
    found = one_track(tmp_path / "side.mkv", shared, on_side)
    assert (found.first_frame, found.end_frame) == (wanted.first_frame, wanted.end_frame)
    assert found.strength == pytest.approx(wanted.strength, abs=0.02)
    turn = np.array({1: [[0, 1, 0], [-1, 0, width - 1]],
                     2: [[-1, 0, width - 1], [0, -1, height - 1]]}[turns], float)  # fmt: skip
    grid = np.stack(np.meshgrid([0.2, 0.5, 0.8], [0.2, 0.5, 0.8]), axis=-1).reshape(-1, 2)
    places = (
        apply(now, apply(turn, apply(invert(was), grid)))
        for was, now in zip(
            wanted.matrices.astype(float), found.matrices.astype(float), strict=True
        )
    )
    return [np.linalg.norm(at - grid, axis=1).max() * 512 for at in places]


@pytest.mark.parametrize(
    ("clip", "first"), [("real-restorers/zz_none_dain_50fps.mp4", 0), ("clips/lp_s18.mp4", 40)]
)
def test_a_clip_on_its_side_gets_the_crops_of_the_upright_clip(
    tmp_path, shared, mesh_file, clip, first
):
    upright = [
        cv2.resize(p, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
        for p in frames_of_clip(shared / clip, first, 14)
    ]
    wanted = one_track(tmp_path / "upright.mkv", shared, upright)
    for turns in (1, 2):
        assert max(turned_crops(tmp_path, shared, upright, turns, wanted)) < 1, turns


@pytest.mark.long
@pytest.mark.parametrize(("first", "count"), [(82, 38), (120, 60), (180, 31)])
def test_a_moving_singer_on_his_side_gets_the_crops_of_the_upright_clip(
    tmp_path, shared, mesh_file, first, count
):
    """A dark picture, 34 px between the eyes, hands before the face."""
    upright = list(frames_of_clip(shared / "clips" / "hamilton_short.mp4", first, count))
    wanted = one_track(tmp_path / "upright.mkv", shared, upright)
    for turns in (1, 2):
        off = turned_crops(tmp_path, shared, upright, turns, wanted)
        assert max(off) < 1, turns
        assert np.mean(off) < 0.4, turns


def check_tracks(analysis, is_true_pair=lambda frame, a, b: False):
    """No two tracks lie on one head, unless there are two, and no strength jumps."""
    for track in analysis.tracks:
        assert np.abs(np.diff(track.strength)).max(initial=0) <= 0.15 + 1e-6
    for i, one in enumerate(analysis.tracks):
        for other in analysis.tracks[i + 1 :]:
            both = range(
                max(one.first_frame, other.first_frame), min(one.end_frame, other.end_frame)
            )
            for frame in both:
                a, b = (t.landmarks[frame - t.first_frame].mean(axis=0) for t in (one, other))
                sizes = [size_of(t)[frame - t.first_frame] for t in (one, other)]
                used = [t.strength[frame - t.first_frame] > 0 for t in (one, other)]
                if is_true_pair(frame, a, b) or not all(used):
                    continue
                assert np.linalg.norm(a - b) >= 0.8 * min(sizes)


def panned(picture, count=16, width=480, height=360):
    """A slow pan over a picture."""
    room = picture.shape[1] - width, picture.shape[0] - height
    for i in range(count):
        share = i / (count - 1)
        x, y = (round(share * min(side, 24)) for side in room)
        yield picture[y : y + height, x : x + width]


def empty_scenes():
    """Photographs without faces, at several sizes."""
    for name in ("coffee", "chelsea", "rocket", "brick", "grass", "gravel", "retina", "colorwheel"):
        try:
            picture = np.asarray(getattr(data, name)())
        except Exception:  # pictures that the package would download
            continue
        picture = picture if picture.ndim == 3 else np.dstack([picture] * 3)
        yield cv2.resize(np.ascontiguousarray(picture[..., 2::-1]), (520, 400))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["yunet", pytest.param("insightface", marks=pytest.mark.long)])
def test_what_is_no_face_makes_no_track(tmp_path, shared, mesh_file, kind):
    """The cat is none, and neither are cups, bricks and grass, even for an eager detector."""
    eager = {"detect.detector": kind, "detect.pack": "det_only", "detect.yunet_score": 0.3,
             "detect.score": 0.2, "detect.any_angle": True}  # fmt: skip
    scenes = list(empty_scenes())
    assert len(scenes) >= 5
    pictures = [view for scene in scenes for view in panned(scene, 2)]
    clip = clip_of(tmp_path / "empty.mkv", pictures)
    assert analyze_video(clip, settings_for(shared, **eager)).tracks == ()


@pytest.mark.long
def test_hair_and_ears_are_no_faces_of_their_own(tmp_path, shared, mesh_file):
    """A group of six and a portrait with an eager detector: each head is one track."""
    from insightface.data import get_image

    group = cv2.resize(get_image("t1"), (1024, 708), interpolation=cv2.INTER_AREA)
    portrait = np.ascontiguousarray(data.astronaut()[..., ::-1])
    eager = settings_for(shared, **{"detect.yunet_score": 0.3})
    for picture, width, height, people in (
        (group, 1000, 690, 6), (portrait, 480, 480, 1)
    ):  # fmt: skip
        clip = clip_of(tmp_path / "clip.mkv", panned(picture, 12, width, height))
        analysis = analyze_video(clip, eager)
        assert len(analysis.tracks) == people
        assert all(len(track.matrices) == 12 for track in analysis.tracks)
        check_tracks(analysis)


def check_scene(tmp_path, shared, seed):
    scene = composed(seed)
    count = scene.frame_count
    clip = clip_of(tmp_path / "scene.mkv", [scene.picture(index) for index in range(count)])
    analysis = analyze_video(clip, settings_for(shared))
    false, lost, seen, known = 0, 0, 0, set()
    for index in range(count):
        if index in scene.starts:
            known.clear()
        truth = scene.truth(index)
        here = [t for t in analysis.tracks if t.first_frame <= index < t.end_frame]
        for number, person in truth.items():
            eyes = np.linalg.norm(person.landmarks[1] - person.landmarks[0])
            at = [t.landmarks[index - t.first_frame] for t in here]
            near = [np.linalg.norm(a - person.landmarks, axis=1).mean() < 0.5 * eyes for a in at]
            # While another face comes or goes in front of it, a face may be lost for a moment.
            near_by = range(max(index - 4, 0), min(index + 5, count))
            around = [scene.truth(i).get(number) for i in near_by]
            if all(each is not None and each.visible > 0.9 for each in around):
                seen += 1
                lost += number in known and not any(near)
            known |= {number} if any(near) else set()
        for track in here:
            middle = track.landmarks[index - track.first_frame].mean(axis=0)
            boxes = [person.box for person in truth.values()]
            inside = [(b[:2] <= middle).all() and (middle <= b[2:]).all() for b in boxes]
            false += not any(inside)

    def is_true_pair(frame, *middles):
        """Whether two faces of the scene are there, which may pass each other closely."""
        centers = np.array([p.landmarks.mean(axis=0) for p in scene.truth(frame).values()])
        nearest = [int(np.linalg.norm(centers - middle, axis=1).argmin()) for middle in middles]
        return nearest[0] != nearest[1]

    check_tracks(analysis, is_true_pair)
    return false, lost, seen


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 14))]
)
def test_a_composed_scene_has_no_false_and_no_lost_faces(tmp_path, shared, mesh_file, seed):
    false, lost, seen = check_scene(tmp_path, shared, seed)
    assert false == 0
    assert lost == 0
    assert seen > 150


def test_a_face_that_the_detector_loses_is_followed(shared, mesh_file):
    """The head turns over while the detector sees only its upright beginning."""
    ((picture, points),) = portraits(shared, 0)
    views = [turned(picture, points, 6 * index) for index in range(31)]
    real = detector_of(shared, "yunet")

    class Forgetful(Detector):
        least_score = 0.7
        calls = 0

        def __call__(self, picture):
            self.calls += 1
            return real(picture) if self.calls == 1 else []

    height, width = views[0][0].shape[:2]
    info, settings = info_of(width, height, "gbrp"), Detect()
    detector = Forgetful()
    first = FirstLook(detector, info, settings)
    frames = (Frame(i, i * 512, frame_of(view, i).image) for i, (view, _) in enumerate(views))
    meshes = MeshTracker(FaceMesh(mesh_file), least_score=0.7)
    for (_, wanted), (_, seen) in zip(
        views, detect(map(first, frames), detector, info, settings, meshes=meshes), strict=True
    ):
        (face,) = seen.detections
        assert np.linalg.norm(face.landmarks - wanted, axis=1).max() < 0.35 * EYES_PX


def test_the_detector_sees_a_followed_face_only_where_it_is_lost(shared, mesh_file):
    ((portrait, points),) = portraits(shared, 0)
    portrait = cv2.resize(portrait, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    height, width = portrait.shape[:2]
    hidden = 4
    pictures = []
    for index in range(10):
        picture = np.full((3 * height, 3 * width, 3), 128, np.uint8)
        picture[height : 2 * height, width + index : 2 * width + index] = portrait
        if index == hidden:
            x, y = points.mean(axis=0) / 2 + (width + index, height)
            cv2.circle(picture, (round(x), round(y)), EYES_PX, (128, 128, 128), cv2.FILLED)
        pictures.append(picture)
    real = detector_of(shared, "yunet")

    class Noted(Detector):
        least_score = real.least_score

        def __init__(self):
            self.seen = []

        def __call__(self, picture):
            return self.with_hint(picture)[0]

        def with_hint(self, picture):
            shown = [index for index, own in enumerate(pictures) if np.array_equal(own, picture)]
            self.seen += shown  # not those that a second look makes smaller
            return real.with_hint(picture)

    info = info_of(3 * width, 3 * height, "gbrp")
    settings = Detect(size_px=1024)  # no less than the pictures
    first, later = Noted(), Noted()
    looks = FirstLook(first, info, settings, apart=3)
    frames = (
        replace(frame_of(picture, index), pts=512 * index) for index, picture in enumerate(pictures)
    )
    needed = close_gaps(map(looks, frames), most_ticks=2000, cut=12.0, follows=True)
    meshes = MeshTracker(FaceMesh(mesh_file), least_score=first.least_score)
    seen = detect(map(looks.closed, needed), later, info, settings, meshes=meshes)
    found = [len(observation.detections) for _, observation in seen]
    assert found == [0 if index == hidden else 1 for index in range(10)]
    assert first.seen == [0, 3, 6, 9]
    assert later.seen == [hidden, hidden + 1]


class Claims(Detector):
    """Claims a face of a certain score at a place."""

    def __init__(self, box, score, least_score=0.5):
        x0, y0, x1, y1 = box
        eyes = [
            [x0 + 0.3 * (x1 - x0), y0 + 0.4 * (y1 - y0)],
            [x0 + 0.7 * (x1 - x0), y0 + 0.4 * (y1 - y0)],
        ]
        nose, mouth = (x0 + x1) / 2, y0 + 0.8 * (y1 - y0)
        points = [*eyes, [nose, y0 + 0.6 * (y1 - y0)], [eyes[0][0], mouth], [eyes[1][0], mouth]]
        self.least_score = least_score
        self._face = detection(box, points, score)

    def __call__(self, picture):
        return [self._face]


@pytest.mark.parametrize(("score", "expected"), [(0.53, 0), (0.9, 1)])
def test_a_face_that_no_mesh_confirms_counts_where_the_detector_is_sure(
    shared, mesh_file, score, expected
):
    flat = np.full((240, 320, 3), 60, np.uint8)
    (faces,) = faces_of([flat], Claims((100, 60, 180, 160), score), mesh_file)
    assert len(faces) == expected
    assert all(face.shape is None and face.score == pytest.approx(score) for face in faces)


class Shrinking(FaceMesh):
    """Sees a face of 100 px, whose mesh is smaller than the square; and counts its looks."""

    def __init__(self, logit):
        self.looks, self._logit = 0, logit

    def look(self, picture, square):
        self.looks += 1
        share = 0.85 * square.side_px / 1.5
        across = np.linspace(-0.35, 0.35, 468)
        points = np.zeros((468, 3), np.float32)
        points[:, 0], points[:, 1] = share * across, share * np.linspace(-0.5, 0.5, 468)
        eyes = {33: (-0.3, -0.2), 133: (-0.1, -0.2), 362: (0.1, -0.2), 263: (0.3, -0.2)}
        for number, place in {**eyes, 1: (0, 0.1), 61: (-0.2, 0.3), 291: (0.2, 0.3)}.items():
            points[number, :2] = np.multiply(share, place)
        points[:, :2] += (140, 110)
        logit = self._logit if square.side_px > 100 else -5.0
        return Mesh(points, logit)


@pytest.mark.parametrize(("logit", "has_mesh"), [(6.0, True), (1.0, True), (-1.0, False)])
def test_a_mesh_that_would_shrink_keeps_the_size_that_the_detector_saw(logit, has_mesh):
    detector, network = Claims((100, 60, 180, 160), 0.9), Shrinking(logit)
    info, settings = info_of(320, 240, "gbrp"), Detect()
    flat = np.full((240, 320, 3), 60, np.uint8)
    frames = (replace(frame_of(flat, index), pts=512 * index) for index in range(12))
    first = FirstLook(detector, info, settings)
    meshes, looks, faces = MeshTracker(network, least_score=0.5), [], []
    for _, observation in detect(map(first, frames), detector, info, settings, meshes=meshes):
        looks.append(network.looks)
        faces += observation.detections
    assert len(faces) == 12
    assert all(face.score >= 0.85 for face in faces)
    assert all((face.shape is not None) == has_mesh for face in faces)
    if has_mesh:
        assert np.ptp([face.box for face in faces], axis=0).max() < 0.1
        assert np.diff(looks)[1:].tolist() == [1] * 10


def test_what_was_no_face_at_any_angle_is_searched_again_only_after_some_frames(monkeypatch):
    flat = np.full((240, 320, 3), 60, np.uint8)
    network, searched = Shrinking(-9.0), []
    monkeypatch.setattr(network, "find", lambda *_, **__: searched.append(frame))
    meshes = MeshTracker(network, least_score=0.5)
    face = Claims((100, 60, 180, 160), 0.9)(flat)
    for frame in range(12):
        meshes.begin()
        meshes.confirm(Pictures(flat), face, thorough=frame in (0, 2, 4, 10))
    assert searched == [0, 6]


@pytest.mark.parametrize(
    ("logit", "looks"),
    [(-9.0, [1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0]), (-2.0, [2, 2, 2, 0, 0, 2, 0, 0, 2, 0, 0, 2])],
)
def test_what_is_hardly_a_face_gets_one_look_in_six_frames(monkeypatch, logit, looks):
    flat = np.full((240, 320, 3), 60, np.uint8)
    network, seen = Shrinking(logit), []
    monkeypatch.setattr(network, "find", lambda *_, **__: None)
    meshes = MeshTracker(network, least_score=0.5)
    face = Claims((100, 60, 180, 160), 0.9)(flat)
    for frame in range(len(looks)):
        before = network.looks
        meshes.begin()
        meshes.confirm(Pictures(flat), face, thorough=frame == 0)
        seen.append(network.looks - before)
    assert seen == looks


def test_a_sure_claim_on_the_head_of_another_face_is_dropped(shared, mesh_file):
    portrait = np.ascontiguousarray(data.astronaut()[..., ::-1])
    yunet = detector_of(shared, "yunet")

    class Both(Detector):
        least_score = 0.5

        def __call__(self, picture):
            x0, y0, x1, y1 = yunet(picture)[0].box
            return [*yunet(picture), *Claims((x0, y0 - 30, x1, y1 - 60), 0.95)(picture)]

    (faces,) = faces_of([portrait], Both(), mesh_file)
    assert len(faces) == 1
    assert faces[0].shape is not None


@pytest.mark.parametrize("degrees", [0.0, 45.0, 90.0, 180.0, 270.0, 33.0])
def test_detections_in_a_turned_picture_come_back(degrees):
    """A detector that finds the one bright pixel of the turned picture finds its place."""
    picture = np.zeros((90, 160, 3), np.uint8)
    picture[28:33, 118:123] = 255

    class Brightest(Detector):
        def __call__(self, picture):
            weight = picture[..., 0].astype(float)
            total = weight.sum()
            y, x = (
                float((weight.sum(axis=1 - axis) @ np.arange(weight.shape[axis])) / total)
                for axis in (0, 1)
            )
            return [Detection(np.array([x - 9, y - 9, x + 9, y + 9], np.float32),
                              np.full((5, 2), (x, y), np.float32), 0.5)]  # fmt: skip

    (face,) = look_at_angles(picture, Brightest(), [degrees])
    assert face.landmarks[0] == pytest.approx([120, 30], abs=0.1)
    assert (face.box[:2] + face.box[2:]) / 2 == pytest.approx([120, 30], abs=0.1)


@pytest.mark.parametrize("degrees", [90.0, 180.0, 270.0])
@pytest.mark.parametrize("shape", [(90, 160), (91, 160), (61, 33)])
def test_a_quarter_turn_moves_every_pixel_to_its_place(degrees, shape):
    """A detection of one pixel of the turned picture comes back to a pixel of the same color."""
    picture = np.random.default_rng(5).integers(0, 256, (*shape, 3), np.uint8)
    seen = []

    class AtOnePixel(Detector):
        def __call__(self, picture):
            seen.append(picture[7, 11].tolist())
            return [Detection(np.array([9, 5, 13, 9], np.float32),
                              np.full((5, 2), (11, 7), np.float32), 0.5)]  # fmt: skip

    (face,) = look_at_angles(picture, AtOnePixel(), [degrees])
    x, y = np.round(face.landmarks[0]).astype(int)
    assert face.landmarks[0] == pytest.approx([x, y], abs=1e-4)
    assert picture[y, x].tolist() == seen[0]


def test_any_angle_without_the_mesh_is_refused(tmp_path, shared):
    clip = clip_of(tmp_path / "flat.mkv", [np.zeros((64, 64, 3), np.uint8)] * 3)
    settings = settings_for(shared, **{"detect.any_angle": True, "detect.mesh": "off"})
    with pytest.raises(UsageError, match=r"detect.any_angle is on, which needs the face mesh"):
        analyze_video(clip, settings)


def test_the_score_grows_with_the_logit():
    scores = [score_of(logit) for logit in (-1e9, -5, 0, 5, 12, 50, 1e9)]
    assert all(a <= b for a, b in pairwise(scores))
    assert scores[2] == 0.5
    assert 0.8 < scores[3] < 0.9 < 0.98 < scores[4] <= 1


def test_the_first_look_begins_where_an_average_face_is(shared, mesh_file):
    """The square of the landmarks is close to the square in which the mesh settles."""
    portrait = np.ascontiguousarray(data.astronaut()[..., ::-1])
    (face,) = detector_of(shared, "yunet")(portrait)
    start = square_of_landmarks(face.landmarks)
    mesh = FaceMesh(mesh_file).settle(portrait, start)
    box = mesh.box()
    assert np.linalg.norm((box[:2] + box[2:]) / 2 - start.center) < 0.12 * start.side_px
