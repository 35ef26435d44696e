"""3 x 3 convolutions with a quarter of the multiplications, for processors and float32.

The method is Winograd's minimal filtering, F(4 x 4, 3 x 3) of Lavin and Gray 2015
(arXiv:1509.09308). A tile of 4 x 4 samples of the result depends on 6 x 6 samples of the maps.
Both, and the kernel of 3 x 3 weights, are transformed by small matrices in rows and columns; 36
products for each pair of channels replace 144. In float32, the rounding error is as large as that
of a plain convolution.

The transforms take time in proportion to the number of channels, the products to its square. So
the method gains only where channels are many.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

TILE_PX = 4  # side of a tile of the result
READ_PX = 6  # side of what it reads
# What is computed at a time: enough tiles for fast matrix products, few enough for the cache.
BLOCK_TILES, BLOCK_ELEMENTS = 64, 2**13

# The matrices of the paper's section 4.3.
_INPUT = torch.tensor(
    [
        [4.0, 0.0, -5.0, 0.0, 1.0, 0.0],
        [0.0, -4.0, -4.0, 1.0, 1.0, 0.0],
        [0.0, 4.0, -4.0, -1.0, 1.0, 0.0],
        [0.0, -2.0, -1.0, 2.0, 1.0, 0.0],
        [0.0, 2.0, -1.0, -2.0, 1.0, 0.0],
        [0.0, 4.0, 0.0, -5.0, 0.0, 1.0],
    ],
    device="cpu",
)
_KERNEL = torch.tensor(
    [
        [1 / 4, 0.0, 0.0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0.0, 0.0, 1.0],
    ],
    dtype=torch.float64,
    device="cpu",
)
_OUTPUT = torch.tensor(
    [
        [1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        [0.0, 1.0, -1.0, 2.0, -2.0, 0.0],
        [0.0, 1.0, 1.0, 4.0, 4.0, 0.0],
        [0.0, 1.0, -1.0, 8.0, -8.0, 1.0],
    ],
    device="cpu",
)
# For each row of a transform.
_INPUTS, _OUTPUTS = _INPUT.expand(READ_PX, -1, -1), _OUTPUT.expand(READ_PX, -1, -1)


class WinogradConv(nn.Module):
    """A 3 x 3 convolution of padding 1, with factors for its input and output channels.

    Args:
        weight: (O, I, 3, 3) float32 weights, on the CPU.
    """

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        transformed = torch.einsum("ai,bj,ocij->abco", _KERNEL, _KERNEL, weight.double())
        self.register_buffer("weight", transformed.flatten(0, 1).float())  # (36, I, O)

    def forward(
        self, x: Tensor, style: Tensor, gain: Tensor, bias: Tensor
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        """Yield gain * convolution(style * x) + bias, block by block.

        Args:
            x: (I, H, W) float32 maps, channels last in memory; H and W are powers of two, at
                least 4.
            style: (I,) factor of each input channel.
            gain: (O,) factor of each output channel.
            bias: (O,) added to each output channel.

        Yields:
            The rows and the columns of a block, and the block, (O, rows, columns), channels last
            in memory. Its memory is used again for the next block.
        """
        pixels = x.permute(1, 2, 0)  # (H, W, I)
        height, width, in_channels = pixels.shape
        # Threads share the tiles, and each has a cache.
        tiles = max(BLOCK_TILES, BLOCK_ELEMENTS // in_channels)
        tiles = 2 ** ((tiles * torch.get_num_threads()).bit_length() - 1)
        across = min(width // TILE_PX, tiles // 2)
        down = min(height // TILE_PX, tiles // across)
        memory = _BlockMemory(down, across, in_channels, len(gain))
        for top in range(0, height, TILE_PX * down):
            for left in range(0, width, TILE_PX * across):
                rows = slice(top, top + TILE_PX * down)
                columns = slice(left, left + TILE_PX * across)
                read = memory.with_border(pixels, rows, columns)
                block = memory.convolve(read, self.weight, style, gain, bias)
                yield rows, columns, block.permute(2, 0, 1)


class _BlockMemory:
    """What one block of tiles takes: its samples, their transforms, the products, the result.

    Each step writes one of the tensors; the views of them serve the matrix products.
    """

    def __init__(self, down: int, across: int, in_channels: int, out_channels: int) -> None:
        tiles = down * across
        self.around = torch.empty(TILE_PX * down + 2, TILE_PX * across + 2, in_channels)
        self.read = torch.empty(READ_PX, READ_PX, down, across, in_channels)
        self.half_read = torch.empty(READ_PX, READ_PX, tiles * in_channels)
        self.products = torch.empty(READ_PX**2, tiles, out_channels)
        self.half = torch.empty(READ_PX, TILE_PX, tiles * out_channels)
        self.tiles = torch.empty(TILE_PX, TILE_PX, down, across, out_channels)
        self.block = torch.empty(down, TILE_PX, across, TILE_PX, out_channels)

        self.read_by_rows = self.read.view(READ_PX, -1)
        self.half_read_by_rows = self.half_read.view(READ_PX, -1)
        self.read_by_columns = self.read.view(READ_PX, READ_PX, -1)
        self.read_by_tiles = self.read.view(READ_PX**2, tiles, in_channels)
        self.products_by_columns = self.products.view(READ_PX, READ_PX, -1)
        self.half_by_rows = self.half.view(READ_PX, -1)
        self.tiles_by_rows = self.tiles.view(TILE_PX, -1)
        self.tiles_in_place = self.tiles.permute(2, 0, 3, 1, 4)
        self.pixels = self.block.view(TILE_PX * down, TILE_PX * across, out_channels)

    def with_border(self, pixels: Tensor, rows: slice, columns: slice) -> Tensor:
        """Return a block of `pixels` (H, W, I) and one sample around it, zero beyond the maps."""
        height, width, _ = pixels.shape
        above, below = int(rows.start == 0), int(rows.stop == height)
        left, right = int(columns.start == 0), int(columns.stop == width)
        block = pixels[
            rows.start - 1 + above : rows.stop + 1 - below,
            columns.start - 1 + left : columns.stop + 1 - right,
        ]
        if above + below + left + right == 0:
            return block
        around = self.around
        around[above : len(around) - below, left : around.shape[1] - right].copy_(block)
        for beyond, at in ((above, 0), (below, -1)):
            if beyond:
                around[at].zero_()
        for beyond, at in ((left, 0), (right, -1)):
            if beyond:
                around[:, at].zero_()
        return around

    def convolve(
        self, pixels: Tensor, weight: Tensor, style: Tensor, gain: Tensor, bias: Tensor
    ) -> Tensor:
        """Return (4 down, 4 across, O) of `pixels` (4 down + 2, 4 across + 2, I)."""
        row, column, channel = pixels.stride()
        steps = (row, column, TILE_PX * row, TILE_PX * column, channel)
        overlapping = pixels.as_strided(self.read.shape, steps, pixels.storage_offset())
        torch.mul(overlapping, style, out=self.read)
        torch.mm(_INPUT, self.read_by_rows, out=self.half_read_by_rows)
        torch.bmm(_INPUTS, self.half_read, out=self.read_by_columns)
        torch.bmm(self.read_by_tiles, weight, out=self.products)
        torch.bmm(_OUTPUTS, self.products_by_columns, out=self.half)
        torch.mm(_OUTPUT, self.half_by_rows, out=self.tiles_by_rows)
        torch.addcmul(bias, self.tiles_in_place, gain, out=self.block)
        return self.pixels
