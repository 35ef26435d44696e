"""The detector and the face mesh that "auto" stands for: what is here, and what can be fetched."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from helpers.events import messages

from vidrestore.common.errors import ConfigError, WeightsError
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Settings
from vidrestore.models import factory, weights
from vidrestore.models.detectors import DetectionModels
from vidrestore.models.factory import chosen_face_mesh, models_of, with_models_here

YUNET, MESH = "face_detection_yunet_2023mar.onnx", "face_landmark.tflite"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "weights"
    folder.mkdir()
    return folder


def settings_of(folder: Path, **options: Any) -> Settings:
    given = {key.replace("__", "."): value for key, value in options.items()}
    return load_settings(options={"weights.folder": folder, **given})


def install(folder: Path, *names: str) -> None:
    for name in names:
        if name == "pack":
            weights.pack_folder(folder, "buffalo_l").mkdir(parents=True)
        else:
            (folder / name).write_bytes(b"its content does not matter here")


def chosen(settings: Settings, **more: Any) -> tuple[str, str, list[str]]:
    told: list[Any] = []
    result = with_models_here(settings, told.append, **more)
    assert with_models_here(result, told.append) == result
    return result.detect.detector, result.detect.mesh, messages(told)


@pytest.mark.parametrize(
    ("here", "detector"), [(("pack", YUNET), "insightface"), (("pack",), "insightface"),
                           ((YUNET,), "yunet"), ((), "haar")],
)  # fmt: skip
def test_auto_is_the_best_detector_that_is_here(
    here: tuple[str, ...], detector: str, folder: Path
) -> None:
    install(folder, *here, MESH)
    name, mesh, told = chosen(settings_of(folder, weights__offline=True))
    assert (name, mesh) == (detector, "auto")
    assert len(told) == (1 if detector == "haar" else 0)


def test_a_zip_of_the_pack_counts_as_installed(folder: Path) -> None:
    install(folder, "buffalo_l.zip", YUNET, MESH)
    assert chosen(settings_of(folder))[0] == "insightface"


@pytest.mark.parametrize(
    ("offline", "reason"), [(True, "--offline"), (False, "its download failed")]
)
def test_one_notice_each_says_what_is_missing_and_how_to_get_it(
    offline: bool, reason: str, folder: Path
) -> None:
    name, mesh, told = chosen(settings_of(folder, weights__offline=offline))
    assert (name, mesh) == ("haar", "off")
    of_detector, of_mesh = told
    assert "Haar" in of_detector
    assert reason in of_detector
    assert "vidrestore weights fetch yunet (0.2 MB, free for any use)" in of_detector
    assert "vidrestore weights fetch face-mesh (1.2 MB, free for any use)" in of_mesh
    assert "is missing" in of_mesh


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.parametrize(("kind", "fault"), [("folder", "is a folder"), ("link", "is a link to")])
def test_what_lies_in_the_place_of_a_file_is_named(
    kind: str, fault: str, offline: bool, folder: Path, fetched: list[str]
) -> None:
    for name in (YUNET, MESH):
        if kind == "folder":
            (folder / name).mkdir()
        else:
            (folder / name).symlink_to("nowhere")
    name, mesh, told = chosen(settings_of(folder, weights__offline=offline))
    assert (name, mesh, fetched) == ("haar", "off", [])
    for message, file in zip(told, (YUNET, MESH), strict=True):
        assert f"{file} {fault}" in message
        assert "is missing" not in message
    for weight, way in (("yunet", "--detector haar"), ("face-mesh", "detect.mesh=off")):
        with pytest.raises(WeightsError, match=fault) as caught:
            weights.require(weight, [folder], target=folder, offline=True)
        assert way in str(caught.value)
        assert f"weights fetch {weight}" in str(caught.value)
    rows = {row.name: row for row in weights.list_weights([folder])}
    assert fault in rows["face-mesh"].message


def test_a_download_is_not_begun_where_a_folder_is_in_its_place(folder: Path) -> None:
    (folder / MESH).mkdir()
    with pytest.raises(WeightsError, match=f"{MESH} is a folder, in the place of face-mesh"):
        weights.fetch("face-mesh", folder)


def test_a_file_in_the_place_of_a_pack_is_named(folder: Path) -> None:
    place = weights.pack_folder(folder, "buffalo_l")
    place.parent.mkdir(parents=True)
    place.write_bytes(b"")
    with pytest.raises(WeightsError, match="buffalo_l is not a folder"):
        weights.require("buffalo_l", [folder], target=folder, offline=True)


def test_a_wrong_file_of_the_right_size_says_how_to_go_on(folder: Path) -> None:
    (folder / MESH).write_bytes(bytes(weights.load_table()["face-mesh"].bytes or 0)[:-1] + b"x")
    with pytest.raises(WeightsError, match="instead of the published") as caught:
        weights.require("face-mesh", [folder], target=folder, offline=True)
    assert "detect.mesh=off" in str(caught.value)
    assert "vidrestore weights fetch face-mesh" in str(caught.value)


@pytest.fixture
def fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the weights that were downloaded; a download writes the true name."""
    names: list[str] = []

    def fetch(name: str, target: Path, **_: Any) -> Path:
        names.append(name)
        place = target / weights.load_table()[name].file
        place.write_bytes(b"downloaded")
        return place

    monkeypatch.setattr(weights, "fetch", fetch)
    return names


def test_yunet_and_the_mesh_are_fetched_and_the_pack_is_not(
    folder: Path, fetched: list[str]
) -> None:
    name, mesh, told = chosen(settings_of(folder))
    assert (name, mesh) == ("yunet", "auto")
    assert fetched == ["yunet", "face-mesh"]
    assert ["Apache-2.0" in message or "MIT" in message for message in told] == [True, True]


