"""Eleven statistics of the pixels of an image.

Features of a network with global average pooling hardly separate noise and blurred patches from clothing; simple pixel
statistics do. They work best when compared with images of the predicted class: shorts that are predicted as trousers
are too wide, for instance.
"""

import torch
from torch import Tensor, nn

COUNT = 11
MIN_LIT = 8
"""Pixels of this value and more are not black."""


class ImageStatistics(nn.Module):
    """The square roots of eleven means, 0..16.

    In this order: the absolute differences of horizontal and of vertical neighbours, the pixels of the top, bottom,
    left and right edge, the pixels of the four quarters, and all pixels clamped to ``MIN_LIT``: about the share of the
    image that is not black.
    """

    differences: Tensor
    regions: Tensor

    def __init__(self) -> None:
        super().__init__()
        # A convolution and a matrix product: as slices and means, the graph has four times as many nodes.
        self.register_buffer("differences", _difference_kernels(), persistent=False)
        self.register_buffer("regions", _region_means(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]`` -> statistics float32 ``[N, 11]``."""
        pixels = images.unsqueeze(1).float()
        roughness = nn.functional.conv2d(pixels, self.differences).abs().mean((2, 3))
        flat = pixels.flatten(1)
        lit = flat.clamp(max=MIN_LIT).mean(1, keepdim=True)
        return torch.cat([roughness, flat @ self.regions, lit], dim=1).sqrt()


def _difference_kernels() -> Tensor:
    return torch.tensor([[[[-1.0, 1.0], [0.0, 0.0]]], [[[-1.0, 0.0], [1.0, 0.0]]]])


def _region_means() -> Tensor:
    """The matrix ``[784, 8]`` that takes an image to the means of its four edges and its four quarters."""
    masks = torch.zeros(8, 28, 28)
    masks[0, 0] = masks[1, -1] = masks[2, :, 0] = masks[3, :, -1] = 1
    for quarter, (row, column) in enumerate([(0, 0), (0, 14), (14, 0), (14, 14)]):
        masks[4 + quarter, row : row + 14, column : column + 14] = 1
    return (masks / masks.sum((1, 2), keepdim=True)).flatten(1).T.contiguous()
