"""Face restorers in ONNX files: what the graph takes decides how the network is called."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.onnx_networks import network
from helpers.onnx_providers import Machine

from vidrestore.common.errors import WeightsError
from vidrestore.models import onnx_session
from vidrestore.models.onnx_session import import_onnxruntime
from vidrestore.models.restorers.onnx import Onnx

CPU = torch.device("cpu")
SIDE = 32
PICTURE = (1, 3, SIDE, SIDE)


def opened(path: Path, notices: list[str] | None = None, fidelity: float = 0.7) -> Onnx:
    told = (lambda message: None) if notices is None else notices.append
    return Onnx(path, device=CPU, fidelity=fidelity, template="ffhq", on_notice=told)


def faces(count: int, side: int = SIDE) -> torch.Tensor:
    return torch.rand(count, 1, 3, side, side, generator=torch.Generator().manual_seed(count))


def codeformer(
    path: Path, picture: Any, weight: Any, *, is_weight_first: bool, kind: Any = np.float32
) -> Path:
    """Brightens by a tenth of the fidelity weight, of which it is no more than the calling."""
    inputs = [("x", kind, picture), ("w", np.float64, weight)]
    nodes = [
        ("Cast", ["w"], ["v"], {"to": 10 if kind is np.float16 else 1}),
        ("Mul", ["v", "tenth"], ["share"], {}),
        ("Add", ["x", "share"], ["y"], {}),
    ]
    return network(
        path, inputs[::-1] if is_weight_first else inputs, ("y", kind, picture), nodes,
        {"tenth": np.array(0.1, kind)},
    )  # fmt: skip


@pytest.mark.parametrize("is_weight_first", [True, False])
@pytest.mark.parametrize("weight", [[], [1], [1, 1], ["any"]], ids=str)
@pytest.mark.parametrize("picture", [PICTURE, ("N", 3, SIDE, SIDE)], ids=["one", "open"])
def test_the_weight_of_codeformer_is_found_by_its_shape_in_any_place(
    tmp_path: Path, is_weight_first: bool, weight: list[Any], picture: Any
) -> None:
    path = codeformer(tmp_path / "c.onnx", picture, weight, is_weight_first=is_weight_first)
    windows = faces(3) * 0.8
    torch.testing.assert_close(opened(path)(windows), windows[:, 0] + 0.035, atol=1e-5, rtol=0)
    kept = opened(path, fidelity=0)(windows)
    torch.testing.assert_close(kept, windows[:, 0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("is_weight_first", [True, False])
def test_half_precision_inputs_get_half_precision(tmp_path: Path, is_weight_first: bool) -> None:
    path = codeformer(
        tmp_path / "c.onnx", PICTURE, [1], is_weight_first=is_weight_first, kind=np.float16
    )
    windows = faces(2) * 0.8
    restored = opened(path)(windows)
    assert restored.dtype == torch.float32
    torch.testing.assert_close(restored, windows[:, 0] + 0.035, atol=2e-3, rtol=0)


def test_half_precision_that_overflows_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    path = network(
        tmp_path / "half.onnx", [("x", np.float16, PICTURE)], ("y", np.float16, PICTURE),
        [("Mul", ["x", "far"], ["m"], {}), ("Mul", ["m", "far"], ["y"], {})],
        {"far": np.array(60000, np.float16)},
    )  # fmt: skip
    with pytest.raises(WeightsError, match="no finite result"):
        opened(path)


@pytest.mark.parametrize("number", [1, 2, 3, "N"])
def test_a_batch_of_any_number_runs_through_one_that_is_fixed_or_open(
    tmp_path: Path, number: Any
) -> None:
    shape = (number, 3, SIDE, SIDE)
    path = network(
        tmp_path / "net.onnx", [("x", np.float32, shape)], ("y", np.float32, shape),
        [("Neg", ["x"], ["y"], {})],
    )  # fmt: skip
    notices: list[str] = []
    restorer = opened(path, notices)
    for count in (1, 2, 5):
        windows = faces(count)
        torch.testing.assert_close(restorer(windows), 1 - windows[:, 0], atol=1e-6, rtol=0)
    assert notices == (
        [f"net.onnx computes {number} faces in each run, however few there are; "
         f"--batch-size {number} gives it as many where it can"]
        if number in (2, 3) else []
    )  # fmt: skip


def test_a_fixed_number_of_faces_that_mix_run_one_by_one(tmp_path: Path) -> None:
    shape = (3, 3, SIDE, SIDE)
    nodes = [("ReduceMean", ["x"], ["m"], {"axes": [0]}), ("Add", ["x", "m"], ["s"], {}),
             ("Mul", ["s", "half"], ["y"], {})]  # fmt: skip
    path = network(
        tmp_path / "net.onnx", [("x", np.float32, shape)], ("y", np.float32, shape), nodes,
        {"half": np.array(0.5, np.float32)},
    )  # fmt: skip
    notices: list[str] = []
    windows = faces(4)
    torch.testing.assert_close(opened(path, notices)(windows), windows[:, 0], atol=1e-5, rtol=0)
    assert notices == ["net.onnx takes 3 faces and mixes them, so each face runs by itself"]


@pytest.mark.parametrize("shape", [(1, 3, "H", "W"), ("N", "C", "H", "W"), ("N", 3, "H", 512)])
def test_an_open_size_is_that_of_most_restorers(tmp_path: Path, shape: Any) -> None:
    path = network(
        tmp_path / "net.onnx", [("x", np.float32, shape)], ("y", np.float32, shape),
        [("Identity", ["x"], ["y"], {})],
    )  # fmt: skip
    notices: list[str] = []
    restorer = opened(path, notices)
    assert restorer.size == 512
    assert [" leaves the size of its faces open" in each for each in notices] == (
        [True] if shape[3] == "W" else []
    )
    windows = faces(1, 512)
    torch.testing.assert_close(restorer(windows), windows[:, 0], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("shape", "weight"),
    [((1, 3, 48, 48), [1]), ((1, 4, 32, 32), [1]), ((1, 3, 32, 64), [1]), ((3, 32, 32), [1]),
     (PICTURE, [2]), (PICTURE, [1, 3])],
)  # fmt: skip
def test_other_shapes_are_refused_in_one_sentence(
    tmp_path: Path, shape: Any, weight: list[int]
) -> None:
    nodes = [("Identity", ["x"], ["y"], {}), ("Identity", ["w"], ["v"], {})]
    path = network(
        tmp_path / "net.onnx", [("w", np.float32, weight), ("x", np.float32, shape)],
        ("y", np.float32, shape), nodes,
    )  # fmt: skip
    with pytest.raises(WeightsError, match=r"a face restorer takes|only a single number") as error:
        opened(path)
    assert "\n" not in str(error.value)


def right(value: Any) -> Any:
    return value


def wrong(value: Any) -> Any:
    return value + np.float32(0.05)


def failing(value: Any) -> Any:
    raise RuntimeError("DML could not compile the graph\nat line 7")


def full(value: Any) -> Any:
    raise RuntimeError("Failed to allocate memory for requested buffer of size 9")


def plain_network(path: Path) -> Path:
    return network(path, [("x", np.float32, PICTURE)], ("y", np.float32, PICTURE),
                   [("Neg", ["x"], ["y"], {})])  # fmt: skip


def on(path: Path, device: str, *, is_auto: bool = False, notices: list[str] | None = None) -> Onnx:
    told = (lambda message: None) if notices is None else notices.append
    return Onnx(path, device=torch.device(device), is_auto=is_auto, fidelity=0.7, template="ffhq",
                on_notice=told)  # fmt: skip


@pytest.mark.parametrize(
    ("device", "provider"),
    [("cuda", "CUDA"), ("cuda", "MIGraphX"), ("cuda", "ROCM"), ("cuda", "Dml"),
     ("mps", "CoreML"), ("xpu", "OpenVINO"), ("xpu", "Dml")],
)  # fmt: skip
def test_each_device_has_its_providers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, provider: str
) -> None:
    machine = Machine(monkeypatch, **{provider: right})
    path = plain_network(tmp_path / "net.onnx")
    notices: list[str] = []
    restorer = on(path, device, notices=notices)
    assert notices == []
    assert restorer.name == f"net.onnx (onnxruntime, {provider}ExecutionProvider)"
    assert restorer.is_cheap
    assert len(machine.tried) == 1
    windows = faces(2)
    torch.testing.assert_close(restorer(windows), 1 - windows[:, 0], atol=1e-6, rtol=0)
    assert on(path, "cpu").name.endswith("CPUExecutionProvider)")
    # Torch has no device where onnxruntime has one.
    assert on(path, "cpu", is_auto=True).name == restorer.name


def test_a_provider_that_is_wrong_or_fails_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, CUDA=wrong, Dml=right)
    path = plain_network(tmp_path / "net.onnx")
    notices: list[str] = []
    # The next number format of the same provider is right.
    restorer = on(path, "cuda:1", notices=notices)
    assert restorer.is_cheap
    assert machine.tried == [
        ("CUDAExecutionProvider", {"device_id": "1"}),
        ("CUDAExecutionProvider", {"use_tf32": "0", "device_id": "1"}),
    ]
    assert len(notices) == 1
    assert (
        "does not run in CUDAExecutionProvider with TensorFloat-32, because the PSNR"
        in (notices[0])
    )
    notices.clear()
    Machine(monkeypatch, CoreML=wrong, Dml=failing)
    restorer = on(path, "mps", is_auto=True, notices=notices)
    assert restorer.name.endswith("CPUExecutionProvider)")
    assert not restorer.is_cheap
    assert [each.split(", because")[0] for each in notices] == [
        "net.onnx does not run in CoreMLExecutionProvider",
        "net.onnx does not run in DmlExecutionProvider",
    ]
    assert notices[1].endswith("it fails (DML could not compile the graph); the processor runs it")
    notices.clear()
    Machine(monkeypatch, CoreML=full)
    assert not on(path, "mps", notices=notices).is_cheap
    assert "it does not fit into the memory (Failed to allocate memory" in notices[0]


def test_a_provider_that_onnxruntime_does_not_start_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_onnxruntime(), "get_available_providers",
                        lambda: ["ROCMExecutionProvider", "CPUExecutionProvider"])  # fmt: skip
    open_session = onnx_session._session
    monkeypatch.setattr(onnx_session, "_session",
                        lambda path, wanted: open_session(path, wanted[-1:]))  # fmt: skip
    notices: list[str] = []
    restorer = on(plain_network(tmp_path / "net.onnx"), "cuda", notices=notices)
    assert restorer.name.endswith("CPUExecutionProvider)")
    assert len(notices) == 1
    assert "onnxruntime is built for it and cannot start it here" in notices[0]
