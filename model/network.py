"""FashionNet in PyTorch, and every other architecture that can be trained and shipped.

Needs the extra ``train``. Every network takes uint8 images ``[N, 28, 28]`` as the data set has them and
normalises them itself, so that no caller can get it wrong.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar, NamedTuple, cast

import safetensors.torch
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from model.artifact import Artifact
from model.errors import ArtifactCorrupt

PIXEL_MEAN = 0.2860406
"""Mean of the 60,000 training images, pixels scaled to 0..1."""
PIXEL_STD = 0.3530242
"""Their standard deviation."""


class NetworkOutputs(NamedTuple):
    """What a network says of N images, float32."""

    log_probs: Tensor
    """``[N, 10]``, log softmax of the logits: FashionNet's output as its definition has it."""
    logits: Tensor
    """``[N, 10]``; calibration and energy scores need them, because logsumexp(log_probs) is always 0."""
    features: Tensor
    """``[N, F]``, the penultimate activations (F = 128 for FashionNet)."""


class Dropout(nn.Module):
    """Dropout whose masks are cut from random 64-bit words, a byte an element.

    The same as ``nn.Dropout`` where 256 p is whole, and an eighth of the random numbers: on a CPU their
    generator runs on one core, and drawing them one an element takes a tenth of FashionNet's training time.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.dropped_bytes = round(256 * p)  # of 256
        self.first, self.of = 0, 0
        """Of how many rows in all the batch is a part, and which comes first in it; 0 of 0: it is the whole."""

    def forward(self, x: Tensor) -> Tensor:
        """Any float tensor -> the same shape; the identity in evaluation mode, or where nothing is dropped."""
        if not (self.training and self.dropped_bytes):
            return x
        row = x.numel() // len(x)
        words = torch.empty(-(-row * (self.of or len(x)) // 8), dtype=torch.int64, device=x.device)
        drawn = words.random_(-(2**63), None).view(torch.uint8)[self.first * row :]
        kept = drawn[: x.numel()].view(x.shape) >= self.dropped_bytes
        return x * kept.to(x.dtype).mul_(256 / (256 - self.dropped_bytes))


class Network(nn.Module):
    """What every architecture offers, once it has ``features`` and ``classify``."""

    architecture: str
    description: str

    def folded(self) -> "Network":
        """The network to release: the same function with fewer layers, or itself where nothing can be folded."""
        return self

    def features(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]`` -> penultimate activations float32 ``[N, F]``, before dropout."""
        raise NotImplementedError

    def classify(self, features: Tensor) -> Tensor:
        """Features ``[N, F]`` -> logits ``[N, 10]``."""
        raise NotImplementedError

    def outputs(self, images: Tensor) -> NetworkOutputs:
        """Images uint8 ``[N, 28, 28]`` -> log-probabilities, logits and features."""
        features = self.features(images)
        logits = self.classify(features)
        return NetworkOutputs(F.log_softmax(logits, dim=1), logits, features)

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]`` -> log-probabilities float32 ``[N, 10]``."""
        return self.outputs(images).log_probs


class Ensemble(Network):
    """Networks of one architecture, whose logits are averaged and whose features stand side by side."""

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
        self.dropout1 = Dropout(self.dropout_rates[0])
        self.fc1 = nn.Linear(64 * 12 * 12, 128)
        self.dropout2 = Dropout(self.dropout_rates[1])
        self.fc2 = nn.Linear(128, 10)

    def features(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]`` -> penultimate activations float32 ``[N, 128]``, before dropout."""
        # ReLU and max pooling commute; pooling first leaves ReLU a quarter of the work.
        x = F.relu(F.max_pool2d(self.conv2(self.first_maps(images)), 2))  # [N, 64, 12, 12]
        return F.relu(self.fc1(self.dropout1(torch.flatten(x, 1))))

    def first_maps(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]`` -> what the first convolution makes of them, float32 ``[N, 32, 26, 26]``."""
        return F.relu(self.conv1(normalise(images)))

    def classify(self, features: Tensor) -> Tensor:
        """Features ``[N, 128]`` -> logits ``[N, 10]``."""
        logits: Tensor = self.fc2(self.dropout2(features))
        return logits


MIXTURES = 16
"""Of how many mixtures of its 32 inputs the second convolution's outputs are made, where it is trained so."""


