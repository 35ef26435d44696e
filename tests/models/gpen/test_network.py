"""GPEN against the authors' numbers, and its fast form against its plain one."""

import sys
from pathlib import Path

import pytest
import torch
from helpers import gpen_formula as formula
from torch import Tensor

from vidrestore.models.gpen import ops, variants
from vidrestore.models.gpen.inference import InferenceGPEN
from vidrestore.models.gpen.network import GPEN, GPENConfig

NAMES = ("gpen-64", "gpen-256", "gpen-512", "gpen-2048")
PARITY = 5e-6  # relative rms in float64; the authors' own float32 numbers lie up to 2.4e-6 away

# Two float32 orders of summation. At 2048 the plain form lies 8e-6 from float64 on AVX2.
PARITY_FLOAT32 = 2e-5


def assert_parity(name: str, output: Tensor, bound: float = PARITY_FLOAT32) -> None:
    measured, expected = formula.measured(name, output), formula.expected(name)
    for part in ("strided", "centre", "mean", "std"):
        assert formula.relative_rms(measured[part], expected[part]) <= bound, part


@pytest.fixture(scope="module")
def small() -> GPEN:
    return formula.build("gpen-64")


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_is_the_checkpoints(name: str) -> None:
    with torch.device("meta"):
        gpen = GPEN(**formula.shape_arguments(name))
    entry = formula.manifest()[name]
    shapes = [(key, list(value.shape)) for key, value in gpen.state_dict().items()]
    assert shapes == list(entry["state_dict"].items())
    assert sum(parameter.numel() for parameter in gpen.parameters()) == entry["parameters"]


@pytest.mark.long
@pytest.mark.parametrize(
    "name", [*NAMES[:2], *(pytest.param(name, marks=pytest.mark.long) for name in NAMES[2:])]
)
def test_both_forms_give_the_authors_numbers(name: str) -> None:
    gpen, image = formula.build(name), formula.inputs(name)
    with torch.no_grad():
        assert_parity(name, gpen(image))
    prepared = InferenceGPEN(gpen)
    del gpen
    assert_parity(name, prepared(image))


@pytest.mark.parametrize("name", ["gpen-64", pytest.param("gpen-256", marks=pytest.mark.long)])
def test_float64_gives_the_authors_numbers(name: str) -> None:
    gpen, image = formula.build(name).double(), formula.inputs(name).double()
    with torch.no_grad():
        assert_parity(name, gpen(image), PARITY)


@pytest.mark.parametrize("form", [variants.PLAIN, variants.X86])
def test_each_form_gives_the_authors_numbers(small: GPEN, form: variants.InferenceForm) -> None:
    assert_parity("gpen-64", InferenceGPEN(small, form=form)(formula.inputs("gpen-64")))


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "gpen-64",
        "gpen-256",
        *(pytest.param(f"gpen-{size}", marks=pytest.mark.long) for size in (512, 2048)),
    ],
)
def test_half_precision_stays_close(name: str) -> None:
    if name in ("gpen-512", "gpen-2048") and not variants.has_bfloat16():
        pytest.skip("needs a processor with bfloat16: without it this takes 3 to 6 minutes")
    bounds = {torch.bfloat16: 1e-2, torch.float16: 2e-3}
    gpen, image = formula.build(name), formula.inputs(name)
    reference = InferenceGPEN(gpen)(image)
    for dtype, bound in bounds.items():
        output = InferenceGPEN(gpen, dtype)(image)
        assert output.dtype == torch.float32
        assert formula.relative_rms(output, reference) <= bound, dtype


@pytest.mark.long
@pytest.mark.parametrize("name", ["gpen-64", "gpen-256"])
def test_batch_equals_its_images(name: str) -> None:
    gpen, image = formula.build(name), formula.inputs(name)
    prepared = InferenceGPEN(gpen)
    for form in (prepared, torch.no_grad()(gpen)):
        together = form(image)
        alone = torch.cat([form(one[None]) for one in image])
        assert formula.relative_rms(together, alone) <= 1e-5


def test_textbook_form_gives_the_same(small: GPEN) -> None:
    sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
    from textbook_gpen import textbook

    image = formula.inputs("gpen-64")
    with torch.no_grad():
        assert formula.relative_rms(textbook(small, image), small(image)) <= PARITY_FLOAT32


def test_repeated_calls_agree_bit_for_bit(small: GPEN) -> None:
    prepared, image = InferenceGPEN(small, torch.bfloat16), formula.inputs("gpen-64")
    first = prepared(image)
    prepared(-image[:1])  # another batch size takes other memory
    assert torch.equal(prepared(image), first)
    prepared.release()
    assert torch.equal(prepared(image), first)


@pytest.mark.parametrize("factor", [1e-5, 1e5])
def test_float16_survives_extreme_styles(small: GPEN, factor: float) -> None:
    gpen = formula.build("gpen-64")
    for name, parameter in gpen.named_parameters():
        if "convs" in name and ".modulation." in name:
            parameter.mul_(factor)
    image = formula.inputs("gpen-64")
    reference = InferenceGPEN(gpen)(image)
    assert formula.relative_rms(InferenceGPEN(gpen, torch.float16)(image), reference) <= 2e-3


def test_strips_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    gpen, image = formula.build("gpen-256"), formula.inputs("gpen-256")[:1]
    for form in (variants.PLAIN, variants.X86):
        prepared = InferenceGPEN(gpen, form=form)
        whole = prepared(image)
        with monkeypatch.context() as patch:
            patch.setattr("vidrestore.models.gpen.layers.STRIP_ELEMENTS", 1)  # the smallest strips
            assert formula.relative_rms(prepared(image), whole) <= 1e-6


def test_gradients_reach_every_parameter() -> None:
    gpen = formula.build("gpen-64").requires_grad_(True)
    gpen(formula.inputs("gpen-64")[:1]).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in gpen.parameters())


def test_upsampling_keeps_a_constant_and_fades_at_the_border() -> None:
    kernel = ops.fir_kernel(gain=4.0)[None, None]
    image = ops.upsample(torch.ones(1, 1, 4, 4), kernel)[0, 0]
    assert torch.allclose(image[1:-1, 1:-1], torch.ones(6, 6))
    assert image[0, 3] == 0.75  # a quarter of the weight lies outside


@pytest.mark.parametrize("size", [0, 4, 100, 8192])
def test_impossible_sizes_are_named(size: int) -> None:
    with pytest.raises(ValueError, match=f"power of two from 8 to 4096, got {size}"):
        GPENConfig(size)


def test_wrong_input_and_dtype_are_named(small: GPEN) -> None:
    with pytest.raises(ValueError, match=r"\(B, 3, 64, 64\), got \(1, 3, 32, 32\)"):
        InferenceGPEN(small)(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"float32, float16 or bfloat16, got torch\.float64"):
        InferenceGPEN(small, torch.float64)
