"""GPEN computed as SG2's reference does it: what the shipped form is measured against.

Every sample has its own modulated and demodulated weights, convolved as groups (SG2,
arXiv:1912.04958, section 2.2); resampling inserts zeros, pads and filters plane by plane; encoder
features are concatenated; everything is float32.
"""

import torch
from torch import Tensor, nn

from vidrestore.models.gpen import network, ops
from vidrestore.models.gpen.network import GPEN


@torch.no_grad()
def textbook(gpen: GPEN, image: Tensor) -> Tensor:
    """Return what `gpen(image)` gives, (B, 3, S, S), up to rounding."""
    x, features = image, []
    for stage in gpen.encoder():
        for layer in stage:
            x = fir(x, layer.kernel, pad=(2, 2)) if isinstance(layer, network.Blur) else layer(x)
        features.append(x)
    generator = gpen.generator
    latent = generator.style(gpen.final_linear(x.flatten(1)))  # (B, D)
    x = generator.input.input.repeat(len(image), 1, 1, 1)
    x = styled(generator.conv1, x, latent, features[-1])
    rgb = to_rgb(generator.to_rgb1, x, latent, None)
    for level, layer in enumerate(generator.to_rgbs):
        for conv in generator.convs[2 * level : 2 * level + 2]:
            x = styled(conv, x, latent, features[-2 - level])
        rgb = to_rgb(layer, x, latent, rgb)
    return rgb


def styled(layer: network.StyledConv, x: Tensor, latent: Tensor, feature: Tensor) -> Tensor:
    return layer.activate(layer.noise(modulated(layer.conv, x, latent), feature))


def to_rgb(layer: network.ToRGB, x: Tensor, latent: Tensor, image: Tensor | None) -> Tensor:
    rgb = modulated(layer.conv, x, latent) + layer.bias
    if layer.upsample is None:
        return rgb
    return rgb + fir(image, layer.upsample.kernel, up=2, pad=(2, 1))


def modulated(layer: network.ModulatedConv2d, x: Tensor, latent: Tensor) -> Tensor:
    """Convolve each sample of `x` (B, I, H, W) with its own weights (SG2, eq. 1 and 3)."""
    batch, channels, height, width = x.shape
    style = layer.modulation(latent).view(batch, 1, channels, 1, 1)
    weight = layer.scale * layer.weight * style  # (B, O, I, k, k)
    if layer.demodulate:
        energy = weight.square().sum((2, 3, 4), keepdim=True)
        weight = weight * torch.rsqrt(energy + ops.DEMODULATION_EPS)
    x = x.reshape(1, batch * channels, height, width)
    if layer.blur is None:
        side = weight.shape[-1]
        out = nn.functional.conv2d(x, weight.flatten(0, 1), padding=side // 2, groups=batch)
        return out.view(batch, -1, height, width)
    weight = weight.transpose(1, 2).flatten(0, 1)  # (B I, O, k, k)
    out = nn.functional.conv_transpose2d(x, weight, stride=2, groups=batch)
    return fir(out.view(batch, -1, *out.shape[2:]), layer.blur.kernel, pad=(1, 1))


def fir(x: Tensor, kernel: Tensor, *, up: int = 1, pad: tuple[int, int]) -> Tensor:
    """Insert `up` - 1 zeros behind every sample, pad with zeros, filter."""
    batch, channels, height, width = x.shape
    if up > 1:
        x = x.reshape(-1, 1, height, 1, width, 1)
        x = nn.functional.pad(x, (0, up - 1, 0, 0, 0, up - 1))
    x = x.reshape(-1, 1, height * up, width * up)
    x = nn.functional.conv2d(nn.functional.pad(x, (*pad, *pad)), kernel.flip(0, 1)[None, None])
    return x.view(batch, channels, *x.shape[2:])