class NormalisedFashionNet(FashionNet):
    """FashionNet for training with batch normalisation (Ioffe & Szegedy, arXiv:1502.03167), which ``folded`` removes.

    The normalisations have no scale to be learnt: ReLU passes a positive factor on to the next layer, whose weights
    can be any. So they never turn the order of values round, and the second one may follow the pooling, which leaves
    it a quarter of the work. Augmentation and a teacher regularise this network; of dropout there is a quarter of
    FashionNet's, and only between the linear layers.

    The second convolution sees 16 mixtures of its 32 inputs. Together the two are one convolution whose weights have
    that rank over the inputs, which is what ``folded`` makes of them; a graph for serving takes it apart again.
    """

    architecture = "fashionnet-normalised"
    dropout_rates = (0.0, 0.125)

    def __init__(self) -> None:
        super().__init__()
        self.mixture = nn.Conv2d(32, MIXTURES, kernel_size=1, bias=False)
        self.conv2 = nn.Conv2d(MIXTURES, 64, kernel_size=3)
        self.norm1 = nn.BatchNorm2d(32, affine=False)
        self.norm2 = nn.BatchNorm2d(64, affine=False)
        self.norm3 = nn.BatchNorm1d(128, affine=False)

    def features(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]`` -> penultimate activations float32 ``[N, 128]``, before dropout."""
        x = F.conv2d(normalise(images), self.conv1.weight)
        x = F.relu(_normalised(x, self.norm1, self.conv1.bias))  # [N, 32, 26, 26]
        x = F.max_pool2d(F.conv2d(self.mixture(x), self.conv2.weight), 2)
        x = F.relu(_normalised(x, self.norm2, self.conv2.bias))  # [N, 64, 12, 12]
        x = F.linear(self.dropout1(torch.flatten(x, 1)), self.fc1.weight)
        return F.relu(_normalised(x, self.norm3, self.fc1.bias))

    def folded(self) -> FashionNet:
        """FashionNet itself: normalisations of evaluation mode and the mixture are inside its weights and biases."""
        plain = FashionNet().eval()
        plain.description += f" The second convolution's weights have rank {MIXTURES} over its inputs."
        state = self.state_dict()
        mixture = state["mixture.weight"][:, :, 0, 0]
        state["conv2.weight"] = torch.einsum("omhw,mi->oihw", state["conv2.weight"], mixture).contiguous()
        for layer, norm in (("conv1", "norm1"), ("conv2", "norm2"), ("fc1", "norm3")):
            scale = (state[f"{norm}.running_var"] + _EPSILON).rsqrt()
            weight = state[f"{layer}.weight"]
            state[f"{layer}.weight"] = weight * scale.view(-1, *[1] * (weight.dim() - 1))
            state[f"{layer}.bias"] = state[f"{layer}.bias"] - state[f"{norm}.running_mean"] * scale
        plain.load_state_dict({name: state[name] for name in plain.state_dict()})
        return plain


_EPSILON, _MOMENTUM = 1e-5, 0.1  # PyTorch's own


def _normalised(x: Tensor, norm: nn.BatchNorm1d | nn.BatchNorm2d, bias: Tensor | None) -> Tensor:
    """``norm`` with a ``bias`` of the layer's behind it; before it, the normalisation would subtract it at once."""
    if norm.training and are_several():
        return _normalised_together(x, norm, bias)
    if bias is not None and not norm.affine and x.device.type != "cpu":  # a GPU gives no gradient of such a bias
        plain = F.batch_norm(x, norm.running_mean, norm.running_var, None, None, norm.training, _MOMENTUM, _EPSILON)
        return plain + bias.to(plain.dtype).view(1, -1, *[1] * (x.dim() - 2))
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, bias, norm.training, _MOMENTUM, _EPSILON)


def _normalised_together(x: Tensor, norm: nn.BatchNorm1d | nn.BatchNorm2d, bias: Tensor | None) -> Tensor:
    """The same over the parts of a batch that several processes hold; PyTorch's own SyncBatchNorm needs GPUs."""
    rows = x.to(torch.promote_types(x.dtype, torch.float32))
    axes, shape = [0, *range(2, x.dim())], [1, -1, *[1] * (x.dim() - 2)]
    sums = _Total.apply(torch.cat([rows.sum(axes), rows.new_tensor([rows.numel() / rows.shape[1]])]))
    count, mean = sums[-1], sums[:-1] / sums[-1]
    centred = rows - mean.view(shape)
    variance = _Total.apply(centred.square().sum(axes)) / count
    if norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean.lerp_(mean.detach(), _MOMENTUM)
        norm.running_var.lerp_((variance * count / (count - 1)).detach(), _MOMENTUM)
    scale = (variance + _EPSILON).rsqrt() if norm.weight is None else (variance + _EPSILON).rsqrt() * norm.weight
    normalised: Tensor = centred * scale.view(shape)
    return normalised if bias is None else normalised + bias.view(shape)


