"""FashionNet and the other architectures, in PyTorch. Needs the extra ``train``.

Networks take the bytes of images, uint8 ``[N, *shape]``, and normalise them themselves. The shape is 28x28, or that of
colour photos.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar, NamedTuple, cast

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from model.artifact import Artifact
from model.data import CLASSES
from model.efficientnet import FEATURES, EfficientNetLite2
from model.errors import ArtifactCorrupt
from model.inputs import ModelInput
from model.layers import ConvNorm, Residual

PIXEL_MEAN = 0.2860406
"""Mean of the 60,000 training images, pixels scaled to 0..1."""
PIXEL_STD = 0.3530242
"""Their standard deviation."""


class NetworkOutputs(NamedTuple):
    """A network's outputs for N images, float32."""

    log_probs: Tensor
    """``[N, 10]``, log softmax of the logits."""
    logits: Tensor
    """``[N, 10]``, for calibration and energy scores; logsumexp(log_probs) is always 0."""
    features: Tensor
    """``[N, F]``, penultimate activations (F = 128 for FashionNet)."""


class Network(nn.Module):
    """Base class of the architectures, which define ``features`` and ``classify``."""

    architecture: str
    description: str
    input: ModelInput = ModelInput()

    def fused(self) -> "Network":
        """Returns the network to export: the same function with fewer layers, or itself if nothing can be fused."""
        return self

    def features(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]`` -> penultimate activations float32 ``[N, F]``, before dropout."""
        raise NotImplementedError

    def classify(self, features: Tensor) -> Tensor:
        """Features ``[N, F]`` -> logits ``[N, 10]``."""
        raise NotImplementedError

    def class_maps(self, images: Tensor) -> Tensor | None:  # noqa: ARG002
        """Returns how much each place adds to each logit, ``[N, 10, H, W]``; None if it does not add to them."""
        return None

    def outputs(self, images: Tensor) -> NetworkOutputs:
        """Images uint8 ``[N, *shape]`` -> log-probabilities and logits of the ten classes, and features."""
        features = self.features(images)
        logits = self.classify(features)
        return NetworkOutputs(F.log_softmax(logits, dim=1), logits, features)

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]`` -> log-probabilities float32 ``[N, 10]``."""
        return self.outputs(images).log_probs


