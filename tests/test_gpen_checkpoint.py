"""Weight files: what is read, what is refused, and that nothing in them runs."""

import pickle
from pathlib import Path

import gpen_formula as formula
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vidrestore.gpen import (
    GPEN,
    CheckpointError,
    GPENConfig,
    InferenceGPEN,
    export_onnx,
    load_checkpoint,
    load_gpen,
    state_dict_from_onnx,
)


@pytest.fixture(scope="module")
def gpen() -> GPEN:
    return formula.build("gpen-64")


@pytest.fixture
def state(gpen: GPEN) -> dict[str, Tensor]:
    return dict(gpen.state_dict())


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def assert_same(loaded: dict[str, Tensor], gpen: GPEN) -> None:
    wanted = gpen.state_dict()
    assert list(loaded) == list(wanted)
    assert all(torch.equal(loaded[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("wrapper", [None, "g_ema", "params_ema", "state_dict"])
def test_plain_and_wrapped(wrapper: str | None, tmp_path: Path, gpen: GPEN, state: dict) -> None:
    content = state if wrapper is None else {wrapper: state, "iteration": 7}
    config, loaded = load_checkpoint(save(tmp_path / "a.pth", content))
    assert config == gpen.config
    assert_same(loaded, gpen)


def test_kernels_may_be_absent(tmp_path: Path, gpen: GPEN, state: dict) -> None:
    bare = {key: value for key, value in state.items() if not key.endswith(".kernel")}
    assert len(bare) < len(state)
    assert_same(load_checkpoint(save(tmp_path / "a.pt", bare))[1], gpen)


def test_old_torch_format_and_halves(tmp_path: Path, gpen: GPEN, state: dict) -> None:
    halves = {key: value.half() for key, value in state.items()}
    torch.save(halves, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    loaded = load_gpen(tmp_path / "a.pth").state_dict()
    assert all(value.dtype == torch.float32 for value in loaded.values())
    assert torch.equal(loaded["ecd0.0.0.weight"], state["ecd0.0.0.weight"].half().float())


def test_safetensors(tmp_path: Path, gpen: GPEN, state: dict) -> None:
    save_file(state, tmp_path / "a.safetensors")
    assert_same(load_checkpoint(tmp_path / "a.safetensors")[1], gpen)


def test_loaded_network_computes(tmp_path: Path, gpen: GPEN, state: dict) -> None:
    image = formula.inputs("gpen-64")
    loaded = load_gpen(save(tmp_path / "a.pth", state), expected_size=64)
    assert torch.equal(InferenceGPEN(loaded)(image), InferenceGPEN(gpen)(image))


@pytest.mark.parametrize("name", ["gpen-64", "gpen-256", "gpen-512", "gpen-2048"])
def test_configuration_is_read_from_shapes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from vidrestore.gpen import checkpoint

    arguments = formula.shape_arguments(name)
    with torch.device("meta"):
        state = GPEN(**arguments).state_dict()
    assert checkpoint._config(Path(name), state) == GPENConfig(**arguments)


def test_onnx_round_trip(tmp_path: Path, gpen: GPEN) -> None:
    path = tmp_path / "gpen.onnx"
    export_onnx(gpen, path)
    assert_same(state_dict_from_onnx(path), gpen)
    assert load_gpen(path, expected_size=64).config == gpen.config
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    image = formula.inputs("gpen-64")  # a batch of two through a graph traced with one
    with torch.no_grad():
        expected = gpen(image)
    output = session.run(None, {"image": image.numpy()})[0]
    assert formula.relative_rms(output, expected) <= 5e-6


def save_graph(path: Path, arrays: dict[str, Tensor]) -> Path:
    value = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1])
    tensors = [onnx.numpy_helper.from_array(a.numpy(), name) for name, a in arrays.items()]
    graph = onnx.helper.make_graph([], "graph", [value], [], tensors)
    onnx.save(onnx.helper.make_model(graph), path)
    return path


def test_onnx_of_others_that_kept_the_names(tmp_path: Path, gpen: GPEN, state: dict) -> None:
    others = {"onnx::Constant_7": torch.zeros(3), **state}
    assert_same(state_dict_from_onnx(save_graph(tmp_path / "a.onnx", others)), gpen)


def test_onnx_without_names_does_not_fit(tmp_path: Path, state: dict) -> None:
    renamed = {f"onnx::Conv_{n}": value for n, value in enumerate(state.values())}
    path = save_graph(tmp_path / "a.onnx", renamed)
    with pytest.raises(CheckpointError, match=r"does not fit: its 106 initialisers \(onnx::Conv_0"):
        state_dict_from_onnx(path)


class Bomb:
    """Creates a file when unpickled carelessly."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("raw", [True, False])
def test_a_pickle_never_runs(raw: bool, tmp_path: Path, state: dict) -> None:
    path, target = tmp_path / "a.pth", tmp_path / "ran"
    if raw:
        path.write_bytes(pickle.dumps(Bomb(target)))
    else:
        torch.save({**state, "extra": Bomb(target)}, path)
    with pytest.raises(CheckpointError, match="would run code"):
        load_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"", r"is empty \(0 bytes\)"),
        ("a.safetensors", b"", r"is empty \(0 bytes\)"),
        ("a.pth", b"\n<!DOCTYPE html><html>Sign in</html>", "web page"),
        ("a.onnx", b"<html>404</html>", "web page"),
        ("a.pth", b"version https://git-lfs", "starts with b'vers'"),
        ("a.safetensors", b"\xff" * 64, "is damaged"),
        ("a.onnx", b"\xff" * 64, "not whole ONNX"),
        ("a.bin", b"x", r"ends in '\.bin' where weights end in \.pth"),
    ],
)
def test_files_of_another_kind(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / name)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".onnx"])
def test_cut_off_download(suffix: str, tmp_path: Path, state: dict) -> None:
    path = tmp_path / f"a{suffix}"
    write = {".pth": lambda: torch.save(state, path), ".onnx": lambda: save_graph(path, state)}
    write.get(suffix, lambda: save_file(state, path))()
    path.write_bytes(path.read_bytes()[:-100_000])
    with pytest.raises(CheckpointError, match=r"cut-off|damaged|not whole"):
        load_checkpoint(path)


def test_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "absent.pth")


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {}, {"epoch": 3}])
def test_no_state_dict(content: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="state dict"):
        load_checkpoint(save(tmp_path / "a.pth", content))


@pytest.mark.parametrize(
    ("keys", "looks"),
    [
        (["stylegan_decoder.style_mlp.1.weight"], "GFPGAN"),
        (["quantize.embedding.weight", "position_emb"], "CodeFormer"),
        (["body.0.rdb1.conv1.weight"], "ESRGAN"),
    ],
)
def test_other_networks_are_named(keys: list[str], looks: str, tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"params_ema": {key: torch.zeros(1) for key in keys}})
    with pytest.raises(CheckpointError, match=rf"not known {keys[0]}.*looks like .*{looks}") as no:
        load_checkpoint(path)
    assert "missing generator.style.1.weight" in str(no.value)
    assert "\n" not in str(no.value)


def test_missing_extra_and_misshapen_keys(tmp_path: Path, state: dict) -> None:
    path = tmp_path / "a.pth"
    bias = state.pop("final_linear.0.bias")
    with pytest.raises(CheckpointError, match=r"missing final_linear\.0\.bias, not known nothing"):
        load_checkpoint(save(path, state))
    state["final_linear.0.bias"] = bias[:-1]
    with pytest.raises(CheckpointError, match=r"shape \(63,\) where a GPEN for 64 px has \(64,\)"):
        load_checkpoint(save(path, state))
    state |= {"final_linear.0.bias": bias, "other": bias}
    with pytest.raises(CheckpointError, match="missing nothing, not known other"):
        load_checkpoint(save(path, state))


def test_another_size_than_expected(tmp_path: Path, state: dict) -> None:
    with pytest.raises(CheckpointError, match="for 64 px where one for 2048 px is wanted"):
        load_gpen(save(tmp_path / "a.pth", state), expected_size=2048)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float, tmp_path: Path, state: dict) -> None:
    state["ecd0.0.1.bias"] = torch.full((64,), value)
    with pytest.raises(CheckpointError, match=r"values in ecd0\.0\.1\.bias that are NaN"):
        load_checkpoint(save(tmp_path / "a.pth", state))
