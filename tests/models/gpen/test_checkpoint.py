"""Weight files: what is read, what is refused, and that nothing in them runs."""

import pickle
import random
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from helpers import gpen_formula as formula
from safetensors.torch import save_file
from torch import Tensor

from vidrestore.common.errors import WeightsError
from vidrestore.models.gpen.checkpoint import (
    export_onnx,
    load_checkpoint,
    load_gpen,
    state_dict_from_onnx,
)
from vidrestore.models.gpen.inference import InferenceGPEN
from vidrestore.models.gpen.network import GPEN, GPENConfig
from vidrestore.models.onnx_session import import_onnxruntime
from vidrestore.models.weight_file import read_checkpoint


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
    from vidrestore.models.gpen import checkpoint

    arguments = formula.shape_arguments(name)
    with torch.device("meta"):
        state = GPEN(**arguments).state_dict()
    assert checkpoint._config(Path(name), state) == GPENConfig(**arguments)


def test_onnx_round_trip(tmp_path: Path, gpen: GPEN) -> None:
    path = tmp_path / "gpen.onnx"
    export_onnx(gpen, path)
    assert_same(state_dict_from_onnx(path), gpen)
    assert load_gpen(path, expected_size=64).config == gpen.config
    session = import_onnxruntime().InferenceSession(path, providers=["CPUExecutionProvider"])
    image = formula.inputs("gpen-64")  # a batch of two through a graph traced with one
    with torch.no_grad():
        expected = gpen(image)
    output = session.run(None, {"image": image.numpy()})[0]
    assert formula.relative_rms(output, expected) <= 5e-6


def save_graph(path: Path, arrays: dict[str, Tensor]) -> Path:
    value = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1])
    tensors = [onnx.numpy_helper.from_array(a.numpy(), name) for name, a in arrays.items()]
    graph = onnx.helper.make_graph([], "graph", [value], [value], tensors)
    onnx.save(onnx.helper.make_model(graph), path)
    return path


def test_onnx_of_others_that_kept_the_names(tmp_path: Path, gpen: GPEN, state: dict) -> None:
    others = {"onnx::Constant_7": torch.zeros(3), **state}
    assert_same(state_dict_from_onnx(save_graph(tmp_path / "a.onnx", others)), gpen)


def test_onnx_without_names_does_not_fit(tmp_path: Path, state: dict) -> None:
    renamed = {f"onnx::Conv_{n}": value for n, value in enumerate(state.values())}
    path = save_graph(tmp_path / "a.onnx", renamed)
    with pytest.raises(WeightsError, match=r"does not fit: its 106 initializers \(onnx::Conv_0"):
        state_dict_from_onnx(path)


@pytest.mark.parametrize(
    "name",
    ["ecd999999999999.0.weight", f"ecd{'9' * 5000}.bias", "generator.to_rgbs.9999999.bias",
     f"generator.to_rgbs.{'9' * 5000}.bias", "x" * 1_000_000, "a\nb\x1b[31m"],
    ids=["huge level", "level of digits", "huge step", "step of digits", "long", "control"],
)  # fmt: skip
def test_a_weight_with_an_odd_name_is_one_short_printable_line(
    tmp_path: Path, state: dict, name: str
) -> None:
    path = tmp_path / "a.pth"
    torch.save({**state, name: torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="does not hold a GPEN: missing nothing") as error:
        load_gpen(path)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < len(str(path)) + 400


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
    with pytest.raises(WeightsError, match="would run code"):
        load_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pth", b"", "is empty"),
        ("a.safetensors", b"", "is empty"),
        ("a.pth", b"\n<!DOCTYPE html><html>Sign in</html>", "web page"),
        ("a.onnx", b"<html>404</html>", "web page"),
        ("a.pth", b"version https://git-lfs", "Git LFS pointer"),
        ("a.safetensors", b"\xff" * 64, "not a whole"),
        ("a.onnx", b"\xff" * 64, "not a whole ONNX"),
        ("a.bin", b"x", r"is not a \.bin file: it begins with b'x'"),
        ("a.dat", b"x", r"ends in '\.dat' where weights end in \.pth"),
    ],
)
def test_files_of_another_kind(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_checkpoint(tmp_path / name)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".onnx"])
def test_cut_off_download(suffix: str, tmp_path: Path, state: dict) -> None:
    path = tmp_path / f"a{suffix}"
    write = {".pth": lambda: torch.save(state, path), ".onnx": lambda: save_graph(path, state)}
    write.get(suffix, lambda: save_file(state, path))()
    path.write_bytes(path.read_bytes()[:-100_000])
    with pytest.raises(WeightsError, match=r"cut short|damaged|not a whole"):
        load_checkpoint(path)


def test_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "absent.pth")