class Ensemble(Network):
    """Networks of one architecture; logits are averaged, features are concatenated."""

    def __init__(self, members: Iterable[Network]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        one = cast("Network", self.members[0])
        self.architecture = one.architecture
        self.description = f"{len(self.members)} networks whose logits are averaged, each: {one.description}"

    def features(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]`` -> the members' penultimate activations, float32 ``[N, K F]``."""
        return torch.cat([cast("Network", member).features(images) for member in self.members], dim=1)

    def classify(self, features: Tensor) -> Tensor:
        """Features ``[N, K F]`` -> the mean of the members' logits, ``[N, 10]``."""
        parts = features.chunk(len(self.members), dim=1)
        logits = [cast("Network", member).classify(part) for member, part in zip(self.members, parts, strict=True)]
        return torch.stack(logits).mean(0)


class FashionNet(Network):
    """Two convolutions, max pooling, dropout, two fully connected layers, log softmax: 1,199,882 parameters."""

    architecture = "fashionnet"
    description = "Two convolutions, max pooling, dropout, two fully connected layers, log softmax."
    dropout_rates: ClassVar[tuple[float, float]] = (0.25, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3)
        self.dropout1 = nn.Dropout(self.dropout_rates[0])
        self.fc1 = nn.Linear(64 * 12 * 12, 128)
        self.dropout2 = nn.Dropout(self.dropout_rates[1])
        self.fc2 = nn.Linear(128, 10)

    def features(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]`` -> penultimate activations float32 ``[N, 128]``, before dropout."""
        # ReLU and max pooling commute; pooling first leaves ReLU a quarter of the work.
        x = F.relu(F.max_pool2d(self.conv2(self.first_maps(images)), 2))  # [N, 64, 12, 12]
        return F.relu(self.fc1(self.dropout1(torch.flatten(x, 1))))

    def first_maps(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]`` -> activations of the first convolution, float32 ``[N, 32, 26, 26]``."""
        return F.relu(self.conv1(normalise(images)))

    def classify(self, features: Tensor) -> Tensor:
        """Features ``[N, 128]`` -> logits ``[N, 10]``."""
        logits: Tensor = self.fc2(self.dropout2(features))
        return logits


BOTTLENECK_CHANNELS = 16
"""Channels between the two convolutions of ``NormalisedFashionNet``."""


class NormalisedFashionNet(FashionNet):
    """FashionNet for training, with batch normalisation (Ioffe & Szegedy, arXiv:1502.03167) and a bottleneck.

    The bottleneck is a 1x1 convolution from 32 to 16 channels before the second convolution. Both together are one
    convolution whose weights have rank 16 over its inputs. ``fused`` returns that convolution; the exported graph uses
    the two. Augmentation and a teacher regularise this network, so it has only a quarter of FashionNet's dropout.
    """

    architecture = "fashionnet-normalised"
    dropout_rates = (0.0, 0.125)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3, bias=False)
        self.norm1 = nn.BatchNorm2d(32)
        self.bottleneck = nn.Conv2d(32, BOTTLENECK_CHANNELS, kernel_size=1, bias=False)
        self.conv2 = nn.Conv2d(BOTTLENECK_CHANNELS, 64, kernel_size=3, bias=False)
        self.norm2 = nn.BatchNorm2d(64)
        self.norm2.weight.requires_grad_(False)
        self.fc1 = nn.Linear(64 * 12 * 12, 128, bias=False)
        self.norm3 = nn.BatchNorm1d(128)

    def features(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]`` -> penultimate activations float32 ``[N, 128]``, before dropout."""
        x = self.bottleneck(F.relu(self.norm1(self.conv1(normalise(images)))))  # [N, 16, 26, 26]
        # Pooling first leaves the normalisation a quarter of the work. It commutes with positive scales only, so the
        # scale of norm2 stays 1; the next layer's weights make up for it.
        x = F.relu(self.norm2(F.max_pool2d(self.conv2(x), 2)))  # [N, 64, 12, 12]
        return F.relu(self.norm3(self.fc1(self.dropout1(torch.flatten(x, 1)))))

    def fused(self) -> FashionNet:
        """Returns FashionNet with the bottleneck and the normalisations (in evaluation mode) in its weights."""
        network = FashionNet().eval()
        network.description += f" The second convolution's weights have rank {BOTTLENECK_CHANNELS} over its inputs."
        conv2 = nn.Conv2d(32, 64, kernel_size=3, bias=False).eval()
        projection = self.bottleneck.weight[:, :, 0, 0]
        conv2.weight.data = torch.einsum("omhw,mi->oihw", self.conv2.weight, projection).detach().contiguous()
        network.conv1 = fuse_conv_bn_eval(self.conv1, self.norm1)
        network.conv2 = fuse_conv_bn_eval(conv2, self.norm2)
        network.fc1 = fuse_linear_bn_eval(self.fc1, self.norm3)
        network.fc2.load_state_dict(self.fc2.state_dict())
        return network


class DeepFashionNet(Network):
    """A residual, batch-normalised network (He et al., arXiv:1512.03385) for 28x28 grey images.

    Each stage has its own resolution and starts with a convolution to its number of channels. Stages of a lower
    resolution have more channels, so that all take about the same number of multiplications.
    """

    architecture = "fashionnet-deep"
    channels: ClassVar[tuple[int, ...]] = (32, 96, 192)
    """Channels of each stage; the last stage's are the features."""
    blocks: ClassVar[tuple[int, ...]] = (2, 3, 3)
    """Residual blocks (two convolutions each) of each stage."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential()
        for before, channels, blocks in zip((1, *self.channels), self.channels, self.blocks, strict=False):
            pooling = [nn.MaxPool2d(2, ceil_mode=True)] if self.stages else []  # 28, 14, 7, 4 pixels
            residuals = (Residual(channels) for _ in range(blocks))
            self.stages.append(nn.Sequential(*pooling, ConvNorm(before, channels), *residuals))
        self.fc = nn.Linear(self.channels[-1], 10)
        layers, (*narrower, widest) = sum(1 + 2 * blocks for blocks in self.blocks), self.channels
        self.description = (
            f"{layers} convolutions of {', '.join(map(str, narrower))} and {widest} channels with batch normalisation "
            "and residual connections, global average pooling."
        )

    def features(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]`` -> averaged activations float32 ``[N, F]``, F the last of ``channels``."""
        maps: Tensor = self.stages(normalise(images))
        return maps.mean((2, 3))

    def classify(self, features: Tensor) -> Tensor:
        """Features ``[N, F]`` -> logits ``[N, 10]``."""
        logits: Tensor = self.fc(features)
        return logits


