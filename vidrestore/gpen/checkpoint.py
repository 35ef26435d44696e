"""Reading GPEN weights from files of others, and writing the network as ONNX.

Nothing in a file is ever executed: pickles are read with torch's `weights_only` unpickler.
"""

import dataclasses
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from vidrestore.gpen import ops
from vidrestore.gpen.network import BASE_CHANNELS, GPEN, GPENConfig

WRAPPERS = ("g_ema", "params_ema", "params", "state_dict")
LOOKS_LIKE = (  # a part of some key -> the network it is known from
    ("stylegan_decoder.", "GFPGAN"),
    ("quantize.embedding", "CodeFormer, RestoreFormer or another vector-quantised network"),
    ("position_emb", "CodeFormer"),
    ("rdb1.conv1", "ESRGAN"),
    ("RDB1.conv1", "ESRGAN"),
    ("final_conv.0.weight", "a StyleGAN2 discriminator"),
    ("to_rgb1.conv.weight", "a StyleGAN2 generator without GPEN's encoder"),
)
SOME_KEYS = 3  # named in a message


class CheckpointError(ValueError):
    """A weight file that is not what it should be; the message is one sentence."""


def load_gpen(path: str | Path, expected_size: int | None = None) -> GPEN:
    """Return the GPEN stored in `path`, float32 on the CPU, in evaluation mode.

    Args:
        path: see `load_checkpoint`.
        expected_size: side in pixels the network must have, None for any.

    Raises:
        CheckpointError: the file does not hold a GPEN, or one of another size.
        OSError: the file cannot be read.
    """
    config, state = load_checkpoint(path)
    if expected_size is not None and config.size != expected_size:
        raise CheckpointError(
            f"{path} holds a GPEN for {config.size} px where one for {expected_size} px is wanted"
        )
    gpen = _unfilled(config)
    gpen.load_state_dict(state, strict=True, assign=True)
    return gpen.eval().requires_grad_(False)


