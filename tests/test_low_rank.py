"""The factorisation of convolutions with a low rank over their inputs, and the graph that contains it."""

import io

import onnx
import pytest
import torch
from torch import nn

from model import WEIGHTS, load_artifact
from model.export.low_rank import factorized, factors
from model.network import BOTTLENECK_CHANNELS, DeepFashionNet, FashionNet, NormalisedFashionNet, load_network


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (8, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def layer_of_rank(rank: int, **options: object) -> nn.Conv2d:
    """A convolution of 12 inputs, 20 outputs and 3x2 weights of that rank over the inputs."""
    layer = nn.Conv2d(12, 20, (3, 2), **options)
    layer.weight.data = torch.einsum("orhw,ri->oihw", torch.randn(20, rank, 3, 2), torch.randn(rank, 12))
    return layer


@pytest.mark.parametrize("rank", [1, 5, 8])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"padding": 1, "stride": 2}, {"dilation": (2, 1)}])
def test_the_two_convolutions_give_what_the_one_gives(rank, options):
    torch.manual_seed(rank)
    layer, images = layer_of_rank(rank, **options), torch.randn(3, 12, 9, 8)
    pair = factors(layer)
    assert [tuple(one.weight.shape) for one in pair] == [(rank, 12, 1, 1), (20, rank, 3, 2)]
    torch.testing.assert_close(pair(images), layer(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", [nn.Conv2d(12, 20, 3), nn.Conv2d(1, 32, 3), nn.Conv2d(12, 24, 3, groups=2)])
def test_a_convolution_that_two_would_not_make_cheaper_is_left_alone(layer):
    assert factors(layer) is None


def test_a_convolution_that_lost_an_input_or_two_is_left_alone():
    assert factors(layer_of_rank(10)) is None


def test_weights_of_nothing_are_left_alone():
    layer = nn.Conv2d(12, 20, 3)
    nn.init.zeros_(layer.weight)
    assert factors(layer) is None


def test_networks_of_full_rank_stay_as_they_are():
    for network in (FashionNet(), DeepFashionNet()):
        assert factorized(network) is network


def test_what_is_released_is_fashionnet_and_what_is_served_is_cheaper(images):
    torch.manual_seed(0)
    trained = NormalisedFashionNet().train()
    for _ in range(3):
        trained(images)
    released = trained.eval().fused()
    assert type(released) is FashionNet
    assert released.description == load_artifact(WEIGHTS, "fashionnet").card.description, "the card declares it"
    assert released.conv2.weight.shape == (64, 32, 3, 3)
    served = factorized(released)
    shapes = [(BOTTLENECK_CHANNELS, 32, 1, 1), (64, BOTTLENECK_CHANNELS, 3, 3)]
    assert [tuple(one.weight.shape) for one in served.conv2] == shapes
    assert isinstance(released.conv2, nn.Conv2d), "the released network itself stays whole"
    torch.testing.assert_close(served.outputs(images).logits, released.outputs(images).logits, rtol=1e-4, atol=1e-4)


def test_the_committed_graph_is_factorised_and_one_of_full_rank_is_not(artifact, exported):
    whole = [[32, 1, 3, 3], [64, 32, 3, 3]]
    assert convolutions(exported["onnx"]) == whole
    weights = load_network(artifact).state_dict()
    assert [list(weights[f"{name}.weight"].shape) for name in ("conv1", "conv2")] == whole
    factors_ = [[32, 1, 3, 3], [BOTTLENECK_CHANNELS, 32, 1, 1], [64, BOTTLENECK_CHANNELS, 3, 3]]
    assert sorted(convolutions(artifact.content["onnx"])) == sorted(factors_)


def convolutions(graph: bytes) -> list[list[int]]:
    """The shapes of the weights of the network's convolutions; the score has one of 2x2."""
    model = onnx.load(io.BytesIO(graph))
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    found = [shapes[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]
    return [shape for shape in found if shape[2:] != [2, 2]]
