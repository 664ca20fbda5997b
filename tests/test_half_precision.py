"""Weights that are stored in half precision."""

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.torch
import torch

from model.export.build import export_onnx
from model.export.half_precision import halved_graph, halved_weights, round_weights
from model.network import PhotoFashionNet


@pytest.fixture(scope="module")
def networks():
    """A network whose normalisations differ, and a copy with rounded weights."""
    torch.manual_seed(0)
    before, after = PhotoFashionNet().eval(), PhotoFashionNet().eval()
    with torch.no_grad():
        for name, values in before.state_dict().items():
            if name.endswith("running_var") or (values.dim() == 1 and name.endswith("weight")):
                values.uniform_(0.5, 2)
            elif name.endswith(("running_mean", "bias")):
                values.normal_(0, 0.1)
    after.load_state_dict(before.state_dict())
    round_weights(after)
    return before, after


def test_rounded_weights_change_the_outputs_by_rounding_errors(networks):
    before, after = networks
    images = torch.randint(0, 256, (3, 224, 224, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected, found = (network.outputs(images).features for network in (before, after))
    assert not torch.equal(found, expected)
    assert (found - expected).abs().max() < 5e-3 * expected.abs().max()
    kernels = [weight for weight in after.parameters() if weight.dim() == 4 and weight.numel() >= 1000]
    assert all(torch.equal(kernel.half().float(), kernel) for kernel in kernels)


def test_a_graph_with_halved_weights_computes_the_same_from_half_the_bytes(networks):
    graph = export_onnx(networks[1])
    smaller = halved_graph(graph)
    assert len(smaller) < 0.55 * len(graph)
    onnx.checker.check_model(onnx.load_from_string(smaller))
    images = {"images": np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)}
    found, expected = (onnxruntime.InferenceSession(one).run(None, images) for one in (smaller, graph))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_halved_weights_are_the_same_weights(networks):
    before, after = networks
    assert len(halved_weights(after)) < 0.55 * len(halved_weights(before))
    copy = PhotoFashionNet()
    copy.load_state_dict(safetensors.torch.load(halved_weights(after)))
    assert all(torch.equal(weights, copy.state_dict()[name]) for name, weights in after.state_dict().items())


def test_weights_that_half_precision_does_not_represent_stay(networks):
    before, _ = networks
    graph = export_onnx(before)
    kept = {weights.name for weights in onnx.load_from_string(halved_graph(graph)).graph.initializer}
    assert {weights.name for weights in onnx.load_from_string(graph).graph.initializer} == kept
