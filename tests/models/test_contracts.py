"""What a restorer and a detector are: base classes, their defaults, and what is refused."""

from __future__ import annotations

import ast
import importlib
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.media import (
    OneFace,
    Painter,
    analysis_of_file,
    mild_image,
    plain_track,
    write_video,
)

import vidrestore
from vidrestore import Detector, Restorer, analyze_video, restore_video
from vidrestore.common.errors import ConfigError, UsageError, WeightsError
from vidrestore.common.profiles import load_settings
from vidrestore.jobs.request import RestoreRequest
from vidrestore.models.detectors import Detection, OneAtATime
from vidrestore.models.restorers import RestorerInfo, cache_key_of, check_restorer
from vidrestore.review.preview import write_preview

PACKAGE = Path(vidrestore.__file__).parent
OWN = {
    "restorers": (
        ("restorers.adaptive", "AdaptiveGpen"), ("restorers.adaptive", "_Tier"),
        ("restorers.fusion", "Fusion"), ("restorers.gpen", "Gpen"), ("restorers.onnx", "Onnx"),
        ("restorers.spandrel", "Spandrel"),
    ),
    "detectors": (
        ("detectors.haar", "Haar"), ("detectors.insightface", "InsightFace"),
        ("detectors.yunet", "YuNet"),
    ),
}  # fmt: skip
ABILITIES = {name for name in (*vars(RestorerInfo), *vars(Restorer), *vars(Detector))
             if not name.startswith("_")}  # fmt: skip


class Plain(Restorer):
    name = "plain"

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        return windows[:, self.reach_frames]


class Broken(Plain):
    """Its key is a property with a defect."""

    name = "broken"

    @property
    def cache_key(self) -> str:
        return self.weight_file  # type: ignore[attr-defined, no-any-return]


class BrokenModule(torch.nn.Module, Restorer):
    """The same, where the attributes that are missing are looked up by a method."""

    name = "broken"

    @property
    def cache_key(self) -> str:
        return self.weight_file  # type: ignore[return-value]

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return windows[:, 0]


class Duck:
    """All that a restorer has but the base class."""

    name, size, reach_frames, template, cache_key = "duck", None, 0, "gpen", None

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        return windows[:, 0]


class Goose:
    coarse = False

    def __call__(self, picture: Any) -> list[Detection]:
        return []


def test_every_restorer_and_detector_of_the_package_inherits() -> None:
    for base, names in ((Restorer, OWN["restorers"]), (Detector, OWN["detectors"])):
        for module, name in names:
            found = getattr(importlib.import_module(f"vidrestore.models.{module}"), name)
            assert issubclass(found, base)


def test_what_a_restorer_does_not_say_of_itself_has_a_default() -> None:
    plain = Plain()
    assert (plain.size, plain.reach_frames, plain.template) == (None, 0, "ffhq")
    assert (plain.cache_key, plain.weights_sha256, plain.most_at_once) == (None, None, None)
    assert plain.is_cheap is False
    assert plain.for_crop_size(512) is plain
    plain.release()
    check_restorer(plain)


def test_an_ability_may_be_a_class_attribute_an_own_attribute_or_a_property() -> None:
    class OnTheClass(Plain):
        cache_key = "one"

    own = Plain()
    own.cache_key = "two"

    class AsProperty(Plain):
        @property
        def cache_key(self) -> str:
            return "three"

    assert [cache_key_of(each) for each in (OnTheClass(), own, AsProperty())] == [
        "one", "two", "three",
    ]  # fmt: skip


def test_what_is_described_does_not_hold_the_restorer() -> None:
    painter = Painter()
    found = painter.described()
    assert found is not painter
    assert not isinstance(found, Restorer)
    assert (found.name, found.cache_key, found.for_crop_size(64)) == (
        "painter", painter.cache_key, found,
    )  # fmt: skip

    class Choosing(Painter):
        def for_crop_size(self, work_px: int) -> Restorer:
            return Plain()

    choosing = Choosing()
    assert choosing.described() is choosing


def test_a_class_without_a_call_cannot_be_made() -> None:
    for base in (Restorer, Detector):
        with pytest.raises(TypeError, match="__call__"):
            type("Unfinished", (base,), {"name": "unfinished"})()


@pytest.mark.parametrize("made", [Broken, BrokenModule])
def test_a_cache_key_that_fails_is_an_error_and_not_none(made: type[Restorer]) -> None:
    with pytest.raises(ConfigError) as error:
        cache_key_of(made())
    assert str(error.value).startswith(
        "the cache_key of the restorer broken cannot be read (AttributeError: "
    )


def test_an_error_of_vidrestore_in_a_cache_key_stays_as_it_is() -> None:
    class Gone(Plain):
        @property
        def cache_key(self) -> str:
            raise WeightsError("the weight file net.pth is gone")

    with pytest.raises(WeightsError, match="is gone"):
        cache_key_of(Gone())