@pytest.mark.parametrize("content", [torch.zeros(3), [1, 2], {}, {"epoch": 3}])
def test_no_state_dict(content: object, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="state dict"):
        load_checkpoint(save(tmp_path / "a.pth", content))


def test_an_unknown_network_is_told_by_its_weights(tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", {"params_ema": {"layer.weight": torch.zeros(1)}})
    with pytest.raises(WeightsError, match=r"unknown layer\.weight; use a checkpoint") as no:
        load_checkpoint(path)
    assert "missing generator.style.1.weight" in str(no.value)
    assert "\n" not in str(no.value)


def test_missing_extra_and_misshapen_keys(tmp_path: Path, state: dict) -> None:
    path = tmp_path / "a.pth"
    bias = state.pop("final_linear.0.bias")
    with pytest.raises(WeightsError, match=r"missing final_linear\.0\.bias, unknown nothing"):
        load_checkpoint(save(path, state))
    state["final_linear.0.bias"] = bias[:-1]
    with pytest.raises(WeightsError, match=r"shape \(63,\) where a GPEN for 64 px has \(64,\)"):
        load_checkpoint(save(path, state))
    state |= {"final_linear.0.bias": bias, "other": bias}
    with pytest.raises(WeightsError, match="missing nothing, unknown other"):
        load_checkpoint(save(path, state))


def test_another_size_than_expected(tmp_path: Path, state: dict) -> None:
    with pytest.raises(WeightsError, match="for 64 px where one for 2048 px is needed"):
        load_gpen(save(tmp_path / "a.pth", state), expected_size=2048)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float, tmp_path: Path, state: dict) -> None:
    state["ecd0.0.1.bias"] = torch.full((64,), value)
    with pytest.raises(WeightsError, match=r"values in ecd0\.0\.1\.bias that are NaN"):
        load_checkpoint(save(tmp_path / "a.pth", state))


def test_weights_of_other_precisions(tmp_path: Path, state: dict) -> None:
    small = state["ecd0.0.1.bias"].to(torch.float8_e4m3fn)
    _, read = load_checkpoint(save(tmp_path / "a.pth", state | {"ecd0.0.1.bias": small}))
    assert torch.equal(read["ecd0.0.1.bias"], small.float())
    beyond = torch.full((64,), 1e300, dtype=torch.float64)  # infinite in float32
    with pytest.raises(WeightsError, match=r"values in ecd0\.0\.1\.bias that are NaN, infinite"):
        load_checkpoint(save(tmp_path / "a.pth", state | {"ecd0.0.1.bias": beyond}))


# Damage


def flipped(path: Path, place: int, bit: int, target: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    target.write_bytes(content)
    return target


def outcome(path: Path) -> dict[str, Tensor] | str:
    """What is read, or the sentence that says why nothing is."""
    try:
        return read_checkpoint(path)
    except WeightsError as error:
        return str(error)


def test_a_flipped_bit_among_the_weights_is_found(tmp_path: Path, state: dict) -> None:
    path = save(tmp_path / "a.pth", state)
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda member: member.file_size)
    place = largest.header_offset + 128 + largest.file_size // 2
    with pytest.raises(WeightsError, match=r"b\.pth is damaged: Bad CRC-32"):
        load_checkpoint(flipped(path, place, 1, tmp_path / "b.pth"))


def test_no_flipped_bit_anywhere_changes_the_weights_or_is_a_crash(tmp_path: Path) -> None:
    state = {f"layer{i}.weight": torch.arange(9.0) + i for i in range(6)}
    path = save(tmp_path / "a.pth", state)
    size, chance = path.stat().st_size, random.Random(17)
    directory = path.read_bytes().index(b"PK\x01\x02")
    places = [chance.randrange(size) for _ in range(300)]
    places += [chance.randrange(directory, size) for _ in range(300)]
    refused = 0
    for place in places:
        found = outcome(flipped(path, place, chance.randrange(8), tmp_path / "b.pth"))
        if isinstance(found, str):
            assert "\n" not in found
            refused += 1
        else:
            assert list(found) == list(state)
            assert all(torch.equal(found[key], state[key]) for key in state)
    assert 200 < refused < 600


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".pth"])
def test_a_flipped_bit_in_other_formats_is_no_crash(tmp_path: Path, suffix: str) -> None:
    state = {f"layer{i}.weight": torch.arange(9.0) + i for i in range(6)}
    path = tmp_path / f"a{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    elif suffix == ".onnx":
        save_graph(path, state)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=False)
    chance, size = random.Random(18), path.stat().st_size
    for _ in range(300):
        place, bit = chance.randrange(size), chance.randrange(8)
        found = outcome(flipped(path, place, bit, tmp_path / f"b{suffix}"))
        assert "\n" not in found or isinstance(found, dict)


