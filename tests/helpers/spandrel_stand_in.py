"""Stands in for the packages spandrel and spandrel_extra_arches, which need torchvision."""

import importlib.metadata
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch


class Network(torch.nn.Module):
    """Negates a picture, plus a tenth of CodeFormer's weight; notes how it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))
        self.calls: list[dict[str, Any]] = []

    def forward(self, image: torch.Tensor, weight: float = 0.0, **how: Any) -> Any:
        self.calls.append({"low": float(image.min()), "weight": weight, **how})
        return -image * self.gain + 0.1 * weight, None


class Descriptor:
    """What spandrel describes a network with."""

    purpose, input_channels, output_channels = "FaceSR", 3, 3
    supports_half, supports_bfloat16 = False, True

    def __init__(self, model: torch.nn.Module, name: str, **changes: Any) -> None:
        self.model, self.architecture = model, SimpleNamespace(name=name)
        vars(self).update(changes)

    def eval(self) -> None:
        self.model.eval()

    def to(self, device: Any, dtype: Any) -> "Descriptor":
        self.model.to(dtype=dtype)
        return self

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return self.model(image).clamp(0, 1)


class Packages:
    """The installed packages; `descriptors` are what was built, `registries` what was asked."""

    def __init__(self, patch: pytest.MonkeyPatch, made: Any = None) -> None:
        self.descriptors: list[Descriptor] = []
        self.registries: list[str] = []
        self.states: list[dict[str, torch.Tensor]] = []
        packages = self

        class ModelLoader:
            def __init__(self, registry: str) -> None:
                packages.registries.append(registry)

            def load_from_state_dict(self, state: dict[str, torch.Tensor]) -> Descriptor:
                packages.states.append(state)
                packages.descriptors.append(made() if made else Descriptor(Network(), "stand-in"))
                return packages.descriptors[-1]

        main, extra = ModuleType("spandrel"), ModuleType("spandrel_extra_arches")
        vars(main).update(ModelLoader=ModelLoader, MAIN_REGISTRY="main")
        vars(main).update(canonicalize_state_dict=lambda state: state)
        vars(extra).update(EXTRA_REGISTRY="extra")
        patch.setitem(sys.modules, "spandrel", main)
        patch.setitem(sys.modules, "spandrel_extra_arches", extra)
        patch.setattr(importlib.metadata, "version", lambda name: "1.0")
