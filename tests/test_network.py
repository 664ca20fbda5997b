import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

from model.artifact import Artifact
from model.errors import ArtifactCorrupt
from model.network import ARCHITECTURES, Dropout, FashionNet, create_network, load_network, normalise


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (5, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_fashionnet_has_the_parameters_of_its_definition():
    assert sum(parameter.numel() for parameter in FashionNet().parameters()) == 1_199_882


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_gives_log_probabilities_logits_and_features(architecture, images):
    network = create_network(architecture).eval()
    outputs = network.outputs(images)
    assert outputs.logits.shape == outputs.log_probs.shape == (5, 10)
    assert network.classify(outputs.features).equal(outputs.logits)
    assert torch.equal(outputs.log_probs, F.log_softmax(outputs.logits, 1))
    assert torch.equal(network(images), outputs.log_probs)
    assert outputs.log_probs.exp().sum(1).allclose(torch.ones(5))


def test_it_is_the_network_of_the_definition_layer_by_layer(images):
    ours = FashionNet().eval()
    tutorial = nn.Sequential(
        ours.conv1, nn.ReLU(), ours.conv2, nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(),
        ours.fc1, nn.ReLU(), nn.Dropout(0.5), ours.fc2, nn.LogSoftmax(1),
    ).eval()  # fmt: skip
    assert tutorial(normalise(images)).allclose(ours(images), atol=1e-6)


def test_normalisation_is_that_of_the_training_pixels(images):
    expected = (images / 255 - 0.2860406) / 0.3530242
    assert normalise(images).squeeze(1).allclose(expected, atol=1e-6)


@pytest.mark.parametrize("p", [0.25, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    layer = Dropout(p)
    x = torch.ones(400, 1001)  # no multiple of 8
    dropped = layer(x)
    assert (dropped == 0).float().mean().item() == pytest.approx(p, abs=0.005)
    assert dropped[dropped != 0].unique().tolist() == pytest.approx([1 / (1 - p)])
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)


def test_dropout_is_the_identity_in_evaluation():
    x = torch.randn(3, 7)
    assert Dropout(0.5).eval()(x) is x


def test_dropout_passes_the_gradient_of_what_it_kept():
    x = torch.ones(2, 50, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_an_unknown_architecture_is_a_key_error():
    with pytest.raises(KeyError):
        create_network("lenet-9000")


def test_normalisation_is_folded_into_the_layers_of_fashionnet(images):
    torch.manual_seed(0)
    network = create_network("fashionnet-normalised").train()
    for _ in range(20):
        network(images + torch.randint(0, 9, images.shape, dtype=torch.uint8))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folded = network.eval().folded()
    assert type(folded) is FashionNet
    assert folded.outputs(images).logits.allclose(network.outputs(images).logits, rtol=1e-3, atol=1e-3)
    assert folded.outputs(images).features.allclose(network.outputs(images).features, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_learns(architecture, images):
    network = create_network(architecture).train()
    network(images).square().sum().backward()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.any()] == []


def test_a_bias_behind_a_normalisation_without_a_scale_has_a_gradient_on_other_devices_too():
    with torch.device("meta"):  # the shapes of a GPU's way, where there is none
        network = create_network("fashionnet-normalised").train()
        network(torch.zeros(5, 28, 28, dtype=torch.uint8)).sum().backward()
    assert network.conv1.bias.grad.shape == (32,)
    assert network.fc1.bias.grad.shape == (128,)


def test_weights_of_other_layers_are_refused_in_one_sentence(artifact):
    other = safetensors.torch.save(FashionNet().state_dict())
    deep = Artifact(artifact.card.model_copy(update={"architecture": "fashionnet-deep"}), {"safetensors": other})
    with pytest.raises(ArtifactCorrupt, match="not those of the architecture 'fashionnet-deep'"):
        load_network(deep)


def test_a_network_with_nothing_to_fold_is_released_as_it_is():
    network = FashionNet()
    assert network.folded() is network
