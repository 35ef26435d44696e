"""Checkpoints of GPEN: loading one from a weight file, and writing one as ONNX.

`vidrestore.models.weight_file` reads the files. This module checks that they hold a GPEN.
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
from vidrestore.models.known_networks import identified
from vidrestore.models.weight_file import read_checkpoint, some_of, without_prefix


def load_gpen(path: str | Path, expected_size: int | None = None) -> GPEN:
    """Load a GPEN from a weight file.

    Args:
        path: The file, in a format of `load_checkpoint`.
        expected_size: Side in pixels that the network must have; None for any.

    Returns:
        The network, float32 on the CPU, in evaluation mode.

    Raises:
        WeightsError: The file does not hold a GPEN, or holds one of another size.
        OSError: The file cannot be read.
    """
    config, state = load_checkpoint(path)
    if expected_size is not None and config.size != expected_size:
        raise WeightsError(
            f"{path} holds a GPEN for {config.size} px where one for {expected_size} px is needed; "
            "use the file of that size"
        )
    gpen = _meta_network(config)
    gpen.load_state_dict(state, strict=True, assign=True)
    return gpen.eval().requires_grad_(False)


def load_checkpoint(path: str | Path) -> tuple[GPENConfig, dict[str, Tensor]]:
    """Load the configuration and the state dict of a GPEN from a weight file.

    The shapes of the weights give size and widths. The fixed blur kernels may be missing.

    Args:
        path: The file, in a format of `read_checkpoint`; of an .onnx, see `state_dict_from_onnx`.
            The names of its weights may have a prefix.

    Returns:
        The configuration, and the float32 state dict of `GPEN` on the CPU.

    Raises:
        WeightsError: The file is damaged, of another kind, would run code, or holds another network
            or weights that are not finite.
        OSError: The file cannot be read.
    """
    path = Path(path)
    check_readable_kind(path, "the weight file", WeightsError)
    state: Mapping[str, Tensor] = read_checkpoint(path)
    if path.suffix.lower() == ".onnx":
        state = _named_weights(path, state)
    return _checked(path, state)


def state_dict_from_onnx(path: str | Path) -> dict[str, Tensor]:
    """Load the state dict of a GPEN that was exported as ONNX, without any change of the values.

    The initializers of the graph must have the names of the checkpoint, as `export_onnx` writes
    them. Exporters that fold scales into weights rename them and lose the originals.

    Args:
        path: The .onnx file.

    Returns:
        The float32 state dict of `GPEN` on the CPU.

    Raises:
        WeightsError: The file is not ONNX, or its initializers are not those of a GPEN.
        OSError: The file cannot be read.
    """
    return load_checkpoint(path)[1]


def export_onnx(gpen: GPEN, path: str | Path) -> None:
    """Write a GPEN as ONNX.

    The graph maps "image", (B, 3, S, S) float32 RGB in [-1, 1], to "restored" of the same shape and
    type. The weights are initializers with the names of the checkpoint, and stay unscaled, so that
    `state_dict_from_onnx` reads them unchanged. Runtimes fold the scales when they load the graph.

    Args:
        gpen: The network.
        path: The .onnx file to write.
    """
    image = torch.zeros(1, 3, gpen.config.size, gpen.config.size)
    batch = {0: "batch"}
    with warnings.catch_warnings():
        # The exporter by tracing is deprecated, but the other exporter renames the initializers.
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


def _named_weights(path: Path, arrays: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return those initializers of an ONNX graph that have names of weights."""
    named = {key: value for key, value in arrays.items() if "." in key}
    if not any(key.endswith("generator.input.input") for key in named):
        raise WeightsError(
            f"{path} does not fit: its {len(arrays)} initializers ({some_of(arrays)}) do not have "
            "the names of GPEN's weights; use the checkpoint from which the file was exported"
        )
    return named


