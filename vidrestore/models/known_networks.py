"""Networks that people keep beside GPEN, told apart by the names of their weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownNetwork:
    """A network, and how vidrestore uses it."""

    name: str
    """What the network is called, for messages."""
    parts: tuple[str, ...]
    """Parts of names of weights, all of which its state dict has."""
    advice: str
    """A clause that tells what the user can do with it."""
    lacks: str | None = None
    """A part that none of its names has."""
    kind: str | None = None
    """The kind of weight in the manifest that it is; None for none."""


_BY_ONNX = "vidrestore runs this network from an .onnx file, with --restorer FILE.onnx"
_BY_EXTRA = (
    "vidrestore runs this network with --restorer FILE, from an .onnx file, or as it is with the "
    "extra "
)
_TRAINING = (
    "it serves the training of networks only; for faces use GPEN-BFR-512.pth or another GPEN"
)
# A network that has the parts of another stands before it.
_NETWORKS = (
    KnownNetwork("GFPGAN", ("stylegan_decoder.",), f"{_BY_EXTRA}spandrel"),
    KnownNetwork("CodeFormer", ("quantize.embedding", "position_emb"), f"{_BY_EXTRA}codeformer"),
    KnownNetwork(
        "RestoreFormer", ("quantize.embedding", "encoder.conv_in."), f"{_BY_EXTRA}spandrel"
    ),
    KnownNetwork("a vector-quantized network", ("quantize.embedding",), _BY_ONNX),
    KnownNetwork(
        "ParseNet, a face parser",
        ("out_mask_conv.",),
        "use it with --set paste.parser=FILE",
        kind="parser",
    ),
    KnownNetwork(
        "BiSeNet, a face parser",
        ("cp.resnet.", "ffm.convblk."),
        "--set paste.parser=FILE takes it as an .onnx file",
    ),
    KnownNetwork(
        "RetinaFace, a face detector",
        ("BboxHead.", "LandmarkHead."),
        "vidrestore finds faces with --detector insightface or yunet",
    ),
    *(
        KnownNetwork(
            "RRDBNet, the network of ESRGAN, Real-ESRGAN and RealESRNet, which enlarges pictures",
            (part,),
            "--upscaler FILE takes it as it is with the extra spandrel, or as an .onnx file",
        )
        for part in ("rdb1.conv1.", "RDB1.conv1.")
    ),
    KnownNetwork(
        "IR-SE50, which compares identities",
        ("body.0.res_layer.",),
        _TRAINING,
        kind="identity",
    ),
    KnownNetwork(
        "a StyleGAN2 discriminator",
        ("convs.", "final_conv.0.weight"),
        _TRAINING,
        kind="discriminator",
    ),
    KnownNetwork(
        "a StyleGAN2 generator without GPEN's encoder",
        ("to_rgb1.conv.weight", "style."),
        "use a checkpoint of GPEN",
        lacks="ecd0.",
    ),
)


def identified(names: Iterable[str]) -> KnownNetwork | None:
    """Return the network whose weights have these names.

    Args:
        names: The names of the weights, with any prefix.

    Returns:
        The network; None where it is not known.
    """
    names = list(names)
    return next(
        (
            network
            for network in _NETWORKS
            if all(any(part in name for name in names) for part in network.parts)
            and not any(network.lacks is not None and network.lacks in name for name in names)
        ),
        None,
    )
