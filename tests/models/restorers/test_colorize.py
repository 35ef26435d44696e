"""GPEN's colorization network sees a gray face, whatever its tint."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import gpen_formula

from vidrestore.common.errors import WeightsError
from vidrestore.common.profiles import load_settings
from vidrestore.imaging.luma import BT601
from vidrestore.models.factory import chosen_restorer
from vidrestore.models.restorers.colorize import Colorizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    state = gpen_formula.build("gpen-64").state_dict()
    torch.save(state, folder / "GPEN-Colorization-1024.pth")
    return folder


def opened(folder: Path, name: str, notices: list[str] | None = None) -> Any:
    settings = load_settings(options={
        "restore.restorer": name, "restore.device": "cpu", "restore.engine": "torch",
        "weights.folder": folder, "weights.offline": True,
    })  # fmt: skip

    def receive(event: Any) -> None:
        if notices is not None:
            notices.append(getattr(event, "message", ""))

    return chosen_restorer(settings, receive)


def test_the_network_is_found_by_its_name_and_gets_gray_faces(folder: Path) -> None:
    restorer = opened(folder, "gpen-colorize")
    assert isinstance(restorer, Colorizer)
    assert (restorer.name, restorer.template, restorer.size) == ("gpen-colorize", "gpen", 64)
    assert restorer.colorizes
    assert restorer.cache_key.startswith("gpen-colorize, weights ")
    plain = opened(folder, str(folder / "GPEN-Colorization-1024.pth"))
    windows = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    luma = (windows * torch.tensor(BT601)[:, None, None]).sum(2, keepdim=True)
    gray = luma.expand_as(windows).contiguous()
    colors = restorer(windows)
    torch.testing.assert_close(colors, plain(gray))
    assert not torch.allclose(colors, plain(windows), atol=1e-3)


def test_the_file_alone_is_a_restorer_and_a_notice_tells_of_the_other_use(folder: Path) -> None:
    notices: list[str] = []
    restorer = opened(folder, str(folder / "GPEN-Colorization-1024.pth"), notices)
    assert not restorer.colorizes
    assert any("--restorer gpen-colorize" in each for each in notices)


def test_a_file_of_another_network_in_its_place_is_refused(tmp_path: Path) -> None:
    torch.save({"stylegan_decoder.x": torch.zeros(3)}, tmp_path / "GPEN-Colorization-1024.pth")
    with pytest.raises(WeightsError):
        opened(tmp_path, "gpen-colorize")
    with pytest.raises(WeightsError, match="weights fetch gpen-colorize"):
        opened(tmp_path / "empty", "gpen-colorize")