class ResidualFashionNet(Network):
    """Fewer layers than the deep network. An ensemble of its snapshots teaches ``fashionnet``."""

    architecture = "fashionnet-residual"
    description = "Ten convolutions with batch normalisation and residual connections, global average pooling."

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvNorm(1, 32),
            ConvNorm(32, 32),  # [N, 32, 28, 28]
            nn.MaxPool2d(2),
            ConvNorm(32, 64),
            Residual(64),  # [N, 64, 14, 14]
            nn.MaxPool2d(2),
            ConvNorm(64, 128),
            Residual(128),
            Residual(128),  # [N, 128, 7, 7]
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.dropout = nn.Dropout(0.125)
        self.fc = nn.Linear(128, 10)

    def features(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]`` -> averaged activations float32 ``[N, 128]``, before dropout."""
        features: Tensor = self.layers(normalise(images))
        return features

    def classify(self, features: Tensor) -> Tensor:
        """Features ``[N, 128]`` -> logits ``[N, 10]``."""
        logits: Tensor = self.fc(self.dropout(features))
        return logits


PHOTO_OUTPUTS = len(CLASSES) + 1
"""The ten classes, and "none of them" last."""
FROZEN_BLOCKS = 7
"""Of EfficientNet-Lite2: those that keep their ImageNet weights, as the stem does. Edges and textures are the same in
photos of clothes, and training takes half the time."""


class PhotoFashionNet(Network):
    """EfficientNet-Lite2 for colour photos. It tells the ten classes and "none of them" apart.

    Normalisations keep the statistics of ImageNet, because batches mix photos with drawn pictures.
    """

    architecture = "fashionnet-photo"
    description = (
        "EfficientNet-Lite2 with ImageNet weights, fine-tuned on photos of clothes and on images of Fashion-MNIST on "
        "other backgrounds."
    )
    input = ModelInput(height=224, width=224, channels=3, convention="photo", fit="squeeze")

    def __init__(self) -> None:
        super().__init__()
        self.trunk = EfficientNetLite2()
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(FEATURES, PHOTO_OUTPUTS)
        for layer in (self.trunk.stem, *self.trunk.blocks[:FROZEN_BLOCKS]):
            layer.requires_grad_(False)

    def train(self, mode: bool = True) -> "PhotoFashionNet":
        """Sets the mode of dropout; normalisations stay in evaluation mode."""
        super().train(mode)
        self.trunk.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, S, S, 3]`` -> averaged activations float32 ``[N, 1280]``, before dropout."""
        maps: Tensor = self.trunk(images)
        return maps.mean((2, 3))

    def class_maps(self, images: Tensor) -> Tensor:
        """Returns how much each place adds to each logit, ``[N, 10, S / 32, S / 32]``: logits without the biases."""
        maps = self.trunk(images)
        weights = self.fc.weight[: len(CLASSES), :, None, None] / (maps.shape[2] * maps.shape[3])
        return F.conv2d(maps, weights)

    def classify(self, features: Tensor) -> Tensor:
        """Features ``[N, 1280]`` -> logits of the ten classes, ``[N, 10]``."""
        return self.all_logits(features)[:, : len(CLASSES)]

    def all_logits(self, features: Tensor) -> Tensor:
        """Features ``[N, 1280]`` -> logits of the ten classes and of none of them, ``[N, 11]``."""
        logits: Tensor = self.fc(self.dropout(features))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, S, S, 3]`` -> log-probabilities of the ten classes and none, float32 ``[N, 11]``."""
        return F.log_softmax(self.all_logits(self.features(images)), dim=1)


class TeacherFashionNet(DeepFashionNet):
    """The deep network at the size of ResNet-18, too large to serve; it teaches the deep network."""

    architecture = "fashionnet-teacher"
    channels = (64, 128, 256, 512)
    blocks = (2, 2, 2, 2)


def normalise(images: Tensor) -> Tensor:
    """Images uint8 ``[N, 28, 28]`` -> float32 ``[N, 1, 28, 28]`` of mean 0 and deviation 1 over the training set."""
    return (images.unsqueeze(1).float() / 255 - PIXEL_MEAN) / PIXEL_STD


ARCHITECTURES: dict[str, type[Network]] = {
    network.architecture: network
    for network in (
        FashionNet,
        NormalisedFashionNet,
        DeepFashionNet,
        ResidualFashionNet,
        TeacherFashionNet,
        PhotoFashionNet,
    )
}


def network_to_export(architecture: str, states: Iterable[Mapping[str, Tensor]]) -> Network:
    """Returns the fused network of a state, or the ensemble of the networks of several; on the CPU, in evaluation mode.

    Args:
        architecture: its name in ``ARCHITECTURES``.
        states: what ``state_dict`` of such a network returned, on any device.
    """
    members = []
    for state in states:
        member = create_network(architecture)
        member.load_state_dict(state)
        members.append(member.eval().fused())
    return members[0] if len(members) == 1 else Ensemble(members).eval()


def create_network(architecture: str) -> Network:
    """Returns a network with random weights; raises KeyError if ``ARCHITECTURES`` has no such name."""
    return ARCHITECTURES[architecture]()


def load_network(artifact: Artifact) -> Network:
    """Returns the network of an artefact that was loaded with its ``safetensors``, on the CPU, in evaluation mode.

    Raises:
        ArtifactCorrupt: this version does not have the architecture, or its layers differ.
    """
    architecture = artifact.card.architecture
    if architecture not in ARCHITECTURES:
        raise ArtifactCorrupt(
            f"{artifact.card.name}.json names the architecture {architecture!r}, which this version does not have: use "
            "an artefact of this version, or train one."
        )
    members = [create_network(architecture) for _ in range(artifact.card.members)]
    network = members[0] if len(members) == 1 else Ensemble(members)
    try:
        network.load_state_dict(safetensors.torch.load(artifact.content["safetensors"]))
    except RuntimeError:
        raise ArtifactCorrupt(
            f"The weights do not fit the architecture {architecture!r} of this version: use an artefact of "
            "this version, or train one."
        ) from None
    return network.eval()
