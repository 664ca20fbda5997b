"""FashionNet with its first convolution over whole rows: what a graph in 8 bits is made of.

One grey pixel gives a CPU nothing to multiply side by side, and the 32 channels that are made of it would have to be
put in another order for the next layer. So a row of 28 pixels is taken for one pixel of 28 channels, and the 26 x 32
values of a row of results come out of it together, in the order that the next layer wants. Most of the weights are 0
then (they are a Toeplitz matrix), and yet nine times as many multiplications of bytes take less time. The
normalisation is inside of the weights, so the convolution takes the image's bytes as they are.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.network import PIXEL_MEAN, PIXEL_STD, FashionNet, Network

_SIDE = 28
_POOLED = 12


def over_rows(network: Network) -> Network:
    """The same function in evaluation mode, FashionNet's first convolution over rows; any other network itself."""
    return _RowFashionNet(network) if type(network) is FashionNet else network  # not one with layers still to fold


def row_convolution(layer: nn.Conv2d) -> nn.Conv2d:
    """The convolution that does with rows of bytes what ``layer`` does with normalised pixels.

    Args:
        layer: of one channel, without padding and with a stride of 1: O outputs, kernel H x W.

    Returns:
        From 28 channels, the columns, to (29 - W) O: those of the first column of results, then of the second, and so
        on; kernel H x 1.
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


def by_place(layer: nn.Linear, places: int) -> nn.Linear:
    """The layer for maps of so many places that come place by place, as those of bytes lie in memory.

    Args:
        layer: for the same maps one after the other.
        places: of a map.
    """
    same = nn.Linear(layer.in_features, layer.out_features)
    weight = layer.weight.detach().reshape(layer.out_features, -1, places)
    same.weight.data, same.bias = weight.transpose(1, 2).flatten(1).contiguous(), layer.bias
    return same


class _RowFashionNet(FashionNet):
    def __init__(self, network: FashionNet) -> None:
        super().__init__()
        for name, layer in network.named_children():
            self.set_submodule(name, layer)
        self.rows = row_convolution(network.conv1)
        self.fc1 = by_place(network.fc1, _POOLED**2)
        self.eval()

    def features(self, images: Tensor) -> Tensor:  # in evaluation mode: without dropout
        x = F.relu(F.max_pool2d(self.conv2(self.first_maps(images)), 2))  # [N, 64, 12, 12]
        return F.relu(self.fc1(x.permute(0, 2, 3, 1).flatten(1)))

    def first_maps(self, images: Tensor) -> Tensor:
        rows = images.unsqueeze(2).permute(0, 3, 1, 2).to(torch.float32)  # [N, 28 columns, 28 rows, 1]
        maps = F.relu(self.rows(rows)).permute(0, 2, 3, 1)  # [N, 26 rows, 1, 26 columns x 32]
        return maps.reshape(maps.shape[0], maps.shape[1], -1, self.conv1.out_channels).permute(0, 3, 1, 2)
