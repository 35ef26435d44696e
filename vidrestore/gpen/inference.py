"""GPEN prepared once for fast inference: the numbers of `GPEN.forward` in far fewer passes.

All of it is exact algebra up to rounding:

* Equalised-learning-rate scales and the gain sqrt(2) are folded into weights and biases; a leaky
  ReLU is positively homogeneous.
* One latent code feeds all layers, so all styles are one matrix product.
* Where activations outnumber weights, style and demodulation are multiplied into the weights,
  sample by sample, as in SG2 (arXiv:1912.04958), section 2.2; elsewhere into the activations, and
  one convolution serves the batch.
* Where activations are largest the blur is folded into the resampling convolution: four times the
  multiplications, yet no pass over an intermediate of full resolution.
* Decoder maps and encoder features are written side by side into one of two buffers that all
  levels share, on CPU a few rows at a time while they are in cache.
"""

import torch
from torch import Tensor, nn

from vidrestore.gpen import layers, network, ops

ENCODE_FLOAT32_BELOW = 64  # px.  Cheap, and an error of the latent code is one of every style
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class InferenceGPEN(nn.Module):
    """A GPEN for inference only, on the device its source is on.

    Args:
        gpen: the network; it is not changed and may be freed afterwards.
        dtype: of convolutions and activations: float32, float16 or bfloat16.  The mapping network
            runs in float64; styles, demodulation and the RGB image stay float32.

    A batch gives what its images give one by one.  `forward` may be called from several threads.
    The memory it works in is kept for the next call (at 2048 px 0.8 GB per image in 16 bits,
    twice that in float32); `release` frees it.

    Raises:
        ValueError: another dtype.
    """

    constant: Tensor

    def __init__(self, gpen: network.GPEN, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be float32, float16 or bfloat16, got {dtype}")
        self.config = gpen.config
        self.dtype = dtype
        self._spare: list[_Workspace] = []
        with torch.no_grad():
            self._prepare_encoder(gpen)
            self._prepare_decoder(gpen.generator)
        self.requires_grad_(False).eval()

    def _prepare_encoder(self, gpen: network.GPEN) -> None:
        self.encoder = nn.ModuleList(
            layers.Encode(stage, side, _encoder_dtype(side, self.dtype))
            for stage, side in zip(gpen.encoder(), reversed(self.config.sides), strict=True)
        )
        code, *mapping = (
            layers.Dense(layer)
            for layer in (*gpen.final_linear, *gpen.generator.style)
            if isinstance(layer, network.EqualLinear)
        )
        self.code, self.mapping = code, nn.Sequential(*mapping)

    def _prepare_decoder(self, generator: network.Generator) -> None:
        self.register_buffer("constant", generator.input.input.to(self.dtype, copy=True))
        convs = [generator.conv1, *generator.convs]
        rgbs = [generator.to_rgb1, *generator.to_rgbs]
        sides = self.config.sides
        self.convs = nn.ModuleList(
            layers.StyledConv(conv, sides[(index + 1) // 2], self.dtype)
            for index, conv in enumerate(convs)
        )
        self.rgbs = nn.ModuleList(layers.ToRGB(rgb, self.dtype) for rgb in rgbs)
        modulations = [layer.conv.modulation for layer in (*convs, *rgbs)]
        self.style_widths = [len(modulation.bias) for modulation in modulations]
        self.styles = layers.Dense(*modulations)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Restore `image` (B, 3, S, S), RGB in [-1, 1], any float dtype.

        Returns float32 of the same shape, channels last in memory, not clamped.

        Raises:
            ValueError: `image` has another shape.
        """
        size = self.config.size
        if image.dim() != 4 or image.shape[1:] != (3, size, size):
            raise ValueError(f"image must be (B, 3, {size}, {size}), got {tuple(image.shape)}")
        workspace = self._workspace(len(image), image.device)
        x = image
        for stage, feature in zip(self.encoder, reversed(workspace.features), strict=True):
            stage(x, feature)
            x = feature  # (B, C, side, side)
        code = self.code(x.flatten(1))  # (B, 16 C) -> (B, D)
        latent = self.mapping(ops.pixel_norm(code))  # (B, D)
        styles = self.styles(latent).float().split(self.style_widths, dim=1)  # each (B, I)
        restored = self._decode(workspace, styles)
        self._spare = [workspace]
        return restored

    def release(self) -> None:
        """Free the memory kept for the next call."""
        self._spare = []

    def _workspace(self, batch: int, device: torch.device) -> "_Workspace":
        try:  # a thread that finds none makes its own
            workspace = self._spare.pop()
            if (workspace.batch, workspace.device) == (batch, device):
                return workspace
            del workspace  # before its successor is made
        except IndexError:
            pass
        return _Workspace(self.config, batch, self.dtype, device)

    def _decode(self, workspace: "_Workspace", styles: tuple[Tensor, ...]) -> Tensor:
        x = self.constant.expand(workspace.batch, -1, -1, -1)  # (B, C, 4, 4)
        image = torch.empty(0)  # the first level has nothing to upsample
        for level, to_rgb in enumerate(self.rgbs):
            for index in range(max(2 * level - 1, 0), 2 * level + 1):
                maps = workspace.maps(level, index)  # (B, side, side, 2 C)
                self.convs[index](x, workspace.features[level], styles[index], maps)
                x = maps.permute(0, 3, 1, 2)  # (B, 2 C, side, side)
            image = to_rgb(x, styles[len(self.convs) + level], image)  # (B, 3, side, side)
        return image


class _Workspace:
    """Memory for one batch: the encoder features, and two buffers for decoder maps.

    A styled convolution reads one buffer and writes the other.  All of it is used again by the
    next call: touching fresh pages would cost more than the convolutions that fill them.
    """

    def __init__(
        self, config: network.GPENConfig, batch: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.batch, self.device = batch, device
        self.features = []  # (B, C, side, side), channels last in memory, 4 px first
        for side in config.sides:
            shape = (batch, side, side, config.channels(side))
            feature = torch.empty(shape, dtype=_encoder_dtype(side, dtype), device=device)
            self.features.append(feature.permute(0, 3, 1, 2))
        largest = max(2 * feature.numel() for feature in self.features)
        self.buffers = [torch.empty(largest, dtype=dtype, device=device) for _ in range(2)]

    def maps(self, level: int, index: int) -> Tensor:
        """Return room for the result (B, side, side, 2 C) of styled convolution `index`."""
        batch, channels, side, _ = self.features[level].shape
        room = self.buffers[index % 2][: 2 * self.features[level].numel()]
        return room.view(batch, side, side, 2 * channels)


def _encoder_dtype(side: int, dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if side < ENCODE_FLOAT32_BELOW else dtype
