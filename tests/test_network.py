import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from model import WEIGHTS, create_engine, list_artifacts, load_artifact
from model.network import (
    ARCHITECTURES,
    FROZEN_BLOCKS,
    Ensemble,
    FashionNet,
    create_network,
    load_network,
    network_to_export,
    normalise,
)


def random_images(shape: tuple[int, ...] = (28, 28), count: int = 5) -> torch.Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def images() -> torch.Tensor:
    return random_images()


def test_fashionnet_has_the_parameters_of_its_definition():
    assert sum(parameter.numel() for parameter in FashionNet().parameters()) == 1_199_882


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_log_probabilities_logits_and_features(architecture):
    network = create_network(architecture).eval()
    images = random_images(network.input.shape)
    with torch.inference_mode():
        outputs, log_probs = network.outputs(images), network(images)
        assert network.classify(outputs.features).equal(outputs.logits)
    assert outputs.logits.shape == outputs.log_probs.shape == (5, 10)
    assert torch.equal(outputs.log_probs, F.log_softmax(outputs.logits, 1))
    assert outputs.log_probs.exp().sum(1).allclose(torch.ones(5))
    assert log_probs.exp().sum(1).allclose(torch.ones(5))
    # The photo model has an eleventh class, "none of them", in training only.
    assert log_probs[:, :10].log_softmax(1).allclose(outputs.log_probs, atol=1e-5)
    assert log_probs.shape == (5, 11 if architecture == "fashionnet-photo" else 10)


def test_it_is_the_network_of_the_definition_layer_by_layer(images):
    ours = FashionNet()
    assert [layer.p for layer in ours.modules() if isinstance(layer, nn.Dropout)] == [0.25, 0.5]
    definition = nn.Sequential(
        ours.conv1, nn.ReLU(), ours.conv2, nn.ReLU(), nn.MaxPool2d(2), ours.dropout1, nn.Flatten(),
        ours.fc1, nn.ReLU(), ours.dropout2, ours.fc2, nn.LogSoftmax(1),
    )  # fmt: skip
    for mode in (ours.train(), ours.eval()):
        outputs = []
        for network in (definition.train(mode.training), ours):
            torch.manual_seed(0)  # the same units are dropped
            outputs.append(network(normalise(images) if network is definition else images))
        torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)


def test_normalisation_is_that_of_the_training_pixels(images):
    expected = (images / 255 - 0.2860406) / 0.3530242
    assert normalise(images).squeeze(1).allclose(expected, atol=1e-6)


@pytest.fixture
def normalised(images) -> nn.Module:
    """The network with bottleneck and batch normalisation, all of whose weights and statistics are used."""
    torch.manual_seed(0)
    network = create_network("fashionnet-normalised").train()
    for _ in range(20):
        network(images + torch.randint(0, 9, images.shape, dtype=torch.uint8))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return network.eval()


def test_normalisation_and_bottleneck_are_fused_into_the_layers_of_fashionnet(normalised, images):
    fused = normalised.fused()
    assert type(fused) is FashionNet
    assert fused.outputs(images).logits.allclose(normalised.outputs(images).logits, rtol=1e-3, atol=1e-3)
    assert fused.outputs(images).features.allclose(normalised.outputs(images).features, rtol=1e-3, atol=1e-3)


def test_fused_networks_share_no_weights_with_the_trained_one(normalised, images):
    before = normalised.fused().outputs(images).logits
    fused = network_to_export("fashionnet-normalised", [normalised.state_dict()])
    with torch.no_grad():
        for parameter in normalised.parameters():
            parameter.zero_()
    assert torch.equal(fused.outputs(images).logits, before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_learns(architecture):
    torch.manual_seed(0)
    network = create_network(architecture).train()
    network(random_images(network.input.shape)).square().sum().backward()
    learning = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert [name for name, parameter in learning.items() if not parameter.grad.any()] == []
    frozen = set(dict(network.named_parameters())) - set(learning)
    if architecture == "fashionnet-photo":
        parts = ("trunk.stem.", *(f"trunk.blocks.{number}." for number in range(FROZEN_BLOCKS)))
        assert frozen == {name for name, _ in network.named_parameters() if name.startswith(parts)}
    else:
        assert frozen == ({"norm2.weight"} if architecture == "fashionnet-normalised" else set())


def test_the_class_maps_of_the_photo_model_add_up_to_its_logits():
    torch.manual_seed(0)
    network = create_network("fashionnet-photo").eval()
    images = random_images(network.input.shape, 2)
    with torch.inference_mode():
        maps, logits = network.class_maps(images), network.outputs(images).logits
        assert create_network("fashionnet").class_maps(random_images()) is None
    assert maps.shape == (2, 10, 7, 7)
    torch.testing.assert_close(maps.sum((2, 3)) + network.fc.bias[:10], logits, rtol=1e-4, atol=1e-4)


def test_several_states_are_exported_as_an_ensemble_that_averages_logits(images):
    states = [create_network("fashionnet-residual").state_dict() for _ in range(2)]
    network = network_to_export("fashionnet-residual", states)
    assert isinstance(network, Ensemble)
    assert network.description.startswith("2 networks whose logits are averaged, each: ")
    alone = [network_to_export("fashionnet-residual", [state]).outputs(images) for state in states]
    found = network.outputs(images)
    torch.testing.assert_close(found.logits, (alone[0].logits + alone[1].logits) / 2)
    torch.testing.assert_close(found.features, torch.cat([one.features for one in alone], 1))


@pytest.mark.parametrize("name", list_artifacts(WEIGHTS))
def test_the_committed_weights_load_and_give_the_logits_of_their_graph(name):
    artifact = load_artifact(WEIGHTS, name)
    images = np.random.default_rng(0).integers(0, 256, (8, *artifact.card.input.shape), np.uint8)
    with torch.inference_mode():
        logits = load_network(artifact).outputs(torch.from_numpy(images)).logits
    np.testing.assert_allclose(logits.numpy(), create_engine("onnx", artifact).run(images).logits, atol=1e-4)


def test_a_network_with_nothing_to_fuse_is_exported_as_it_is():
    network = FashionNet()
    assert network.fused() is network
