"""Each form of a kernel is compared with torch, and is left to torch by itself.

Needs torch, numpy and pytest alone, so that it runs on a machine that is only lent.
"""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import gpen_formula as formula
from torch import Tensor

from vidrestore.common.errors import UsageError
from vidrestore.models.gpen import cuda, variants
from vidrestore.models.gpen.inference import InferenceGPEN
from vidrestore.models.gpen.kernel_forms import (
    FORMS,
    TOLERANCES,
    CheckedKernels,
    KernelForm,
    TorchKernels,
    relative_error,
)

CPU = torch.device("cpu")
BLURRED, FOLDED = (256, 512), (64, 8)


def network(kernels: Any, blurs: tuple[int, int]) -> InferenceGPEN:
    return InferenceGPEN(formula.build("gpen-64"), form=variants.InferenceForm(*blurs, kernels))


class Broken(TorchKernels):
    """The kernels of a device on which some forms are wrong or fail."""

    wrong: frozenset[KernelForm] = frozenset()
    failing: frozenset[KernelForm] = frozenset()

    def __init__(self) -> None:
        self.seen: list[KernelForm] = []

    def _spoil(self, form: KernelForm, out: Tensor) -> None:
        self.seen.append(form)
        if form in self.failing:
            raise RuntimeError("no image for this device\nsecond line")
        if form in self.wrong:
            out.mul_(1.1)

    def activate(self, y: Tensor, bias: Tensor, out: Tensor) -> None:
        super().activate(y, bias, out)
        self._spoil(KernelForm(False), out)

    def join(self, y: Tensor, feature: Tensor, out: Tensor, **how: Any) -> None:
        super().join(y, feature, out, **how)
        rgb = how.get("rgb")
        kind = "none" if rgb is None else "first" if rgb.kernel is None else "next"
        source = "plain" if how.get("blur") is None else "blurred"
        form = KernelForm(True, "folded" if how.get("folded") else source,
                          has_gain=how.get("gain") is not None, rgb=kind)  # fmt: skip
        self._spoil(form, out if rgb is None else rgb.out)


def found(patch: pytest.MonkeyPatch, **broken: Any) -> tuple[Any, list[str]]:
    made = type("Made", (Broken,), {name: frozenset(forms) for name, forms in broken.items()})
    module = SimpleNamespace(TritonKernels=made)
    patch.setitem(sys.modules, "vidrestore.models.gpen.triton_kernels", module)
    told: list[str] = []
    return cuda.triton_kernels(CPU, told.append, torch.float32), told


@pytest.mark.parametrize("blurs", [BLURRED, FOLDED])
def test_torch_in_place_of_the_kernels_gives_the_network(blurs: tuple[int, int]) -> None:
    image = formula.inputs("gpen-64")
    wanted = network(None, blurs)(image)
    assert formula.relative_rms(network(TorchKernels(), blurs)(image), wanted) <= 1e-6


def test_the_forms_are_all_that_the_network_uses() -> None:
    seen = set[KernelForm]()
    for blurs in (BLURRED, FOLDED):
        kernels = Broken()
        network(kernels, blurs)(formula.inputs("gpen-64"))
        seen |= set(kernels.seen)
    assert seen == set(FORMS)
    assert len({form.name for form in FORMS}) == len(FORMS)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_each_form_is_compared_by_itself(form: KernelForm, dtype: torch.dtype) -> None:
    kernels = Broken()
    assert relative_error(kernels, form, CPU, dtype) == 0
    assert set(kernels.seen) == {form}
    kernels.wrong = frozenset({form})
    assert relative_error(kernels, form, CPU, dtype) > 0.05


@pytest.mark.parametrize("fault", ["wrong", "failing"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_falls_back_alone(
    monkeypatch: pytest.MonkeyPatch, form: KernelForm, fault: str
) -> None:
    kernels, told = found(monkeypatch, **{fault: {form}})
    assert isinstance(kernels, CheckedKernels)
    assert kernels.right == frozenset(FORMS) - {form}
    because = {"wrong": "it is wrong by 0.1", "failing": "it fails: no image for this device"}
    assert told == [
        f"Triton's kernel {form.name} is not used, because {because[fault]}; torch computes it, "
        "which is slower"
    ]


def test_the_network_is_right_with_forms_that_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    spoiled = [FORMS[0], FORMS[2], FORMS[4]]
    kernels, _ = found(monkeypatch, wrong=spoiled[:2], failing=spoiled[2:])
    image = formula.inputs("gpen-64")
    wanted = network(None, BLURRED)(image)
    assert formula.relative_rms(network(kernels, BLURRED)(image), wanted) <= 1e-6
    assert not set(kernels._kernels.seen[2 * len(FORMS) :]) & set(spoiled)
    # Without their blur, the decoder's blurs are folded from a smaller side on.
    assert cuda.form_for(CPU, dtype=torch.float32).fold_up_from == cuda.FOLD_UP_FROM_WITHOUT_TRITON


def test_where_no_form_is_right_one_notice_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    kernels, told = found(monkeypatch, failing=FORMS)
    assert kernels is None
    assert told == [
        "Triton cannot be used (its kernel fails: no image for this device); torch is used, which "
        "is slower"
    ]


def test_the_environment_switches_all_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDRESTORE_CUDA", "plain")
    assert cuda.is_plain()
    assert found(monkeypatch) == (None, [])
    assert cuda.form_for(CPU).kernels is None
    monkeypatch.setenv("VIDRESTORE_CUDA", "off")
    with pytest.raises(UsageError, match="VIDRESTORE_CUDA is 'off'; set it to plain"):
        cuda.form_for(CPU)
    monkeypatch.setenv("VIDRESTORE_CUDA", "")
    assert not cuda.is_plain()
    assert found(monkeypatch)[0].right == frozenset(FORMS)
