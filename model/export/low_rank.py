"""Convolutions of low rank over their inputs, taken apart into the two that they are the product of.

Where the weights of k inputs are mixtures of fewer, r, the same sums come out when the inputs are mixed first, by a
1x1 convolution, and r channels are convolved instead of k (Jaderberg et al., arXiv:1405.3866, the scheme over inputs).
"""

import copy

import torch
from torch import nn

from model.network import Network

NEGLIGIBLE = 1e-5
"""Singular values below this share of the largest are rounding."""
WORTHWHILE = 0.75
"""The most that may be left of a convolution's multiplications: one more node of the graph takes time too."""


def taken_apart(network: Network) -> Network:
    """The same function, each convolution that can do with less in two; the network itself where there is none."""
    found = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
    pairs = {name: pair for name, layer in found.items() if (pair := factors(layer))}
    if not pairs:
        return network
    served = copy.deepcopy(network)
    for name, pair in pairs.items():
        served.set_submodule(name, pair)
    return served


def factors(layer: nn.Conv2d) -> nn.Sequential | None:
    """The 1x1 convolution that mixes the inputs and the one of the mixtures; None where that spares nothing."""
    outputs, inputs, *kernel = layer.weight.shape
    by_input = layer.weight.detach().transpose(0, 1).reshape(inputs, -1)
    left, strengths, right = torch.linalg.svd(by_input, full_matrices=False)
    rank = int((strengths > NEGLIGIBLE * strengths[0]).sum())
    taps = outputs * kernel[0] * kernel[1]
    if layer.groups > 1 or not 0 < rank * (inputs + taps) <= WORTHWHILE * inputs * taps:
        return None
    mixing, rest = nn.Conv2d(inputs, rank, kernel_size=1, bias=False), copy.deepcopy(layer)
    # Orthonormal mixtures: none is so faint beside the others that 8 bits would lose it.
    mixing.weight.data = left[:, :rank].T.reshape(rank, inputs, 1, 1).contiguous()
    remaining = strengths[:rank, None] * right[:rank]
    rest.in_channels, rest.weight.data = rank, remaining.reshape(rank, outputs, *kernel).transpose(0, 1).contiguous()
    return nn.Sequential(mixing, rest)
