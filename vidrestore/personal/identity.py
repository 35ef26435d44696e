"""The network whose embeddings measure how alike two faces are, as a loss for training.

It is ArcFace's (Deng et al. 2019, arXiv:1801.07698) ResNet of 50 layers with squeeze and excitation
(Hu et al. 2018, arXiv:1709.01507). `vidrestore.models.recognizer` compares faces of a video by
another network, through which no gradient flows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from vidrestore.common.errors import WeightsError
from vidrestore.common.files import check_readable_kind
from vidrestore.imaging.geometry import template
from vidrestore.models.detectors import Detection
from vidrestore.models.recognizer import Recognition
from vidrestore.models.weight_file import read_checkpoint
from vidrestore.personal.discriminator import check_tensors

INPUT_PX = 112
"""Side of the face that the network sees."""
# (top, bottom, left, right) of the face in a crop, in pixels of a crop of 256 px.
_FACE_PX, _CROP_PX = (35, 223, 32, 220), 256
_STAGES = ((64, 64, 3), (64, 128, 4), (128, 256, 14), (256, 512, 3))  # inputs, outputs, blocks
_REDUCTION = 16
_DIMENSION = 512


class SqueezeExcitation(nn.Module):
    """Scales each channel by a factor that depends on the means of all channels.

    Args:
        channels: Number of channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // _REDUCTION, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // _REDUCTION, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel.

        Args:
            x: (B, C, H, W).

        Returns:
            (B, C, H, W).
        """
        means = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(means))))


class Bottleneck(nn.Module):
    """Residual block of ArcFace's ResNet, with squeeze and excitation.

    Args:
        in_channels: Number of input channels I.
        out_channels: Number of output channels O.
        stride: Stride in rows and columns.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if in_channels != out_channels:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.PReLU(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            SqueezeExcitation(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: (B, I, H, W).

        Returns:
            (B, O, H / stride, W / stride).
        """
        return cast(Tensor, self.res_layer(x) + self.shortcut_layer(x))


class IrSe50(nn.Module):
    """Maps faces to unit vectors, whose cosines measure whether two faces are of one person.

    `state_dict()` has the keys and shapes of `model_ir_se50.pth`, in their order. The network is
    always in evaluation mode, and its weights have no gradients: it is a judge that never learns.
    """

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64)
        )
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(_DIMENSION),
            nn.Dropout(),
            nn.Flatten(),
            nn.Linear(_DIMENSION * (INPUT_PX // 16) ** 2, _DIMENSION),
            nn.BatchNorm1d(_DIMENSION),
        )
        self.body = nn.Sequential(
            *(
                Bottleneck(outputs if block else inputs, outputs, stride=1 if block else 2)
                for inputs, outputs, blocks in _STAGES
                for block in range(blocks)
            )
        )
        self.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Keep the network in evaluation mode.

        Args:
            mode: Ignored.

        Returns:
            The network itself.
        """
        return super().train(False)

    def forward(self, faces: Tensor) -> Tensor:
        """Map faces that fill the picture to vectors.

        Args:
            faces: (B, 3, 112, 112) float32 RGB in [-1, 1].

        Returns:
            (B, 512) float32 of unit length.
        """
        vectors = self.output_layer(self.body(self.input_layer(faces)))
        return nn.functional.normalize(vectors)

    def embed(self, faces: Tensor) -> Tensor:
        """Map the faces in GPEN's crops to vectors.

        Args:
            faces: (B, 3, S, S) float32 RGB in [-1, 1], crops by GPEN's template.

        Returns:
            (B, 512) float32 of unit length. Gradients flow to `faces`.

        Convention:
            (row, column) order. The face takes the rows 35 to 223 and the columns 32 to 220 of a
            crop of 256 px; for other sides the borders are scaled and rounded.
        """
        top, bottom, left, right = (round(side * faces.shape[-1] / _CROP_PX) for side in _FACE_PX)
        face = faces[:, :, top:bottom, left:right]
        if face.shape[-1] < INPUT_PX:
            size = (INPUT_PX, INPUT_PX)
            face = nn.functional.interpolate(face, size, mode="bilinear", align_corners=False)
        return cast(Tensor, self(nn.functional.adaptive_avg_pool2d(face, INPUT_PX)))


def load_identity(path: str | Path) -> IrSe50:
    """Load the identity network, such as model_ir_se50.pth, from a weight file.

    Args:
        path: The file, in a format of `vidrestore.models.weight_file.read_checkpoint`.

    Returns:
        The network, float32 on the CPU.

    Raises:
        WeightsError: The file is damaged or does not hold this network.
        OSError: The file cannot be read.
    """
    path = Path(path)
    check_readable_kind(path, "the weight file", WeightsError)
    state = read_checkpoint(path)
    with torch.device("meta"):
        network = IrSe50()
    check_tensors(path, state, network.state_dict(), "the identity network IR-SE-50")
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False)


def judge_of(recognizer: Recognition) -> Callable[[Tensor], Tensor]:
    """Make a judge of likeness of the recognizer of a video.

    Args:
        recognizer: The recognizer.

    Returns:
        Maps (B, 3, S, S) RGB in [-1, 1], crops by GPEN's template, to (B, d) unit embeddings on the
        CPU, without gradients. A face that the recognizer does not know gets 0.
    """

    def embed(faces: Tensor) -> Tensor:
        side = faces.shape[-1]
        points = (template("gpen") * side - 0.5).astype(np.float32)
        face = Detection(np.array([0, 0, side, side], np.float32), points, 1.0)
        levels = (faces.detach().clamp(-1, 1) + 1) * 127.5
        pictures = levels.round().byte().permute(0, 2, 3, 1).cpu().numpy()
        vectors = [
            recognizer(np.ascontiguousarray(picture[..., ::-1]), [face])[0] for picture in pictures
        ]
        length = next((len(each) for each in vectors if each is not None), 1)
        known = [np.zeros(length, np.float32) if each is None else each for each in vectors]
        return torch.from_numpy(np.stack(known))

    return embed
