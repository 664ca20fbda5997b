"""A graph in 8 bits, calibrated on training images: less arithmetic, and weights that fit into the caches."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

CALIBRATION_IMAGES = 1000
_BATCH = 100


def quantize(graph: bytes, images: NDArray[np.uint8]) -> bytes:
    """An exported graph with its inner convolutions and matrix products in 8 bits; ranges as seen on ``images``.

    Static quantisation, a scale a channel, activations unsigned. Weights keep to 7 bits, because without VNNI the
    CPU adds two products of full-range bytes in 16 bits, which saturates. The first convolution and the last matrix
    product stay in full precision: they cost nearly nothing, and whole graphs in 8 bits are slower and less accurate.

    Args:
        graph: ONNX, from ``images`` uint8 ``[N, 28, 28]``.
        images: uint8 ``[M, 28, 28]``, training images; never those of the test set.
    """
    with tempfile.TemporaryDirectory() as folder:
        whole, prepared, quantized = (Path(folder, f"{name}.onnx") for name in ("whole", "prepared", "quantized"))
        whole.write_bytes(graph)
        quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _Calibration(images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            nodes_to_quantize=_inner_layers(onnx.load(prepared)),
        )
        return quantized.read_bytes()


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._batches: Iterator[NDArray[np.uint8]] = (
            images[start : start + _BATCH] for start in range(0, len(images), _BATCH)
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def _inner_layers(proto: onnx.ModelProto) -> list[str]:
    convolutions = [node.name for node in proto.graph.node if node.op_type == "Conv"]
    products = [node.name for node in proto.graph.node if node.op_type in ("Gemm", "MatMul")]
    return convolutions[1:] + products[:-1]