def _checked(path: Path, state: Mapping[str, Tensor]) -> tuple[GPENConfig, dict[str, Tensor]]:
    """Return the configuration and the whole state dict; WeightsError where it is no GPEN's."""
    state = without_prefix(state, "generator.input.input")
    _check_sizes(path, state)
    config = _config(path, state)
    expected = _meta_network(config).state_dict()
    for key in expected.keys() - state.keys():
        if key.endswith(".kernel"):
            state[key] = ops.fir_kernel(gain=1.0 if key.startswith("ecd") else 4.0)
    if expected.keys() != state.keys():
        raise _another_network(path, state, expected)
    for key, value in expected.items():
        if state[key].shape != value.shape:
            raise WeightsError(
                f"{path} has {key} of shape {tuple(state[key].shape)} where a GPEN for "
                f"{config.size} px has {tuple(value.shape)}"
            )
        if not (state[key].is_floating_point() and state[key].float().isfinite().all()):
            raise WeightsError(
                f"{path} has values in {key} that are NaN, infinite or no floating-point numbers; "
                "get the file again"
            )
    return config, {key: state[key].float() for key in expected}


def _config(path: Path, state: Mapping[str, Tensor]) -> GPENConfig:
    """Derive the configuration from the names and shapes of the weights."""
    encoder = _numbered(state, "ecd")
    mapping = [key for key in state if re.fullmatch(r"generator\.style\.\d+\.weight", key)]
    try:
        base = state["generator.conv1.conv.weight"].shape[1]
        style_dim = state["generator.style.1.weight"].shape[1]
        if not encoder:
            raise KeyError("ecd0")
        size = 2 ** (2 + max(encoder))
        multiplier = 2  # has no effect without a level of 64 px
        if size >= 64:
            widest = f"ecd{max(encoder) - 4}.0.{1 if size == 64 else 2}.bias"
            multiplier = state[widest].shape[0] * 2 // base
        return GPENConfig(size, style_dim, len(mapping), multiplier, base / BASE_CHANNELS)
    except (KeyError, IndexError) as error:
        expected = _meta_network(GPENConfig(512)).state_dict()
        raise _another_network(path, state, expected) from error
    except ValueError as error:
        raise WeightsError(f"{path} holds a GPEN of an impossible shape: {error}") from error


def _numbered(state: Iterable[str], start: str) -> set[int]:
    """Return the numbers after the start of names; those that no network has count as none."""
    pattern = re.compile(rf"{re.escape(start)}([0-9]{{1,2}})\.")
    return {int(match[1]) for key in state if (match := pattern.match(key))}


def _meta_network(config: GPENConfig) -> GPEN:
    """Return a network whose tensors have shapes but no memory."""
    with torch.device("meta"):
        return GPEN(**dataclasses.asdict(config))


def _check_sizes(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raise WeightsError for FullGenerator_SR, whose generator is larger than its encoder.

    Its other weights have the names and shapes of a GPEN.
    """
    levels, steps = _numbered(state, "ecd"), _numbered(state, "generator.to_rgbs.")
    if not levels or not steps or levels != set(range(max(levels) + 1)):
        return
    given_px, made_px = 2 ** (2 + max(levels)), 2 ** (3 + max(steps))
    if made_px > given_px:
        raise WeightsError(
            f"{path} holds FullGenerator_SR, the GPEN that makes faces of {made_px} px from faces "
            f"of {given_px} px; vidrestore runs a GPEN that keeps the size, such as "
            "GPEN-BFR-512.pth"
        )


def _another_network(path: Path, state: Iterable[str], expected: Iterable[str]) -> WeightsError:
    """Return the error that names the network, or the missing and unknown weights."""
    state, expected = list(state), list(expected)
    if (network := identified(state)) is not None:
        return WeightsError(f"{path} holds {network.name}, not a GPEN; {network.advice}")
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    return WeightsError(
        f"{path} does not hold a GPEN: missing {some_of(missing) or 'nothing'}, "
        f"unknown {some_of(extra) or 'nothing'}; use a checkpoint of GPEN"
    )