def with_pickle(path: Path, content: bytes) -> Path:
    """A zip as torch writes it, with any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/byteorder", "little")
        archive.writestr("a/data/0", bytes(64))
        archive.writestr("a/version", "3\n")
    return path


STORAGE = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x10t"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n("


def tensor(sizes: bytes, strides: bytes, offset: bytes = b"K\x00") -> bytes:
    hooks = b"ccollections\nOrderedDict\n)R"
    rebuilt = REBUILD + STORAGE + b"Q" + offset + sizes + b"\x85" + strides + b"\x85"
    return b"\x80\x02}U\x01w" + rebuilt + b"\x89" + hooks + b"tRs."


LARGE = b"\x8a\x06" + (1 << 44).to_bytes(6, "little")


def test_the_pickle_made_here_is_read(tmp_path: Path) -> None:
    found = read_checkpoint(with_pickle(tmp_path / "a.pth", tensor(b"K\x10", b"K\x01")))
    assert torch.equal(found["w"], torch.zeros(16))


ODD_PICKLES = {
    "nested tuples, whose hash overflows the stack": b"\x80\x02}K\x01"
    + b"\x85" * 1_000_000
    + b"K\x02s.",
    "nested lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "names that are numbers": tensor(b"K\x10", b"K\x01").replace(b"U\x01w", b"K\x07", 1),
    "a persistent id that is a number": b"\x80\x02K\x01Q.",
    "a persistent id that is a short tuple": b"\x80\x02U\x07storage\x85Q.",
    "a persistent id of another kind": b"\x80\x02(U\x01xK\x01K\x01K\x01K\x01tQ.",
    "a persistent id as text": b"\x80\x02Phello\n.",
    "an unknown operation": b"\x80\x02\xff.",
    "a string without its end": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x.",
    "bytes without their end": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 45) + b"x.",
    "nothing on the stack": b"\x80\x02.",
    "a memo that is not there": b"\x80\x02h\x63.",
    "a protocol to come": b"\x80\x7fN.",
    "an empty pickle": b"",
    "text": b"hello",
    "more elements than numbers": tensor(LARGE, b"K\x01"),
    "one number as ever so many": tensor(LARGE, b"K\x00"),
    "an offset beyond": tensor(b"K\x10", b"K\x01", LARGE),
    "a negative size": tensor(b"J\xff\xff\xff\xff", b"K\x01"),
    "a negative stride": tensor(b"K\x10", b"J\xff\xff\xff\xff"),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("what", ODD_PICKLES)
def test_an_odd_pickle_is_one_sentence(tmp_path: Path, what: str, zipped: bool) -> None:
    path = tmp_path / "a.pth"
    if zipped:
        with_pickle(path, ODD_PICKLES[what])
    else:
        path.write_bytes(ODD_PICKLES[what].rjust(1, b"\x80"))
    with pytest.raises(WeightsError, match=r"a\.pth") as refused:
        read_checkpoint(path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 600


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_two_members_of_one_name_is_refused(tmp_path: Path, state: dict) -> None:
    path = save(tmp_path / "a.pth", state)
    with zipfile.ZipFile(path, "a") as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data/0"))
        archive.writestr(name, bytes(archive.getinfo(name).file_size))
    with pytest.raises(WeightsError, match=r"a\.pth is damaged: it holds a/data/0 more than once"):
        read_checkpoint(path)


def test_a_compressed_zip_is_refused(tmp_path: Path, state: dict) -> None:
    path = save(tmp_path / "a.pth", state)
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    with pytest.raises(WeightsError, match="compressed zip"):
        load_checkpoint(tmp_path / "b.pth")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torchscript_program_is_named_as_one(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Conv2d(3, 3, 1)).save(tmp_path / "a.pt")  # its code is compressed
    with pytest.raises(WeightsError, match=r"a\.pt is a TorchScript program"):
        read_checkpoint(tmp_path / "a.pt")


def test_an_onnx_of_other_types_is_one_sentence(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "a.onnx", {"w": torch.zeros(4)})
    model = onnx.load(path)
    model.graph.initializer[0].dims[0] = 1 << 40
    onnx.save(model, path)
    with pytest.raises(WeightsError, match=r"a\.onnx is damaged"):
        read_checkpoint(path)
    model.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(np.array(["text"], dtype=object), "w")
    )
    onnx.save(model, path)
    with pytest.raises(WeightsError, match=r"a\.onnx is damaged"):
        read_checkpoint(path)


def test_an_empty_network_needs_no_compiler_of_torch() -> None:
    """Shapes are read from one; arithmetic on the device "meta" would import sympy, in 1.1 s."""
    code = (
        "import sys, torch\nfrom vidrestore.models.gpen.network import GPEN\n"
        "with torch.device('meta'):\n    GPEN(64)\nprint('sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