def test_a_failing_cache_key_stops_a_run_before_any_work(tmp_path: Path) -> None:
    request = RestoreRequest(tmp_path / "absent.mkv", tmp_path / "out.mkv", restorer=Broken())
    with pytest.raises(ConfigError, match="cannot be read"):
        request.validate()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("given", "called"), [
    (Duck(), "an object of the class Duck"),
    (Plain, "the class Plain itself"),
    ("gpen-512", "an object of the class str"),
])  # fmt: skip
def test_what_is_no_restorer_is_refused_in_one_sentence(
    given: Any, called: str, tmp_path: Path
) -> None:
    source, wanted = tmp_path / "in.mkv", (
        f"the restorer is {called}; it must be an instance of a class that inherits "
        "vidrestore.Restorer"
    )  # fmt: skip
    for act in (
        lambda: restore_video(source, tmp_path / "out.mkv", restorer=given),
        lambda: write_preview(source, 0, tmp_path / "out.png", restorer=given),
    ):
        with pytest.raises(UsageError) as error:
            act()
        assert str(error.value) == wanted
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("changes", "what"), [
    ({"name": ""}, "the name of the restorer"),
    ({"name": None}, "the name of the restorer"),
    ({"template": "arcface"}, "the template of the restorer plain is 'arcface'"),
    ({"size": 0}, "the size of the restorer plain is 0"),
    ({"size": "512"}, "the size of the restorer plain is '512'"),
    ({"reach_frames": -1}, "the reach_frames of the restorer plain is -1"),
    ({"reach_frames": 1.5}, "the reach_frames of the restorer plain is 1.5"),
])  # fmt: skip
def test_an_attribute_without_a_usable_value_is_refused(changes: dict[str, Any], what: str) -> None:
    restorer = type("Odd", (Plain,), changes)()
    with pytest.raises(ConfigError, match=what):
        check_restorer(restorer)
    check_restorer(type("Sound", (Plain,), {"size": np.int64(512), "reach_frames": 2})())


@pytest.mark.parametrize(("given", "called"), [
    (Goose(), "an object of the class Goose"),
    (OneFace, "the class OneFace itself"),
])  # fmt: skip
def test_what_is_no_detector_is_refused_in_one_sentence(
    given: Any, called: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as error:
        analyze_video(tmp_path / "absent.mkv", detector=given)
    assert str(error.value) == (
        f"the detector is {called}; it must be an instance of a class that inherits "
        "vidrestore.Detector"
    )


def test_a_detector_of_the_callers_own_finds_the_faces(tmp_path: Path) -> None:
    class Overlapping(OneFace):
        """Misses some faces, so that a second look is taken; notes two threads in it at once."""

        coarse, least_score = True, 0.8

        def __init__(self) -> None:
            super().__init__()
            self.busy, self.overlaps = threading.Lock(), 0

        def __call__(self, picture: Any) -> list[Detection]:
            if not self.busy.acquire(blocking=False):
                self.overlaps += 1
                return []
            time.sleep(0.002)
            found = super().__call__(picture)
            self.busy.release()
            return [] if self.pictures % 3 == 2 else found

    images = [mild_image(160, 120, "yuv420p", 0) for _ in range(12)]
    source, detector = write_video(tmp_path / "in.mkv", images), Overlapping()
    analysis = analyze_video(source, load_settings(None, ["people.recognise=false"]),
                             detector=detector)  # fmt: skip
    assert detector.pictures > 12
    assert detector.overlaps == 0
    assert analysis.tracks
    assert analysis.coarse_landmarks
    # From the least score of 0.8 on, one of 0.9 is two thirds of the way to sure.
    sure = OneAtATime(detector)
    assert (sure.coarse, sure.least_score) == (True, 0.8)
    assert 0.5 < analysis.tracks[0].strength.max() < 1


def test_a_restorer_without_a_key_is_never_taken_from_an_earlier_run(tmp_path: Path) -> None:
    class Counting(Plain):
        template, faces = "gpen", 0

        def __call__(self, windows: torch.Tensor) -> torch.Tensor:
            Counting.faces += len(windows)
            return windows[:, 0] * 0.8

    source = write_video(tmp_path / "in.mkv", [mild_image(96, 64, "yuv420p", i) for i in range(4)])
    track = plain_track(4, centre=(48, 32), side=32)
    settings = load_settings(None, ["restore.cache_crops=true", "restore.repeats=false"])
    for _ in range(2):
        restore_video(
            source, tmp_path / "out.mkv", settings, overwrite=True,
            restorer=Counting(), analysis=analysis_of_file(source, [track]),
        )  # fmt: skip
    assert Counting.faces == 8


def test_nothing_in_the_package_probes_for_an_ability() -> None:
    found = [
        f"{path.name}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("getattr", "hasattr")
        and isinstance(node.args[1], ast.Constant)
        and node.args[1].value in ABILITIES
    ]
    assert {"cache_key", "for_crop_size", "release", "most_at_once", "coarse"} <= ABILITIES
    assert found == []


@pytest.mark.parametrize("kind", ["detectors", "restorers"])
def test_the_module_of_a_base_class_imports_none_of_those_that_inherit_it(kind: str) -> None:
    """They import it, so that would be a circle; `vidrestore.models.factory` opens them."""
    tree = ast.parse((PACKAGE / "models" / kind / "__init__.py").read_text(encoding="utf-8"))
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [a.name for node in ast.walk(tree) if isinstance(node, ast.Import)
                 for a in node.names]  # fmt: skip
    assert "abc" in imported
    inside = f"vidrestore.models.{kind}"
    assert not [name for name in imported if name == inside or name.startswith(inside + ".")]
