"""GPEN from the tensors of files of others, and writing the network as ONNX.

The files are read by `vidrestore.models.weight_file`; here it is told whether they hold a GPEN.
"""

import dataclasses
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from vidrestore.common.errors import WeightsError
from vidrestore.common.files import check_readable_kind
from vidrestore.models.gpen import ops
from vidrestore.models.gpen.network import BASE_CHANNELS, GPEN, GPENConfig
from vidrestore.models.weight_file import read_checkpoint, some_of

LOOKS_LIKE = (  # a part of some key -> the network it is known from
    ("stylegan_decoder.", "GFPGAN"),
    ("quantize.embedding", "CodeFormer, RestoreFormer or another vector-quantised network"),
    ("position_emb", "CodeFormer"),
    ("rdb1.conv1", "ESRGAN"),
    ("RDB1.conv1", "ESRGAN"),
    ("final_conv.0.weight", "a StyleGAN2 discriminator"),
    ("to_rgb1.conv.weight", "a StyleGAN2 generator without GPEN's encoder"),
)


def load_gpen(path: str | Path, expected_size: int | None = None) -> GPEN:
    """Return the GPEN stored in `path`, float32 on the CPU, in evaluation mode.

    Args:
        path: see `load_checkpoint`.
        expected_size: side in pixels the network must have, None for any.

    Raises:
        WeightsError: the file does not hold a GPEN, or one of another size.
        OSError: the file cannot be read.
    """
    config, state = load_checkpoint(path)
    if expected_size is not None and config.size != expected_size:
        raise WeightsError(
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
        WeightsError: the file is damaged, of another kind, would run code, or holds another
            network or weights that are not finite.
        OSError: the file cannot be read.
    """
    path = Path(path)
    check_readable_kind(path, "the weight file", WeightsError)
    state: Mapping[str, Tensor] = read_checkpoint(path)
    if path.suffix.lower() == ".onnx":
        state = _named(path, state)
    return _checked(path, state)


def state_dict_from_onnx(path: str | Path) -> dict[str, Tensor]:
    """Return the float32 state dict of a GPEN stored as ONNX, exactly as it was exported.

    Needs a graph whose initializers still carry the names of the checkpoint, as `export_onnx`
    writes it.  Exporters that fold scales into weights rename them and lose the originals.

    Raises:
        WeightsError: the file is not ONNX, or its initializers are not those of a GPEN.
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
        # The exporter by tracing is deprecated, yet the other one renames the initializers.
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


def _named(path: Path, arrays: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Of the initializers of an ONNX graph those that are weights under their own names."""
    named = {key: value for key, value in arrays.items() if "." in key}
    if not any(key.endswith("generator.input.input") for key in named):
        raise WeightsError(
            f"{path} does not fit: its {len(arrays)} initializers ({some_of(arrays)}) do not carry "
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
            raise WeightsError(
                f"{path} has {key} of shape {tuple(state[key].shape)} where a GPEN for "
                f"{config.size} px has {tuple(value.shape)}"
            )
        if not (state[key].is_floating_point() and state[key].isfinite().all()):
            raise WeightsError(
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
        raise WeightsError(f"{path} holds no possible GPEN: {error}") from error


def _unfilled(config: GPENConfig) -> GPEN:
    with torch.device("meta"):
        return GPEN(**dataclasses.asdict(config))


def _another_network(path: Path, state: Iterable[str], wanted: Iterable[str]) -> WeightsError:
    state, wanted = list(state), list(wanted)
    looks = next((name for part, name in LOOKS_LIKE if any(part in key for key in state)), None)
    missing = [key for key in wanted if key not in state]
    extra = [key for key in state if key not in wanted]
    return WeightsError(
        f"{path} does not hold a GPEN: missing {some_of(missing) or 'nothing'}, "
        f"not known {some_of(extra) or 'nothing'}" + (f"; it looks like {looks}" if looks else "")
    )