def test_nothing_is_fetched_for_haar(folder: Path, fetched: list[str]) -> None:
    settings = settings_of(folder, detect__detector="haar")
    name, mesh, told = chosen(settings)
    assert (name, mesh, fetched) == ("haar", "off", [])
    assert len(told) == 1
    install(folder, MESH)
    assert chosen(settings) == ("haar", "auto", [])


def test_nothing_is_fetched_or_missed_with_a_detector_of_the_caller(
    folder: Path, fetched: list[str]
) -> None:
    told: list[Any] = []
    result = with_models_here(settings_of(folder), told.append, has_own_detector=True)
    assert (result.detect.mesh, fetched, told) == ("off", [], [])


@pytest.mark.parametrize("detector", ["insightface", "yunet", "haar"])
def test_a_detector_that_was_named_is_used(detector: str, folder: Path) -> None:
    install(folder, MESH)
    settings = settings_of(folder, detect__detector=detector, weights__offline=True)
    assert chosen(settings) == (detector, "auto", [])
    off = settings_of(folder, detect__detector=detector, detect__mesh="off")
    assert chosen(off) == (detector, "off", [])


def test_an_unknown_pack_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="bufalo_l"):
        chosen(settings_of(folder, detect__pack="bufalo_l"))


BEGUN = DetectionModels("yunet", has_mesh=False, recognizes=False)


def test_a_job_goes_on_as_it_began(folder: Path) -> None:
    install(folder, "pack", YUNET, MESH)
    settings = settings_of(folder)
    told: list[Any] = []
    result = with_models_here(settings, told.append, begun=BEGUN)
    assert models_of(result) == BEGUN
    (message,) = messages(told)
    for part in ("yunet", "insightface", "face mesh", "recognizer", "--no-resume"):
        assert part in message
    now = models_of(with_models_here(settings, told.append))
    assert now == DetectionModels("insightface", has_mesh=True, recognizes=True)
    assert chosen(settings, begun=now) == ("insightface", "auto", [])
    named = settings_of(folder, detect__detector="haar")
    assert with_models_here(named, None, begun=BEGUN).detect.detector == "haar"


def test_a_job_whose_detector_is_gone_says_so_and_takes_another(folder: Path) -> None:
    install(folder, YUNET, MESH)
    settings = settings_of(folder, weights__offline=True)
    gone = replace(BEGUN, detector="insightface", has_mesh=True)
    name, _, (message,) = chosen(settings, begun=gone)
    assert name == "yunet"
    assert "began with the detector insightface" in message


def test_a_job_whose_mesh_or_recognizer_is_gone_says_what_is_done(folder: Path) -> None:
    install(folder, YUNET)
    settings = settings_of(folder, weights__offline=True)
    begun = replace(BEGUN, has_mesh=True, recognizes=True)
    told: list[Any] = []
    result = with_models_here(settings, told.append, begun=begun)
    assert models_of(result) == BEGUN
    of_mesh, of_recognizer = messages(told)
    for message, what in ((of_mesh, "face mesh"), (of_recognizer, "recognizer")):
        assert message.startswith(f"this job began with the {what}")
        assert "rendered again" in message
    assert "vidrestore weights fetch face-mesh" in of_mesh


def test_settings_of_people_without_a_recognizer_are_named_once(folder: Path) -> None:
    install(folder, YUNET, MESH)
    plain = settings_of(folder, weights__offline=True)
    assert chosen(plain)[2] == []
    given = settings_of(folder, weights__offline=True, people__similarity=0.5)
    (message,) = chosen(given)[2]
    assert message == "people.similarity has no effect, because no InsightFace pack is used"
    off = settings_of(
        folder, weights__offline=True, people__recognise=False, people__similarity=0.5
    )
    assert "because people.recognise is off" in chosen(off)[2][0]
    install(folder, "pack")
    assert chosen(given)[2] == []


@pytest.fixture
def face_mesh(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Path]]:
    """A stand-in for the network, which opens any file."""
    opened: list[Path] = []
    module = ModuleType("vidrestore.models.face_mesh")
    module.FaceMesh = lambda model, hashes: opened.append(model) or "mesh"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vidrestore.models.face_mesh", module)
    return lambda: opened


def test_the_face_mesh_is_opened_where_its_file_is(
    folder: Path, face_mesh: Callable[[], list[Path]], shared: Path
) -> None:
    if not (shared / "models" / MESH).exists():
        pytest.skip(f"needs {shared / 'models' / MESH}")
    shutil.copy(shared / "models" / MESH, folder)
    told: list[Any] = []
    settings = settings_of(folder, detect__detector="haar", weights__offline=True)
    assert chosen_face_mesh(settings, told.append) == "mesh"
    assert face_mesh() == [folder / MESH]
    assert chosen_face_mesh(settings_of(folder, detect__mesh="off"), told.append) is None
    (folder / MESH).write_bytes(b"half")
    with pytest.raises(WeightsError, match=MESH):
        chosen_face_mesh(settings, told.append)


def test_without_its_file_there_is_no_mesh_and_one_notice(folder: Path) -> None:
    told: list[Any] = []
    settings = settings_of(folder, weights__offline=True)
    assert chosen_face_mesh(settings, told.append) is None
    assert ["face-mesh" in message for message in messages(told)] == [True]
    here = with_models_here(settings, None)
    assert chosen_face_mesh(here, told.append) is None
    assert len(told) == 1


def test_a_detector_is_opened_for_auto(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    monkeypatch.setattr(factory, "open_detector", lambda how, **_: names.append(how.detector))
    install(folder, YUNET)
    factory.chosen_detector(settings_of(folder), None)
    assert names == ["yunet"]
