"""Weights in half precision on disk: half the size. They are computed with in full precision."""

from itertools import pairwise
from typing import cast

import numpy as np
import onnx
import safetensors.torch
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

MIN_ELEMENTS = 1000
"""Smaller tensors, such as biases, stay in full precision."""


def round_weights(network: nn.Module) -> None:
    """Folds the normalisations into the convolutions before them, and rounds the kernels and matrices to float16.

    Outputs change by rounding errors. Folded first, the rounded kernels are those of the exported graph.
    """
    with torch.no_grad():
        for first, second in pairwise(network.modules()):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                _fold(second, first)
        for weight in network.parameters():
            if weight.numel() >= MIN_ELEMENTS:
                weight.copy_(weight.half())


def _fold(norm: nn.BatchNorm2d, convolution: nn.Conv2d) -> None:
    """Leaves a normalisation that only adds its bias; its variance and epsilon have the sum 1."""
    mean, variance = cast("Tensor", norm.running_mean), cast("Tensor", norm.running_var)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    convolution.weight.mul_(scale[:, None, None, None])
    norm.bias.sub_(mean * scale)
    norm.weight.fill_(1)
    mean.zero_()
    variance.fill_(1 - norm.eps)


def halved_weights(network: nn.Module) -> bytes:
    """Returns the weights as safetensors, in float16 those that float16 represents exactly."""
    return safetensors.torch.save({name: _halved(weights) for name, weights in network.state_dict().items()})


def _halved(weights: Tensor) -> Tensor:
    half = weights.contiguous().half()
    is_exact = weights.is_floating_point() and weights.numel() >= MIN_ELEMENTS and torch.equal(half.float(), weights)
    return half if is_exact else weights.contiguous()


def halved_graph(graph: bytes) -> bytes:
    """Returns the graph with those weights in float16 that float16 represents exactly; it computes the same."""
    proto = onnx.load_from_string(graph)
    for weights in proto.graph.initializer:
        values = numpy_helper.to_array(weights)
        half = values.astype(np.float16) if values.dtype == np.float32 and values.size >= MIN_ELEMENTS else None
        if half is None or not (half == values).all():
            continue
        name = weights.name
        weights.CopyFrom(numpy_helper.from_array(half, f"{name} (float16)"))
        cast = helper.make_node("Cast", [weights.name], [name], f"{name} (cast)", to=onnx.TensorProto.FLOAT)
        proto.graph.node.insert(0, cast)
    content: bytes = proto.SerializeToString()
    return content
