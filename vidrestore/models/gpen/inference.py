"""GPEN prepared once for fast inference: the results of `GPEN.forward` in far fewer passes.

The preparation is exact up to rounding:

* Equalized-learning-rate scales and the gain sqrt(2) are folded into weights and biases; a leaky
  ReLU is positively homogeneous.
* One latent code feeds all layers, so one matrix product computes all styles.
* Where activations outnumber weights, style and demodulation are multiplied into the weights,
  sample by sample, as in SG2 (arXiv:1912.04958), section 2.2. Elsewhere they are multiplied into
  the activations, and one convolution serves the batch.
* Where the device multiplies faster than it reads its memory, the blur is folded into the
  resampling convolution. That takes four times the multiplications, and saves a pass over an
  intermediate result of full resolution.
* Where the processor's time goes into multiplications, 3 x 3 convolutions of many channels take a
  quarter of them, see `models.gpen.winograd`.
* Decoder maps and encoder features are concatenated in one of two buffers that all levels share.
  On the CPU they are written a few rows at a time, while the rows are in the cache.
"""

from copy import copy
from typing import cast

import torch
from torch import Tensor, nn

from vidrestore.models.gpen import layers, network, ops, variants

# Side in pixels. It costs little, and an error of the latent code would affect every style.
ENCODE_FLOAT32_BELOW = 64
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class InferenceGPEN(nn.Module):
    """A GPEN for inference only, on the device of the network that it is made from.

    The images of a batch do not affect each other. Several threads may call `forward` at once. The
    network keeps its working memory for the next call: at 2048 px 0.8 GB per image in 16 bits,
    twice that in float32. `release` frees it.

    Args:
        gpen: The network; it is not changed and may be freed afterwards.
        dtype: Type of convolutions and activations: float32 (default), float16 or bfloat16. The
            mapping network runs in float64 where `form` has it; styles, demodulation and the RGB
            image stay float32.
        form: Which variant of the computation is used. Default: the fastest on the CPU.

    Raises:
        ValueError: `dtype` is another type.
    """

    constant: Tensor

    def __init__(
        self,
        gpen: network.GPEN,
        dtype: torch.dtype = torch.float32,
        form: variants.InferenceForm | None = None,
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be float32, float16 or bfloat16, got {dtype}")
        self.config = gpen.config
        self.dtype = dtype
        self.form = variants.for_processor(dtype) if form is None else form
        self._latent_dtype = torch.float64 if self.form.has_float64 else torch.float32
        self._spare: list[Workspace] = []
        with torch.no_grad():
            self._prepare_encoder(gpen)
            self._prepare_decoder(gpen.generator)
        self.requires_grad_(False).eval()

    def _prepare_encoder(self, gpen: network.GPEN) -> None:
        self.encoder = nn.ModuleList(
            layers.Encode(stage, side, _encoder_dtype(side, self.dtype), self.form)
            for stage, side in zip(gpen.encoder(), reversed(self.config.sides), strict=True)
        )
        code, *mapping = (
            layers.Dense(layer, dtype=self._latent_dtype)
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
            layers.StyledConv(conv, sides[(index + 1) // 2], self.dtype, self.form)
            for index, conv in enumerate(convs)
        )
        self.rgbs = nn.ModuleList(layers.ToRGB(rgb, self.dtype) for rgb in rgbs)
        modulations = [layer.conv.modulation for layer in (*convs, *rgbs)]
        self.style_widths = [len(modulation.bias) for modulation in modulations]
        self.styles = layers.Dense(*modulations, dtype=self._latent_dtype)

    @torch.no_grad()
    def forward(self, image: Tensor, latent: Tensor | None = None) -> Tensor:
        """Restore faces.

        Args:
            image: (B, 3, S, S) RGB in [-1, 1], of a floating-point type.
            latent: (B, D) mapped latent codes. Default: the network computes them from the image.

        Returns:
            (B, 3, S, S) float32 RGB, nominally in [-1, 1] and not clamped, channels last in memory.

        Raises:
            ValueError: `image` has another shape.
        """
        self.check(image)
        workspace = self._workspace(len(image), image.device)
        restored = self.compute(image, workspace, latent)
        self._spare = [workspace]
        return restored

    @torch.no_grad()
    def latent(self, image: Tensor) -> Tensor:
        """Compute the mapped latent codes of faces, in which means are those of the styles.

        Args:
            image: (B, 3, S, S) RGB in [-1, 1], of a floating-point type.

        Returns:
            (B, D) float64, or float32 where `form` has no float64.

        Raises:
            ValueError: `image` has another shape.
        """
        self.check(image)
        workspace = self._workspace(len(image), image.device)
        latent = self._mapped(self._encode(image, workspace))
        self._spare = [workspace]
        return latent

    def check(self, image: Tensor) -> None:
        """Check the shape of a batch.

        Args:
            image: The batch.

        Raises:
            ValueError: The shape is not (B, 3, S, S).
        """
        size = self.config.size
        if image.dim() != 4 or image.shape[1:] != (3, size, size):
            raise ValueError(f"image must be (B, 3, {size}, {size}), got {tuple(image.shape)}")

    @torch.no_grad()
    def compute(
        self, image: Tensor, workspace: "Workspace", latent: Tensor | None = None
    ) -> Tensor:
        """Restore faces in the caller's working memory.

        The method neither waits for the device nor depends on a value, so that a CUDA graph can
        record it.

        Args:
            image: (B, 3, S, S) RGB in [-1, 1], of a floating-point type.
            workspace: Working memory for B images.
            latent: (B, D) mapped latent codes. Default: those of the image.

        Returns:
            (B, 3, S, S) float32 RGB, nominally in [-1, 1] and not clamped, channels last in memory.
        """
        x = self._encode(image, workspace)
        latent = self._mapped(x) if latent is None else latent.to(self._latent_dtype)
        styles = self.styles(latent).float().split(self.style_widths, dim=1)  # each (B, I)
        return self._decode(workspace, styles)

    def _encode(self, image: Tensor, workspace: "Workspace") -> Tensor:
        """Fill the features of the workspace, and return those of 4 px, (B, C, 4, 4)."""
        x = image
        for stage, feature in zip(self.encoder, reversed(workspace.features), strict=True):
            stage(x, feature)
            x = feature  # (B, C, side, side)
        return x

    def _mapped(self, features: Tensor) -> Tensor:
        """Return the mapped latent codes (B, D) of the encoder features of 4 px."""
        code = self.code(features.flatten(1))  # (B, 16 C) -> (B, D)
        return cast(Tensor, self.mapping(ops.pixel_norm(code)))

    def release(self) -> None:
        """Free the memory kept for the next call."""
        self._spare = []

    def _workspace(self, batch: int, device: torch.device) -> "Workspace":
        try:  # a thread that finds none makes its own
            workspace = self._spare.pop()
            if (workspace.batch, workspace.device) == (batch, device):
                return workspace
            del workspace  # before its successor is made
        except IndexError:
            pass
        return Workspace(self.config, batch, self.dtype, device)

    def _decode(self, workspace: "Workspace", styles: tuple[Tensor, ...]) -> Tensor:
        x = self.constant.expand(workspace.batch, -1, -1, -1)  # (B, C, 4, 4)
        image = torch.empty(0)  # the first level has nothing to upsample
        for level, to_rgb in enumerate(self.rgbs):
            feature, style = workspace.features[level], styles[len(self.convs) + level]
            if level:
                x = self._styled(2 * level - 1, x, feature, styles, workspace, None)
            if self.form.kernels is None:
                x = self._styled(2 * level, x, feature, styles, workspace, None)
                image = to_rgb(x, style, image)  # (B, 3, side, side)
            else:
                rgb = cast(layers.ToRGB, to_rgb).operands(feature.shape, style, image)
                x = self._styled(2 * level, x, feature, styles, workspace, rgb)
                image = rgb.out
        return image

    def _styled(
        self,
        index: int,
        x: Tensor,
        feature: Tensor,
        styles: tuple[Tensor, ...],
        workspace: "Workspace",
        rgb: variants.RgbSum | None,
    ) -> Tensor:
        maps = workspace.maps(feature, index)  # (B, side, side, 2 C)
        self.convs[index](x, feature, styles[index], maps, rgb)
        return maps.permute(0, 3, 1, 2)  # (B, 2 C, side, side)


class Workspace:
    """Working memory for one batch: the encoder features, and two buffers for decoder maps.

    A styled convolution reads one buffer and writes the other. The next call uses the memory again:
    touching fresh pages would cost more than the convolutions that fill them.

    Args:
        config: Shape of the network.
        batch: Number of images B.
        dtype: Type of the decoder maps, and of encoder features from 64 px up.
        device: Where the memory is; "meta" allocates none.
    """

    def __init__(
        self, config: network.GPENConfig, batch: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.batch, self.device = batch, device
        self.features: list[Tensor] = []  # (B, C, side, side), channels last in memory, 4 px first
        for side in config.sides:
            shape = (batch, side, side, config.channels(side))
            feature = torch.empty(shape, dtype=_encoder_dtype(side, dtype), device=device)
            self.features.append(feature.permute(0, 3, 1, 2))
        largest = max(2 * feature.numel() for feature in self.features)
        self.buffers = [torch.empty(largest, dtype=dtype, device=device) for _ in range(2)]

    def maps(self, feature: Tensor, index: int) -> Tensor:
        """Return memory for the result of a styled convolution.

        Args:
            feature: (B, C, side, side) encoder features of its level.
            index: Number of the convolution, from 0.

        Returns:
            (B, side, side, 2 C), a view of one of the two buffers.
        """
        batch, channels, side, _ = feature.shape
        room = self.buffers[index % 2][: 2 * feature.numel()]
        return room.view(batch, side, side, 2 * channels)

    def first_images(self, batch: int) -> "Workspace":
        """Return the same memory for fewer images.

        Args:
            batch: Number of images, at most that of this workspace.

        Returns:
            A workspace that shares this one's memory.
        """
        part = copy(self)
        part.batch = batch
        part.features = [feature[:batch] for feature in self.features]
        return part

    @property
    def byte_count(self) -> int:
        """Size of the memory in bytes."""
        return sum(each.numel() * each.element_size() for each in (*self.features, *self.buffers))


def _encoder_dtype(side: int, dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if side < ENCODE_FLOAT32_BELOW else dtype
