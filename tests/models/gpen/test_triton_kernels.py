"""Triton's kernels against the torch that defines them: on CUDA, else in Triton's interpreter."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from helpers import gpen_formula as formula
from torch import Tensor

from vidrestore.models.gpen import variants
from vidrestore.models.gpen.inference import InferenceGPEN

if find_spec("triton") is None:
    pytest.skip("triton is not installed", allow_module_level=True)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
if DEVICE.type == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
    # Triton looks at this when it is first imported, which another test may have done.
    pytest.skip("no CUDA device; TRITON_INTERPRET=1 runs this without", allow_module_level=True)
# What is stored is rounded once where torch rounds three times.
CLOSE = {torch.float32: 1e-6, torch.float16: 1e-3}
LAST = torch.channels_last


@pytest.fixture(scope="module")
def kernels() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        from vidrestore.models.gpen import triton_kernels

        if DEVICE.type == "cpu":  # which takes as long for a large tile as for a small one
            patch.setattr(triton_kernels, "TILE_ELEMENTS", 2**16)
            patch.setattr(triton_kernels, "BLOCK_ELEMENTS", 2**16)
        yield triton_kernels.TritonKernels()


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("form", [(256, 512), (64, 8)], ids=["blurred", "folded"])
def test_the_network_is_the_same(kernels: Any, dtype: torch.dtype, form: tuple[int, int]) -> None:
    gpen, image = formula.build("gpen-64"), formula.inputs("gpen-64").to(DEVICE)
    wanted = InferenceGPEN(gpen, dtype, variants.InferenceForm(*form)).to(DEVICE)(image)
    got = InferenceGPEN(gpen, dtype, variants.InferenceForm(*form, kernels)).to(DEVICE)(image)
    assert got.stride() == wanted.stride()
    assert formula.relative_rms(got.cpu(), wanted.cpu()) <= CLOSE[dtype]


@pytest.mark.parametrize("channels", [16, 24], ids=["a power of two", "none"])
@pytest.mark.parametrize("has_before", [False, True])
def test_the_rgb_sum_of_a_batch_with_gains(kernels: Any, channels: int, has_before: bool) -> None:
    random = torch.Generator().manual_seed(channels)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(DEVICE)

    y, feature = (normal(2, channels, 8, 8).contiguous(memory_format=LAST) for _ in range(2))
    gain, bias, beside = normal(2, channels), normal(channels), normal(channels * 8)
    beside = beside[:channels].repeat(8)
    weight, rgb_bias, before = normal(2, 3, 2 * channels), normal(3), normal(2, 4, 4, 3)
    kernel = normal(4, 4)
    out, rgb_out = normal(2, 8, 8, 2 * channels), normal(2, 8, 8, 3)
    rgb = variants.RgbSum(
        weight,
        rgb_bias,
        kernel if has_before else None,
        before.permute(0, 3, 1, 2),
        rgb_out.permute(0, 3, 1, 2),
    )
    kernels.join(y, feature, out, bias=bias, feature_bias=beside, feature_gain=0.7,
                 gain=gain, rgb=rgb)  # fmt: skip

    own = y * gain[:, :, None, None] + bias[:, None, None]
    both = torch.cat((own, 0.7 * feature + beside[:channels, None, None]), dim=1)
    maps = torch.nn.functional.leaky_relu(both, 0.2)
    colors = torch.einsum("bcx,bxhw->bchw", weight, maps) + rgb_bias[:, None, None]
    if has_before:
        colors += torch.nn.functional.conv_transpose2d(
            before.permute(0, 3, 1, 2), kernel.expand(3, 1, 4, 4), stride=2, padding=1, groups=3
        )
    torch.testing.assert_close(out.permute(0, 3, 1, 2), maps, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rgb.out, colors, atol=1e-4, rtol=1e-5)


def test_what_is_not_finite_stays_so(kernels: Any) -> None:
    y = torch.tensor([float("nan"), float("inf"), -float("inf"), 1.0] * 8, device=DEVICE)
    y = y.view(1, 2, 4, 4).contiguous(memory_format=LAST)
    out = torch.empty_like(y)
    kernels.activate(y, torch.zeros(2, device=DEVICE), out)
    assert torch.equal(out.isfinite(), y.isfinite())
