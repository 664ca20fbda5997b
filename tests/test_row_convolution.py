"""The first convolution over whole rows, and the graph in 8 bits that contains it."""

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from model import WEIGHTS, create_engine, load_artifact
from model.cpu import cpu_flags
from model.export.low_rank import factorized
from model.export.row_convolution import row_convolution, to_row_convolution
from model.network import DeepFashionNet, NormalisedFashionNet, load_network, normalise


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (8, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kernel", [(3, 3), (1, 5), (5, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_to_row_convolution_gives_what_the_one_over_pixels_gives(kernel, bias, images):
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 6, kernel, bias=bias)
    expected = layer(normalise(images))
    rows = row_convolution(layer)(images.to(torch.float32).transpose(1, 2).unsqueeze(3))
    found = rows.squeeze(3).unflatten(1, (-1, 6)).permute(0, 2, 3, 1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prepared", [factorized, lambda network: network])
def test_the_network_to_row_convolution_is_the_same_function(prepared, images):
    network = prepared(load_network(load_artifact(WEIGHTS, "fashionnet")))
    served = to_row_convolution(network)
    assert served.rows.weight.shape == (26 * 32, 28, 3, 1)
    for found, expected in zip(served.outputs(images), network.outputs(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [DeepFashionNet, NormalisedFashionNet])
def test_other_networks_stay_as_they_are(kind):
    network = kind()
    assert to_row_convolution(network) is network


def test_the_committed_graph_in_8_bits_has_a_row_convolution():
    artifact = load_artifact(WEIGHTS, "fashionnet")
    plain, bytewise = (onnx.load_model_from_string(artifact.content[name]) for name in ("onnx", "int8.onnx"))
    assert [32, 1, 3, 3] in weights_of_convolutions(plain)
    assert [26 * 32, 28, 3, 1] in weights_of_convolutions(bytewise)


def operators_that_run(name: str, folder: Path) -> set[tuple[str, str]]:
    """Domain and type of the operators that the engine runs in 8 bits, after all optimisations of ONNX Runtime."""
    artifact = load_artifact(WEIGHTS, name)
    options = create_engine("onnx-int8", artifact).session.get_session_options()
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(artifact.content["int8.onnx"], options)
    return {(node.domain, node.op_type) for node in onnx.load(folder / "optimized.onnx").graph.node}


def test_the_runtime_transposes_nothing(tmp_path):
    kinds = {kind for _, kind in operators_that_run("fashionnet", tmp_path)}
    assert {"QLinearConv", "QGemm"} <= kinds
    assert "Transpose" not in kinds


@pytest.mark.skipif("avx2" not in cpu_flags(), reason="the layout is that of x86")
def test_convolutions_in_full_precision_have_the_layout_of_the_cpu(tmp_path):
    """Those of the photo model would take twice as long otherwise, and half of the time of a photo."""
    kinds = operators_that_run("fashionnet-photo", tmp_path)
    assert ("com.microsoft.nchwc", "Conv") in kinds
    assert not {kind for _, kind in kinds} & {"FusedConv"}


def test_pixels_are_not_quantised_whatever_the_calibration_images(exported):
    proto = onnx.load_model_from_string(exported["int8.onnx"])
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    by_output = {output: node for node in proto.graph.node for output in node.output}
    rows = next(
        node for node in proto.graph.node
        if node.op_type == "Conv" and by_output[node.input[0]].op_type == "DequantizeLinear"
    )  # fmt: skip
    dequantize = by_output[rows.input[0]]
    assert (values[dequantize.input[1]], values[dequantize.input[2]]) == (1, 0)
    before = [node.op_type for node in producers(proto, rows)]
    assert "Cast" not in before
    assert "QuantizeLinear" not in before


def test_relu_is_fused_and_before_the_pooling_in_8_bits_alone(exported):
    plain, bytewise = (network_operators(exported[file]) for file in ("onnx", "int8.onnx"))
    assert plain == "Conv Relu Conv MaxPool Relu Gemm Relu Gemm"
    assert bytewise == "Conv Conv MaxPool Gemm Gemm"


def test_the_score_stays_in_full_precision(exported):
    proto = onnx.load_model_from_string(exported["int8.onnx"])
    of_logits = producers(proto, next(node for node in proto.graph.node if "logits" in node.output))
    quantised = [node.output[0] for node in of_logits if node.op_type == "DequantizeLinear"]
    of_score = [node for node in proto.graph.node if node not in of_logits]
    assert {"MatMul", "ReduceMax", "ReduceLogSumExp"} <= {node.op_type for node in of_score}
    assert quantised
    assert "QuantizeLinear" not in {node.op_type for node in of_score}


def producers(proto: onnx.ModelProto, last: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The nodes that ``last`` depends on and itself, in order."""
    needed, nodes = set(last.output), []
    for node in reversed(proto.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    return nodes[::-1]


def network_operators(graph: bytes) -> str:
    """The layers that the logits depend on."""
    proto = onnx.load_model_from_string(graph)
    nodes = producers(proto, next(node for node in proto.graph.node if "logits" in node.output))
    return " ".join(node.op_type for node in nodes if node.op_type in {"Conv", "Relu", "MaxPool", "Gemm"})


def weights_of_convolutions(proto: onnx.ModelProto) -> list[list[int]]:
    """The shapes of the weights of a graph's convolutions, in full precision or behind their scales."""
    shapes = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    return [shapes[node.input[1]] for node in proto.graph.node if node.op_type == "Conv"]
