"""FashionNet in PyTorch, and every other architecture that can be trained and shipped.

Needs the extra ``train``. Every network takes uint8 images ``[N, 28, 28]`` as the data set has them and
normalises them itself, so that no caller can get it wrong.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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

    def forward(self, x: Tensor) -> Tensor:
        """Any float tensor -> the same shape; the identity in evaluation mode."""
        if not self.training:
            return x
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.dropped_bytes
        return x * kept.to(x.dtype).mul_(256 / (256 - self.dropped_bytes))


class FashionNet(nn.Module):
    """Two convolutions, max pooling, dropout, two fully connected layers, log softmax: 1,199,882 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3)
        self.dropout1 = Dropout(0.25)
        self.fc1 = nn.Linear(64 * 12 * 12, 128)
        self.dropout2 = Dropout(0.5)
        self.fc2 = nn.Linear(128, 10)

    def features(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]`` -> penultimate activations float32 ``[N, 128]``, before dropout."""
        x = F.relu(self.conv1(normalise(images)))  # [N, 32, 26, 26]
        # ReLU and max pooling commute; pooling first leaves ReLU a quarter of the work.
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # [N, 64, 12, 12]
        return F.relu(self.fc1(self.dropout1(torch.flatten(x, 1))))

    def classify(self, features: Tensor) -> Tensor:
        """Features ``[N, 128]`` -> logits ``[N, 10]``."""
        logits: Tensor = self.fc2(self.dropout2(features))
        return logits

    def outputs(self, images: Tensor) -> NetworkOutputs:
        """Images uint8 ``[N, 28, 28]`` -> log-probabilities, logits and features."""
        features = self.features(images)
        logits = self.classify(features)
        return NetworkOutputs(F.log_softmax(logits, dim=1), logits, features)

    def forward(self, images: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]`` -> log-probabilities float32 ``[N, 10]``."""
        return self.outputs(images).log_probs


def normalise(images: Tensor) -> Tensor:
    """Images uint8 ``[N, 28, 28]`` -> float32 ``[N, 1, 28, 28]`` of mean 0 and deviation 1 over the training set."""
    return (images.unsqueeze(1).float() / 255 - PIXEL_MEAN) / PIXEL_STD


ARCHITECTURES: dict[str, Callable[[], FashionNet]] = {"fashionnet": FashionNet}


def create_network(architecture: str) -> FashionNet:
    """A freshly initialised network by its name in ``ARCHITECTURES``; KeyError where there is none."""
    return ARCHITECTURES[architecture]()
