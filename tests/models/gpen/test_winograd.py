"""Winograd's form of a convolution against torch's, in float64."""

import pytest
import torch
from torch import nn

from vidrestore.models.gpen import variants, winograd
from vidrestore.models.gpen.winograd import WinogradConv


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("blocks", [(4, 1), (64, 2**13)])  # many blocks, some at no border; one
@pytest.mark.parametrize(("side", "channels"), [(4, 8), (16, 24), (32, 16)])
def test_it_is_the_convolution(
    side: int, channels: int, blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "BLOCK_TILES", blocks[0])
    monkeypatch.setattr(winograd, "BLOCK_ELEMENTS", blocks[1])
    x = normal(side, side, channels, seed=1).permute(2, 0, 1)
    weight = normal(12, channels, 3, 3, seed=2)
    style, gain, bias = normal(channels, seed=3), normal(12, seed=4), normal(12, seed=5)
    wanted = nn.functional.conv2d((x * style[:, None, None]).double(), weight.double(), padding=1)
    wanted = wanted * gain[:, None, None] + bias[:, None, None]
    got = torch.full_like(wanted, torch.nan)
    for rows, columns, block in WinogradConv(weight)(x, style, gain, bias):
        got[:, rows, columns] = block
    assert (got - wanted).norm() / wanted.norm() <= 2e-6


@pytest.mark.parametrize(
    ("capability", "flags", "dtype", "form"),
    [
        ("AVX2", set(), torch.float32, variants.X86),
        ("AVX512", {"avx512_bf16"}, torch.bfloat16, variants.X86),
        ("AVX512", {"avx512_bf16", "amx_bf16"}, torch.bfloat16, variants.PLAIN),
        ("AVX512", {"avx512_bf16", "amx_bf16"}, torch.float32, variants.X86),
        ("DEFAULT", {"bf16"}, torch.float32, variants.PLAIN),
    ],
)
def test_a_processor_gets_the_form_that_was_measured_on_it(
    capability: str,
    flags: set[str],
    dtype: torch.dtype,
    form: variants.InferenceForm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(flags, True))
    assert variants.for_processor(dtype) is form
    assert variants.is_faster_than_openvino(dtype) == (
        form is variants.X86 and dtype == torch.float32
    )
    assert variants.has_bfloat16() == bool(flags & {"amx_bf16", "bf16"})
