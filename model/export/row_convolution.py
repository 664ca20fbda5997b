"""FashionNet with its first convolution over whole rows, for the 8-bit graph.

The image has one channel, which gives a CPU few products to compute in parallel, and the 32 output channels would need
another memory layout for the next layer. So a row of 28 pixels becomes one position of 28 channels, and a 3x1
convolution returns the 26 x 32 values of an output row in the layout of the next layer. Its weights are a Toeplitz
matrix, most of them 0. It needs nine times the multiplications and takes less time. Its weights include the
normalisation, so its input is the image's bytes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.network import PIXEL_MEAN, PIXEL_STD, FashionNet, Network

_SIDE = 28
_POOLED = 12


def to_row_convolution(network: Network) -> Network:
    """Returns the same function in evaluation mode with a row convolution; other networks than FashionNet unchanged."""
    return _RowFashionNet(network) if type(network) is FashionNet else network  # a subclass has layers to fuse first


def row_convolution(layer: nn.Conv2d) -> nn.Conv2d:
    """Returns the convolution of rows of bytes that equals ``layer`` on normalised pixels.

    Args:
        layer: one input channel, O outputs, kernel H x W, no padding, stride 1.

    Returns:
        Kernel H x 1, 28 input channels (the columns), (29 - W) O output channels: O for each output column.
    """
    outputs, _, height, width = layer.weight.shape
    columns = _SIDE - width + 1
    weight, bias = layer.weight.detach(), torch.zeros(outputs) if layer.bias is None else layer.bias.detach()
    by_column = torch.zeros(columns, outputs, _SIDE, height)
    for column in range(columns):
        by_column[column, :, column : column + width] = weight[:, 0].transpose(1, 2) / (255 * PIXEL_STD)
    rows = nn.Conv2d(_SIDE, columns * outputs, (height, 1))
    rows.weight.data = by_column.reshape(rows.weight.shape)
    rows.bias = nn.Parameter((bias - weight.sum((1, 2, 3)) * (PIXEL_MEAN / PIXEL_STD)).repeat(columns))
    return rows


def to_channels_last(layer: nn.Linear, pixels: int) -> nn.Linear:
    """Returns ``layer`` for flattened maps of ``pixels`` pixels in channels-last instead of channels-first order."""
    same = nn.Linear(layer.in_features, layer.out_features)
    weight = layer.weight.detach().reshape(layer.out_features, -1, pixels)
    same.weight.data, same.bias = weight.transpose(1, 2).flatten(1).contiguous(), layer.bias
    return same


class _RowFashionNet(FashionNet):
    def __init__(self, network: FashionNet) -> None:
        super().__init__()
        for name, layer in network.named_children():
            self.set_submodule(name, layer)
        self.rows = row_convolution(network.conv1)
        self.fc1 = to_channels_last(network.fc1, _POOLED**2)
        self.eval()

    def features(self, images: Tensor) -> Tensor:  # evaluation mode only: no dropout
        x = F.relu(F.max_pool2d(self.conv2(self.first_maps(images)), 2))  # [N, 64, 12, 12]
        return F.relu(self.fc1(x.permute(0, 2, 3, 1).flatten(1)))

    def first_maps(self, images: Tensor) -> Tensor:
        rows = images.unsqueeze(2).permute(0, 3, 1, 2).to(torch.float32)  # [N, 28 columns, 28 rows, 1]
        maps = F.relu(self.rows(rows)).permute(0, 2, 3, 1)  # [N, 26 rows, 1, 26 columns x 32]
        return maps.reshape(maps.shape[0], maps.shape[1], -1, self.conv1.out_channels).permute(0, 3, 1, 2)
