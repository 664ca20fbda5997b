"""Factorises convolutions whose weights have a low rank over the input channels.

If the weights of k input channels have rank r < k, a 1x1 convolution to r channels and a convolution of these r
channels compute the same (Jaderberg et al., arXiv:1405.3866, the scheme over inputs).
"""

import copy

import torch
from torch import nn

from model.network import Network

NEGLIGIBLE = 1e-5
"""Singular values below this share of the largest are rounding errors."""
MAX_COST = 0.75
"""The largest share of a convolution's multiplications that two may need: an additional node takes time too."""


def factorized(network: Network) -> Network:
    """Returns the same function with each convolution of low rank as two; ``network`` itself if there is none."""
    found = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    pairs = {name: pair for name, layer in found.items() if (pair := factors(layer))}
    if not pairs:
        return network
    result = copy.deepcopy(network)
    for name, pair in pairs.items():
        result.set_submodule(name, pair)
    return result


def factors(layer: nn.Conv2d) -> nn.Sequential | None:
    """Returns the 1x1 convolution and the convolution of its outputs; None if they are not cheaper than ``layer``."""
    outputs, inputs, *kernel = layer.weight.shape
    by_input = layer.weight.detach().transpose(0, 1).reshape(inputs, -1)
    left, strengths, right = torch.linalg.svd(by_input, full_matrices=False)
    rank = int((strengths > NEGLIGIBLE * strengths[0]).sum())
    taps = outputs * kernel[0] * kernel[1]
    if layer.groups > 1 or not 0 < rank * (inputs + taps) <= MAX_COST * inputs * taps:
        return None
    bottleneck, rest = nn.Conv2d(inputs, rank, kernel_size=1, bias=False), copy.deepcopy(layer)
    # An orthonormal basis: its channels have similar ranges, so none is lost in 8 bits.
    bottleneck.weight.data = left[:, :rank].T.reshape(rank, inputs, 1, 1).contiguous()
    remaining = strengths[:rank, None] * right[:rank]
    rest.in_channels, rest.weight.data = rank, remaining.reshape(rank, outputs, *kernel).transpose(0, 1).contiguous()
    return nn.Sequential(bottleneck, rest)