def load_checkpoint(path: str | Path) -> tuple[GPENConfig, dict[str, Tensor]]:
    """Return the configuration and the float32 state dict stored in `path`.

    `path` ends in .pth or .pt (a state dict, plain or under g_ema, params_ema, params or
    state_dict), .safetensors, or .onnx (see `state_dict_from_onnx`).  Sizes and widths are read
    from the weights; the fixed blur kernels may be absent.

    Raises:
        CheckpointError: the file is damaged, of another kind, would run code, or holds another
            network or weights that are not finite.
        OSError: the file cannot be read.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], Mapping[str, Tensor]]] = {
        ".pth": _read_torch,
        ".pt": _read_torch,
        ".safetensors": _read_safetensors,
        ".onnx": _read_onnx,
    }
    if path.suffix.lower() not in readers:
        raise CheckpointError(
            f"{path} ends in {path.suffix!r} where weights end in {', '.join(readers)}"
        )
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise CheckpointError(f"{path} is empty (0 bytes) where GPEN weights are wanted")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CheckpointError(f"{path} is a web page saved under the name of a weight file")
    return _checked(path, readers[path.suffix.lower()](path))


def state_dict_from_onnx(path: str | Path) -> dict[str, Tensor]:
    """Return the float32 state dict of a GPEN stored as ONNX, exactly as it was exported.

    Needs a graph whose initialisers still carry the names of the checkpoint, as `export_onnx`
    writes it.  Exporters that fold scales into weights rename them and lose the originals.

    Raises:
        CheckpointError: the file is not ONNX, or its initialisers are not those of a GPEN.
        OSError: the file cannot be read.
    """
    return load_checkpoint(path)[1]


def export_onnx(gpen: GPEN, path: str | Path) -> None:
    """Write `gpen` as ONNX: "image" (B, 3, S, S) in [-1, 1] -> "restored", float32.

    Weights are constants of the graph, under their checkpoint names, and stay unscaled, so that
    `state_dict_from_onnx` gives them back; runtimes fold the scales when they load the graph.
    """
    image = torch.zeros(1, 3, gpen.config.size, gpen.config.size)
    batch = {0: "batch"}
    with warnings.catch_warnings():
        # The exporter by tracing is deprecated, yet the other one renames the initialisers.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            gpen,
            (image,),
            str(path),
            dynamo=False,
            opset_version=17,
            do_constant_folding=False,
            input_names=["image"],
            output_names=["restored"],
            dynamic_axes={"image": batch, "restored": batch},
        )


def _read_torch(path: Path) -> Mapping[str, Tensor]:
    with path.open("rb") as file:
        magic = file.read(4)
    zipped = zipfile.is_zipfile(path)
    if not zipped and magic.startswith(b"PK"):
        raise CheckpointError(f"{path} is a cut-off zip archive of {path.stat().st_size} bytes")
    if not zipped and not magic.startswith(b"\x80"):
        raise CheckpointError(f"{path} starts with {magic!r}, which no file of torch.save does")
    if zipped and _holds_program(path):
        raise CheckpointError(f"{path} is a TorchScript program where a state dict is wanted")
    try:
        with warnings.catch_warnings():
            # Torch says what it finds odd in a pickle; what cannot be read raises all the same.
            warnings.simplefilter("ignore", UserWarning)
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        named = f" ({wanted[1]})" if wanted else ""
        raise CheckpointError(
            f"{path} was not loaded: it is damaged or would run code{named} where only tensors "
            "are allowed"
        ) from error
    except (RuntimeError, EOFError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged: {_first_line(error)}") from error
    return _unwrapped(path, loaded)


def _holds_program(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _unwrapped(path: Path, loaded: Any) -> Mapping[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping):
        raise CheckpointError(
            f"{path} holds an object of type {type(loaded).__name__} where a state dict is wanted"
        )
    others = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if others or not loaded:
        raise CheckpointError(
            f"{path} is no state dict: {_some(others) or 'nothing'} where names of tensors or one "
            f"of {', '.join(WRAPPERS)} are wanted"
        )
    return cast(Mapping[str, Tensor], loaded)


def _read_safetensors(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {_first_line(error)}") from error


def _read_onnx(path: Path) -> Mapping[str, Tensor]:
    import onnx
    from onnx import numpy_helper

    try:
        graph = onnx.load(path).graph
        arrays = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    except OSError:
        raise
    except Exception as error:  # protobuf's and onnx's own, which share no base
        raise CheckpointError(f"{path} is not whole ONNX: {_first_line(error)}") from error
    named = {key: torch.tensor(array) for key, array in arrays.items() if "." in key}
    if not any(key.endswith("generator.input.input") for key in named):
        raise CheckpointError(
            f"{path} does not fit: its {len(arrays)} initialisers ({_some(arrays)}) do not carry "
            "the names of GPEN's weights, so they cannot be read back"
        )
    return named


def _checked(path: Path, state: Mapping[str, Tensor]) -> tuple[GPENConfig, dict[str, Tensor]]:
    state = {key.removeprefix("module."): value for key, value in state.items()}
    config = _config(path, state)
    wanted = _unfilled(config).state_dict()
    for key in wanted.keys() - state.keys():
        if key.endswith(".kernel"):
            state[key] = ops.fir_kernel(gain=1.0 if key.startswith("ecd") else 4.0)
    if wanted.keys() != state.keys():
        raise _another_network(path, state, wanted)
    for key, value in wanted.items():
        if state[key].shape != value.shape:
            raise CheckpointError(
                f"{path} has {key} of shape {tuple(state[key].shape)} where a GPEN for "
                f"{config.size} px has {tuple(value.shape)}"
            )
        if not (state[key].is_floating_point() and state[key].isfinite().all()):
            raise CheckpointError(
                f"{path} has values in {key} that are NaN, infinite or no floating-point numbers"
            )
    return config, {key: state[key].float() for key in wanted}


def _config(path: Path, state: Mapping[str, Tensor]) -> GPENConfig:
    encoder = [int(found[1]) for key in state if (found := re.match(r"ecd(\d+)\.", key))]
    mapping = [key for key in state if re.fullmatch(r"generator\.style\.\d+\.weight", key)]
    try:
        base = state["generator.conv1.conv.weight"].shape[1]
        style_dim = state["generator.style.1.weight"].shape[1]
        size = 2 ** (2 + max(encoder))
        multiplier = 2  # without a level of 64 px nothing depends on it
        if size >= 64:
            widest = f"ecd{max(encoder) - 4}.0.{1 if size == 64 else 2}.bias"
            multiplier = state[widest].shape[0] * 2 // base
        return GPENConfig(size, style_dim, len(mapping), multiplier, base / BASE_CHANNELS)
    except (KeyError, IndexError) as error:
        wanted = _unfilled(GPENConfig(512)).state_dict()
        raise _another_network(path, state, wanted) from error
    except ValueError as error:
        raise CheckpointError(f"{path} holds no possible GPEN: {error}") from error


def _unfilled(config: GPENConfig) -> GPEN:
    with torch.device("meta"):
        return GPEN(**dataclasses.asdict(config))


def _another_network(path: Path, state: Iterable[str], wanted: Iterable[str]) -> CheckpointError:
    state, wanted = list(state), list(wanted)
    looks = next((name for part, name in LOOKS_LIKE if any(part in key for key in state)), None)
    missing = [key for key in wanted if key not in state]
    extra = [key for key in state if key not in wanted]
    return CheckpointError(
        f"{path} does not hold a GPEN: missing {_some(missing) or 'nothing'}, "
        f"not known {_some(extra) or 'nothing'}" + (f"; it looks like {looks}" if looks else "")
    )


def _some(keys: Iterable[str]) -> str:
    keys = list(keys)
    more = f" and {len(keys) - SOME_KEYS} more" if len(keys) > SOME_KEYS else ""
    return ", ".join(keys[:SOME_KEYS]) + more


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
