"""A graph in 8 bits, calibrated on training images."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

CALIBRATION_IMAGES = 500
_BATCH = 100
_BYTES = {"scale": np.array(1, np.float32), "zero_point": np.array(0, np.uint8)}
"""The quantisation of an image's bytes: none."""


def quantize(graph: bytes, images: NDArray[np.uint8], *, kept: int = 1) -> bytes:
    """Returns ``graph`` with the network's inner convolutions and matrix products in 8 bits.

    Static quantisation, one scale per channel, unsigned activations. Weights have 7 bits, because a CPU without VNNI
    adds two products of bytes in 16 bits, which would saturate. The last matrix product stays in full precision, and
    so does a first convolution of normalised images: they take little time, and graphs entirely in 8 bits are slower
    and less accurate. A first convolution of bytes (model.export.row_convolution) is quantised. The
    out-of-distribution score stays in full precision.

    Args:
        graph: ONNX, from ``images`` uint8 ``[N, *shape]`` to ``logits`` and other outputs.
        images: uint8 ``[M, *shape]``, training images, which the activations' ranges are measured on.
        kept: first convolutions that stay in full precision; a first one of bytes never does.
    """
    proto = _prepared(graph)
    cast = _cast(proto)
    with tempfile.TemporaryDirectory() as folder:
        quantized = Path(folder, "quantized.onnx")
        quantize_static(
            proto,
            quantized,
            _Calibration(images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            nodes_to_quantize=_layers(proto, kept),
            extra_options={"TensorQuantOverrides": {cast.output[0]: [_BYTES]} if cast else {}},
        )
        proto = onnx.load(quantized)
    if cast:
        _without(cast, proto)
    content: bytes = proto.SerializeToString()
    return content


def _prepared(graph: bytes) -> onnx.ModelProto:
    """The graph after ONNX Runtime's preprocessing for quantisation, with ReLU before max pooling."""
    with tempfile.TemporaryDirectory() as folder:
        whole, prepared = Path(folder, "whole.onnx"), Path(folder, "prepared.onnx")
        whole.write_bytes(graph)
        quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        proto = onnx.load(prepared)
    _relu_first(proto)
    return proto


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._batches: Iterator[NDArray[np.uint8]] = (
            images[start : start + _BATCH] for start in range(0, len(images), _BATCH)
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def _layers(proto: onnx.ModelProto, kept: int) -> list[str]:
    nodes = _network_nodes(proto)
    convolutions = [node for node in nodes if node.op_type == "Conv"][0 if _cast(proto) else kept :]
    products = [node for node in nodes if node.op_type in ("Gemm", "MatMul")]
    layers = convolutions + products[:-1]
    sums = {node.output[0] for node in layers}
    # Quantised together with its ReLU, a layer's output uses the full unsigned range, and the ReLU is its lower bound.
    relus = [node for node in nodes if node.op_type in ("Relu", "Clip") and node.input[0] in sums]
    return [node.name for node in layers + relus]


def _network_nodes(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The nodes that the logits depend on, in order; the others belong to the out-of-distribution score."""
    needed, nodes = {"logits"}, []
    for node in reversed(proto.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    return nodes[::-1]


def _cast(proto: onnx.ModelProto) -> onnx.NodeProto | None:
    """The cast of the bytes that the first convolution takes; None if it takes other values."""
    nodes = _network_nodes(proto)
    first = next(node for node in nodes if node.op_type == "Conv")
    return next((node for node in nodes if node.output[0] == first.input[0] and node.op_type == "Cast"), None)


def _without(cast: onnx.NodeProto, proto: onnx.ModelProto) -> None:
    """Removes the cast of bytes to floats and the quantisation back to the same bytes."""
    nodes = proto.graph.node
    back = next(node for node in nodes if node.op_type == "QuantizeLinear" and node.input[0] == cast.output[0])
    after = next(node for node in nodes if node.input[0] == back.output[0])
    after.input[0] = cast.input[0]
    nodes.remove(back)
    nodes.remove(next(node for node in nodes if node.output == cast.output))


def _relu_first(proto: onnx.ModelProto) -> None:
    """Swaps max pooling and a ReLU after it, so that the ReLU can be quantised with the convolution before them."""
    pools = {node.output[0]: node for node in proto.graph.node if node.op_type == "MaxPool"}
    for second in (node for node in proto.graph.node if node.op_type == "Relu" and node.input[0] in pools):
        first = pools[second.input[0]]
        second.attribute.extend(first.attribute)
        del first.attribute[:]
        first.op_type, second.op_type = second.op_type, first.op_type
        first.name, second.name = second.name, first.name
    del proto.graph.value_info[:]  # shapes of before
