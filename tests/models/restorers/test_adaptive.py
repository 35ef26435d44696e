"""Each face gets the smallest GPEN that its place in the picture can show, and keeps it."""

import shutil
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from helpers import gpen_formula, onnx_networks
from helpers.events import messages
from helpers.media import (
    AS_PAINTED,
    analysis_of_file,
    mild_image,
    plain_face,
    plain_track,
    random_image,
    write_video,
)
from helpers.stand_in_networks import Shelf

from vidrestore.api import restore_video
from vidrestore.common import checksums
from vidrestore.common.errors import WeightsError
from vidrestore.common.events import Progress
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Restore
from vidrestore.imaging.frame import Frame
from vidrestore.jobs.estimate import Estimate, estimate
from vidrestore.media.codecs import Encoding
from vidrestore.models.factory import chosen_restorer, weights_needed
from vidrestore.models.restorers import cache_key_of
from vidrestore.models.restorers.adaptive import tier_for
from vidrestore.models.restorers.assignment import Assignment
from vidrestore.restoration.batching import restore
from vidrestore.restoration.faces import FaceFrame
from vidrestore.restoration.segments import Segment, plan_segments, restorers_used, segment_key
from vidrestore.restoration.statistics import RestorationStats

SIDES = (64, 128, 256, 512, 1024, 2048)
ALL = {f"gpen-{size}" for size in (256, 512, 1024, 2048)}


def test_the_smallest_that_is_not_below_the_crop_is_taken():
    names = [tier_for(side, ALL.__contains__) for side in SIDES]
    assert names == ["gpen-256"] * 3 + ["gpen-512", "gpen-1024", "gpen-2048"]


def test_where_weights_are_missing_the_next_larger_is_taken():
    here = {"gpen-256", "gpen-1024"}
    names = [tier_for(side, here.__contains__) for side in SIDES]
    assert names == ["gpen-256"] * 3 + ["gpen-1024"] * 2 + ["gpen-2048"]


def test_what_stands_in_is_said_once_and_nothing_at_all_is_an_error():
    shelf = Shelf(256, 1024)
    tiers = shelf.tiers()
    for _ in range(2):
        assert tiers.for_crop_size(512) is tiers.for_crop_size(1024)
        assert tiers.for_crop_size(64).name == "gpen-256"
    assert shelf.told == [
        "the weights of gpen-512 are missing and cannot be fetched; gpen-1024 restores its faces"
    ]
    with pytest.raises(WeightsError, match="gpen-2048 is missing"):
        tiers.for_crop_size(2048)
    with pytest.raises(WeightsError, match="gpen-2048 is missing"):
        Shelf().tiers()
    assert shelf.opened == {}


def frames_with(*sides, count=6):
    """Faces of these sides, a track each, in every frame."""
    image = random_image(16, 16, "yuv420p", 0)
    for i in range(count):
        yield FaceFrame(Frame(i, i, image), tuple(
            plain_face(torch.full((3, side, side), (i + 1) / 10), track_id=track)
            for track, side in enumerate(sides)))  # fmt: skip


def test_networks_open_when_a_face_needs_them_and_each_has_whole_batches():
    shelf = Shelf(256, 512, 1024, 2048)
    frames = frames_with(64, 512, 256)
    out = list(
        restore(
            frames,
            shelf.tiers(),
            RestorationStats(),
            how=Restore(batch_size=4, max_waiting_frames=8),
        )
    )
    assert [frame.frame.index for frame in out] == list(range(6))
    assert sorted(shelf.opened) == ["gpen-256", "gpen-512"]
    assert shelf.opened["gpen-256"].shapes == [(4, 1, 3, 256, 256)] * 3
    assert [shape[0] for shape in shelf.opened["gpen-512"].shapes] == [4, 2]
    for frame in out:
        for face in frame.faces:
            torch.testing.assert_close(face.restored, face.source)


