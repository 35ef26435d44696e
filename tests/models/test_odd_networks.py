"""ONNX files that declare the absurd or keep weights elsewhere are refused for every use."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers.onnx_networks import network

from vidrestore.common.errors import WeightsError
from vidrestore.common.profiles import load_settings
from vidrestore.common.settings import Restore
from vidrestore.models import factory
from vidrestore.models.face_parser import Parser
from vidrestore.models.restorers.onnx import Onnx
from vidrestore.models.upscaler import Upscaler
from vidrestore.models.weight_file import check_kind
from vidrestore.restoration import upscaling

CPU = torch.device("cpu")
Open = Callable[[Path], object]


def restorer(path: Path) -> object:
    return Onnx(path, device=CPU, fidelity=0.7, template="ffhq")


def upscaler(path: Path) -> object:
    return Upscaler(path, device=CPU)


def parser(path: Path) -> object:
    return Parser(path, device=CPU, is_auto=False, name="parser")


def kind(path: Path) -> None:
    check_kind(path, path.name)


@pytest.mark.parametrize("use", [restorer, upscaler, parser])
@pytest.mark.parametrize("shape", [(100_000, 3, 512, 512), (1, 3, 65536, 65536)], ids=str)
def test_a_picture_larger_than_any_is_refused_before_it_is_made(
    tmp_path: Path, use: Open, shape: Any
) -> None:
    path = network(tmp_path / "net.onnx", [("x", np.float32, shape)], ("y", np.float32, shape),
                   [("Identity", ["x"], ["y"], {})])  # fmt: skip
    with pytest.raises(WeightsError, match="use one for smaller or fewer pictures"):
        use(path)


def with_weights_beside(folder: Path) -> Path:
    shape = (1, 3, 32, 32)
    path = network(folder / "net.onnx", [("x", np.float32, shape)], ("y", np.float32, shape),
                   [("Mul", ["x", "w"], ["y"], {})],
                   {"w": np.full((3, 32, 32), 0.5, np.float32)})  # fmt: skip
    onnx.save(onnx.load(str(path)), str(path), save_as_external_data=True, location="net.data",
              size_threshold=0)  # fmt: skip
    assert (folder / "net.data").stat().st_size > 4000
    return path


@pytest.mark.parametrize("use", [restorer, upscaler, parser, kind])
def test_weights_in_another_file_are_refused_with_the_lines_that_join_them(
    tmp_path: Path, use: Open
) -> None:
    """The hash of the file does not cover them, so earlier results would be used again."""
    path = with_weights_beside(tmp_path)
    with pytest.raises(WeightsError, match="keeps weights in other files") as error:
        use(path)
    exec("\n".join(error.value.lines[1:]), {})
    restored = restorer(path.with_suffix(".whole.onnx"))
    assert isinstance(restored, Onnx)
    windows = torch.rand(1, 1, 3, 32, 32)
    torch.testing.assert_close(restored(windows), 0.5 * windows[:, 0] + 0.25)


def test_too_little_memory_for_a_network_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: Any, **more: Any) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    path = tmp_path / "net.onnx"
    path.write_bytes(b"network")
    monkeypatch.setattr("vidrestore.models.face_parser.Parser", full)
    monkeypatch.setattr(upscaling, "Upscaler", full)
    monkeypatch.setattr(factory, "open_restorer", full)
    monkeypatch.setattr(factory.weights, "sha256_of_own", lambda *given: "0" * 64)
    settings = load_settings(None, [f"paste.parser={path}", f"restore.restorer={path}"])
    uses: list[Callable[[], object]] = [
        lambda: factory.chosen_parser(settings),
        lambda: factory.chosen_restorer(settings, None),
        lambda: upscaling.opened_upscaler(path, Restore()),
    ]
    for use in uses:
        with pytest.raises(WeightsError, match="does not fit into the memory"):
            use()
