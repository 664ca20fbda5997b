"""The first convolution over whole rows, and the graph in 8 bits that is made of it."""

import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from model import WEIGHTS, create_engine, load_artifact
from model.export.build import export_int8, export_onnx
from model.export.low_rank import taken_apart
from model.export.row_convolution import over_rows, row_convolution
from model.network import DeepFashionNet, FashionNet, NormalisedFashionNet, load_network, normalise


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (8, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kernel", [(3, 3), (1, 5), (5, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_over_rows_gives_what_the_one_over_pixels_gives(kernel, bias, images):
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 6, kernel, bias=bias)
    expected = layer(normalise(images))
    rows = row_convolution(layer)(images.to(torch.float32).transpose(1, 2).unsqueeze(3))
    found = rows.squeeze(3).unflatten(1, (-1, 6)).permute(0, 2, 3, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prepared", [taken_apart, lambda network: network])
def test_the_network_over_rows_is_the_same_function(prepared, images):
    network = prepared(load_network(load_artifact(WEIGHTS, "fashionnet")))
    served = over_rows(network)
    assert served.rows.weight.shape == (26 * 32, 28, 3, 1)
    for found, expected in zip(served.outputs(images), network.outputs(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [DeepFashionNet, NormalisedFashionNet])
def test_other_networks_stay_as_they_are(kind):
    network = kind()
    assert over_rows(network) is network


def test_the_committed_graph_in_8_bits_takes_the_bytes_as_they_are():
    artifact = load_artifact(WEIGHTS, "fashionnet")
    plain, bytewise = (onnx.load_model_from_string(artifact.content[name]) for name in ("onnx", "int8.onnx"))
    assert weights_of_convolutions(plain)[0] == [32, 1, 3, 3]
    assert weights_of_convolutions(bytewise)[0] == [26 * 32, 28, 3, 1]


def test_the_runtime_puts_no_maps_in_another_order(tmp_path):
    engine = create_engine("onnx-int8", load_artifact(WEIGHTS, "fashionnet"))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        (WEIGHTS / "fashionnet.int8.onnx").read_bytes(), options, disabled_optimizers=[engine.left_out]
    )
    kinds = {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
    assert {"QLinearConv", "QGemm"} <= kinds
    assert not kinds & {"Transpose", "ReorderInput", "ReorderOutput"}


def test_a_pixel_of_any_value_is_told_from_every_other_whatever_the_calibration_has_seen():
    torch.manual_seed(0)
    dark = torch.randint(0, 9, (20, 28, 28), dtype=torch.uint8).numpy()
    proto = onnx.load_model_from_string(export_int8(FashionNet().eval(), dark))
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    first = next(node for node in proto.graph.node if node.op_type == "Conv")
    taken = next(node for node in proto.graph.node if first.input[0] in node.output)
    assert (taken.op_type, values[taken.input[1]], values[taken.input[2]]) == ("DequantizeLinear", 1, 0)
    of_images = [node.op_type for node in proto.graph.node if "images" in node.input]
    assert "Cast" not in of_images
    assert "QuantizeLinear" not in of_images


def test_relu_is_in_the_layer_before_it_and_before_the_pooling_in_8_bits_alone():
    torch.manual_seed(0)
    network = FashionNet().eval()
    bytewise = onnx.load_model_from_string(
        export_int8(network, torch.randint(0, 256, (20, 28, 28), dtype=torch.uint8).numpy())
    )
    plain = onnx.load_model_from_string(export_onnx(network))
    assert operators(plain, {"Conv", "Relu", "MaxPool", "Gemm"}) == "Conv Relu Conv MaxPool Relu Gemm Relu Gemm"
    assert operators(bytewise, {"Conv", "Relu", "MaxPool", "Gemm"}) == "Conv Conv MaxPool Gemm Gemm"


def operators(proto: onnx.ModelProto, among: set[str]) -> str:
    return " ".join(node.op_type for node in proto.graph.node if node.op_type in among)


def weights_of_convolutions(proto: onnx.ModelProto) -> list[list[int]]:
    """The shapes of the weights of a graph's convolutions, in full precision or behind their scales."""
    shapes = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    return [shapes[node.input[1]] for node in proto.graph.node if node.op_type == "Conv"]