def test_it_is_a_restorer_of_any_size_by_itself():
    shelf = Shelf(512)
    crop = torch.rand(2, 1, 3, 64, 64)
    assert shelf.tiers()(crop).shape == (2, 3, 64, 64)
    assert shelf.opened["gpen-512"].shapes == [(2, 1, 3, 512, 512)]


def test_another_template_or_size_than_it_must_have_is_refused():
    with pytest.raises(WeightsError, match="the template ffhq; it must be for 512 px and gpen"):
        Shelf(512, template="ffhq").tiers()(torch.rand(1, 1, 3, 64, 64))


@pytest.fixture(scope="module")
def tape(tmp_path_factory) -> Path:
    images = [mild_image(320, 240, "yuv420p", i) for i in range(60)]
    return write_video(tmp_path_factory.mktemp("tape") / "tape.mkv", images)


def analysis_of_tape(tape: Path):
    """A small face all along, and a large one that comes late and grows."""
    small = plain_track(60, centre=(60, 60), side=50.0)
    large = plain_track(6, centre=(200, 120), side=200.0, work_px=512, track_id=1)
    growing = large.matrices.copy()
    growing[:3] *= 2  # half as large at first
    return analysis_of_file(tape, [small, replace(large, first_frame=50, matrices=growing)])


@pytest.mark.long
def test_a_track_keeps_its_network_and_the_summary_names_those_used(tape, tmp_path):
    shelf = Shelf(256, 512, 2048)
    settings = load_settings(options=AS_PAINTED | {"encode.codec": "ffv1"})
    target = tmp_path / "out.mkv"
    summary = restore_video(
        tape, target, settings, restorer=shelf.tiers(), analysis=analysis_of_tape(tape)
    )
    assert summary.faces == 66
    assert summary.restorers == ("gpen-256", "gpen-512")
    assert summary.as_dict()["restorers"] == ["gpen-256", "gpen-512"]
    assert sum(shape[0] for shape in shelf.opened["gpen-512"].shapes) == 6
    assert "gpen-2048" not in shelf.opened
    with av.open(str(target)) as container:
        tags = {**container.metadata, **container.streams.video[0].metadata}
    assert any("with gpen-256, gpen-512" in text for text in tags.values())


