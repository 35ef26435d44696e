"""Networks of other authors in .pth files, which the package spandrel builds (an extra).

Vidrestore reads the file itself, as data; spandrel gets the weights and recognizes the network by
their names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidrestore.common.errors import UsageError, WeightsError
from vidrestore.common.quoting import first_line
from vidrestore.models.weight_file import without_prefix

if TYPE_CHECKING:
    import torch

SPANDREL, CODEFORMER = "spandrel", "codeformer"
"""The extras: networks that are free to use, and CodeFormer, which is for non-commercial use."""
# Names of weights that all networks of a family have, and the extra that builds them.
_FAMILIES = (
    ("GFPGAN", SPANDREL, ("stylegan_decoder.style_mlp.1.weight", "toRGB.0.weight")),
    ("CodeFormer", CODEFORMER, ("quantize.embedding.weight", "position_emb")),
    ("RestoreFormer", SPANDREL, ("quantize.embedding.weight", "encoder.conv_in.weight")),
)


def restorer_family(state: Mapping[str, torch.Tensor]) -> tuple[str, str] | None:
    """Recognize a face restorer by the names of its weights.

    Args:
        state: The weights, as `read_checkpoint` returns them.

    Returns:
        The name of the family, and that of the extra that runs it; None for another network.
    """
    for family, extra, needed in _FAMILIES:
        if without_prefix(state, needed[0]).keys() >= set(needed):
            return family, extra
    return None


def build(path: Path, state: Mapping[str, torch.Tensor], what: str, extra: str) -> Any:
    """Build the network that belongs to some weights.

    Args:
        path: The file, for messages.
        state: The weights, as `read_checkpoint` returns them.
        what: The kind of network that the file holds, for messages.
        extra: The extra that builds it.

    Returns:
        A descriptor of spandrel, whose `model` is the network in float32 on the CPU.

    Raises:
        UsageError: The extra is not installed, or cannot be imported.
        WeightsError: Spandrel knows no such network, or the weights do not fit into it.
    """
    spandrel, registry = _imported(path, what, extra)
    known = next((needed[0] for family, _, needed in _FAMILIES if family == what), "")
    plain = without_prefix(state, known) if known else spandrel.canonicalize_state_dict(dict(state))
    try:
        descriptor = spandrel.ModelLoader(registry=registry).load_from_state_dict(plain)
    except Exception as error:  # those of spandrel, and those of torch for weights that do not fit
        raise WeightsError(
            f"{path} cannot be loaded as {what}: {first_line(error)}; get the file again, or use "
            "an ONNX file of the network"
        ) from error
    descriptor.eval()
    descriptor.model.requires_grad_(False)
    return descriptor


def _imported(path: Path, what: str, extra: str) -> tuple[Any, Any]:
    """Return spandrel and the registry of an extra; UsageError where it cannot be imported."""
    try:
        import spandrel

        if extra == SPANDREL:
            return spandrel, spandrel.MAIN_REGISTRY
        import spandrel_extra_arches
    except ModuleNotFoundError as error:
        license_note = "" if extra == SPANDREL else " (for non-commercial use)"
        raise UsageError(
            f"{path} holds {what}, which the extra {extra} runs{license_note}, and the package "
            f"{error.name} is not installed; run pip install 'vidrestore[{extra}]', or use an ONNX "
            "file of the network"
        ) from error
    except Exception as error:  # a torchvision that does not suit torch raises RuntimeError
        raise UsageError(
            f"{path} holds {what}, and the package spandrel, which runs it, cannot be imported "
            f"({first_line(error)}); install the torchvision that belongs to the installed torch, "
            "or use an ONNX file of the network"
        ) from error
    return spandrel, spandrel_extra_arches.EXTRA_REGISTRY


def version_text(extra: str) -> str:
    """Return the names and versions of the packages of an extra, for keys.

    Args:
        extra: The extra, which is installed.

    Returns:
        Such as "spandrel 0.4.2".
    """
    from importlib.metadata import version

    names = ["spandrel", *(["spandrel_extra_arches"] if extra == CODEFORMER else [])]
    return ", ".join(f"{name} {version(name)}" for name in names)
