"""GPEN, blind face restoration with a StyleGAN2 decoder (Yang et al. 2021, arXiv:2105.06070)."""

from vidrestore.models.gpen.checkpoint import (
    export_onnx,
    load_checkpoint,
    load_gpen,
    state_dict_from_onnx,
)
from vidrestore.models.gpen.inference import InferenceGPEN
from vidrestore.models.gpen.network import GPEN, GPENConfig

__all__ = [
    "GPEN",
    "GPENConfig",
    "InferenceGPEN",
    "export_onnx",
    "load_checkpoint",
    "load_gpen",
    "state_dict_from_onnx",
]