def test_a_segment_is_redone_where_its_faces_get_another_network_and_only_there(tape, tmp_path):
    analysis, settings = analysis_of_tape(tape), load_settings()
    encoding = Encoding("e", "e", "p", ".mkv")
    segments = plan_segments(analysis, most_frames=48)
    assert len(segments) == 2

    def hashes(*sizes, settings=settings, **how):
        restorers = Assignment([(0, Shelf(*sizes, **how).tiers())])
        return [
            segment_key(s, analysis, 2, restorers, "features", settings, encoding) for s in segments
        ]

    bounded = load_settings(options={"restore.max_vram_gb": 6})
    assert hashes(256, 512, settings=bounded) == hashes(256, 512)

    used = restorers_used(Assignment([(0, Shelf(256, 512).tiers())]), analysis, 0, 60)
    assert [(track, restorer.name) for track, restorer in used] == [
        (0, "gpen-256"), (1, "gpen-512"),
    ]  # fmt: skip
    before, same, after = hashes(256, 512), hashes(256, 512, 1024), hashes(256, 2048)
    assert before == same
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]
    assert Segment(0, 0, 30) == segments[0]
    (other := tmp_path / "weights").write_bytes(b"other weights of the same name")
    assert not set(hashes(256, 512, file=other)) & set(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    torch.save(gpen_formula.build("gpen-256").state_dict(), folder / "GPEN-BFR-256.pth")
    return folder


def settings_for(folder, **options):
    how = {"restore.restorer": "gpen-auto", "restore.device": "cpu", "weights.folder": folder,
           "weights.offline": True, "restore.engine": "torch", "restore.number_format": "float32",
           "encode.codec": "ffv1"}  # fmt: skip
    return load_settings(options=AS_PAINTED | how | options)


@pytest.mark.long
def test_real_weights_come_by_name(tape, folder, tmp_path):
    analysis = analysis_of_tape(tape)
    few = replace(plain_track(3, centre=(60, 60), side=50.0), first_frame=10)
    told = []
    summary = restore_video(tape, tmp_path / "out.mkv", settings_for(folder),
                            analysis=replace(analysis, tracks=(few,)),
                            on_event=told.append)  # fmt: skip
    assert (summary.faces, summary.restorers) == (3, ("gpen-256",))
    assert sum("non-commercial" in message for message in messages(told)) == 1
    windows = torch.rand(1, 1, 3, 256, 256)
    wanted = gpen_formula.build("gpen-256")(windows[:, 0] * 2 - 1) / 2 + 0.5
    restorer = chosen_restorer(settings_for(folder), None)
    torch.testing.assert_close(restorer(windows), wanted.clamp(0, 1), atol=1e-5, rtol=0)
    with pytest.raises(WeightsError, match=r"GPEN-BFR-512\.pth is in none of .*--offline"):
        restore_video(tape, tmp_path / "no.mkv", settings_for(folder), analysis=analysis)


def test_a_size_without_latent_codes_is_refused_before_any_frame(tape, folder, tmp_path):
    shutil.copy(folder / "GPEN-BFR-256.pth", tmp_path)
    face = np.float32, ("n", 3, 512, 512)
    onnx_networks.network(
        tmp_path / "GPEN-BFR-512.onnx", [("image", *face)], ("same", *face),
        [("Identity", ["image"], ["same"], {})],
    )  # fmt: skip
    codes = settings_for(tmp_path, **{"restore.latent": "shot"})
    analysis, told = analysis_of_tape(tape), []
    with pytest.raises(WeightsError, match=r"GPEN-BFR-512\.onnx runs .* without a latent code"):
        restore_video(tape, tmp_path / "no.mkv", codes, analysis=analysis, on_event=told.append)
    assert not [event for event in told if isinstance(event, Progress)]
    assert chosen_restorer(codes, None).for_crop_size(64).name == "gpen-256"
    plain = chosen_restorer(settings_for(tmp_path), None)
    assert plain.for_crop_size(512).name == "gpen-512"


@pytest.mark.parametrize("name", ["gpen-auto", "gpen-256", "its path"])
def test_a_file_of_weights_is_read_once_for_its_hash(folder, monkeypatch, name):
    read, original = [], checksums.sha256_of_file

    def counted(path):
        read.append(path.name)
        return original(path)

    monkeypatch.setattr(checksums, "sha256_of_file", counted)
    named = str(folder / "GPEN-BFR-256.pth") if name == "its path" else name
    settings = settings_for(folder, **{"restore.restorer": named})
    restorer = chosen_restorer(settings, None).for_crop_size(256)
    key = cache_key_of(restorer)
    restorer(torch.rand(1, 1, 3, 256, 256))
    assert cache_key_of(restorer) == key
    assert original(folder / "GPEN-BFR-256.pth") in key
    assert read == ["GPEN-BFR-256.pth"]


def test_a_file_that_is_another_now_is_read_again(tmp_path):
    path, hashes = tmp_path / "net.pth", checksums.FileHashes()
    path.write_bytes(b"one")
    first = hashes.sha256(path)
    assert first == hashes.sha256(path) == checksums.sha256_of_file(path)
    path.write_bytes(b"another")
    assert hashes.sha256(path) == checksums.sha256_of_file(path) != first


@pytest.mark.long
def test_the_estimate_is_of_the_networks_that_the_faces_need(tape, folder):
    analysis = analysis_of_tape(tape)
    online = settings_for(folder, **{"weights.offline": False})
    assert weights_needed(online, {512, 64}) == ["gpen-256", "gpen-512"]
    answer = estimate(tape, analysis, online)
    assert isinstance(answer, str)
    assert "vidrestore weights fetch gpen-512" in answer
    small = replace(analysis, tracks=analysis.tracks[:1])
    cost = estimate(tape, small, settings_for(folder))
    assert isinstance(cost, Estimate)
    assert cost.restorer == "gpen-256"
    assert cost.seconds_per_face > 0