class _Total(torch.autograd.Function):
    """The sum over all processes; each is to blame for what it does to any of them, so gradients are summed too."""

    @staticmethod
    def forward(_context: object, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: object, gradient: Tensor) -> Tensor:
        return _Total.forward(_context, gradient)


def are_several() -> bool:
    """Whether several processes train this network together, each on its part of every batch."""
    return distributed.is_initialized() and distributed.get_world_size() > 1


class BatchNorm2d(nn.BatchNorm2d):
    """PyTorch's, over the whole batch even where several processes share it."""

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> the same shape."""
        return _normalised(x, self, self.bias)


class DeepFashionNet(Network):
    """A residual, batch-normalised network (He et al., arXiv:1512.03385) for 28x28 grey images.

    A stage a resolution; each begins with a convolution to its number of channels. Most of the channels are where the
    images are small already, so that the multiplications are spread evenly.
    """

    architecture = "fashionnet-deep"
    channels: ClassVar[tuple[int, ...]] = (32, 96, 192)
    """Of each stage; those of the last are the features."""
    blocks: ClassVar[tuple[int, ...]] = (2, 3, 3)
    """Residual blocks of two convolutions in each stage."""

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


class PhotoFashionNet(Network):
    """Fewer layers than the deep network's: a little less often right on the data set, and more often on photos."""

    architecture = "fashionnet-photo"
    description = "Nine convolutions with batch normalisation and residual connections, global average pooling."

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
        self.dropout = Dropout(0.125)
        self.fc = nn.Linear(128, 10)

    def features(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]`` -> averaged activations float32 ``[N, 128]``, before dropout."""
        features: Tensor = self.layers(normalise(images))
        return features

    def classify(self, features: Tensor) -> Tensor:
        """Features ``[N, 128]`` -> logits ``[N, 10]``."""
        logits: Tensor = self.fc(self.dropout(features))
        return logits


class TeacherFashionNet(DeepFashionNet):
    """The deep network's kind at ResNet-18's size, too large to serve: its answers teach the deep network."""

    architecture = "fashionnet-teacher"
    channels = (64, 128, 256, 512)
    blocks = (2, 2, 2, 2)


class ConvNorm(nn.Sequential):
    """A 3x3 convolution that keeps the size, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
            BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels)
        self.second = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm = BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> the same shape."""
        return F.relu(x + self.norm(self.second(self.first(x))))


def normalise(images: Tensor) -> Tensor:
    """Images uint8 ``[N, 28, 28]`` -> float32 ``[N, 1, 28, 28]`` of mean 0 and deviation 1 over the training set."""
    return (images.unsqueeze(1).float() / 255 - PIXEL_MEAN) / PIXEL_STD


ARCHITECTURES: dict[str, type[Network]] = {
    network.architecture: network
    for network in (FashionNet, NormalisedFashionNet, DeepFashionNet, PhotoFashionNet, TeacherFashionNet)
}


def release(trained: Network, snapshots: Iterable[Mapping[str, Tensor]] = ()) -> Network:
    """What is released of a trained network: itself, folded, or its ensemble with earlier states of its own.

    Args:
        trained: on the CPU.
        snapshots: what ``state_dict`` returned earlier in its training.
    """
    members = []
    for snapshot in snapshots:
        member = create_network(trained.architecture)
        member.load_state_dict(snapshot)
        members.append(member.eval().folded())
    members.append(trained.eval().folded())
    return members[0] if len(members) == 1 else Ensemble(members).eval()


def create_network(architecture: str) -> Network:
    """A freshly initialised network by its name in ``ARCHITECTURES``; KeyError where there is none."""
    return ARCHITECTURES[architecture]()


def load_network(artifact: Artifact) -> Network:
    """The trained network of an artefact that was loaded with its ``safetensors``, in evaluation mode on the CPU.

    Raises:
        ArtifactCorrupt: this version knows no such architecture, or another one by that name.
    """
    architecture = artifact.card.architecture
    if architecture not in ARCHITECTURES:
        raise ArtifactCorrupt(f"This version knows no architecture {architecture!r}.")
    members = [create_network(architecture) for _ in range(artifact.card.members)]
    network = members[0] if len(members) == 1 else Ensemble(members)
    try:
        network.load_state_dict(safetensors.torch.load(artifact.content["safetensors"]))
    except RuntimeError:
        raise ArtifactCorrupt(
            f"The weights are not those of the architecture {architecture!r} as this version knows it: bring an "
            "artefact of this version, or train one."
        ) from None
    return network.eval()
