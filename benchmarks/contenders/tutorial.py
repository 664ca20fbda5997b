"""What the contenders have in common: the network of PyTorch's MNIST example with our weights, and PNG to tensor."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

WEIGHTS = Path(__file__).parents[2] / "model" / "weights" / "fashionnet.safetensors"
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
MEAN, STD = 0.2860406, 0.3530242


class TutorialNet(nn.Module):
    """The network of PyTorch's MNIST example as written there: NCHW, ReLU before pooling, nn.Dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3), nn.Conv2d(32, 64, 3)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Images float32 ``[N, 1, 28, 28]`` -> log-probabilities ``[N, 10]``."""
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.relu(self.fc1(torch.flatten(self.dropout1(x), 1)))
        return F.log_softmax(self.fc2(self.dropout2(x)), dim=1)


def load() -> TutorialNet:
    """The network with the committed weights, in evaluation mode, on one thread."""
    from safetensors.torch import load_file

    torch.set_num_threads(1)
    network = TutorialNet().eval()
    network.load_state_dict(load_file(WEIGHTS))
    return network


def decode(content: bytes) -> Tensor:
    """An encoded 28x28 picture -> float32 ``[1, 28, 28]``, normalised."""
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L"), np.float32)
    return torch.from_numpy((pixels / 255 - MEAN) / STD)[None]


def answer(log_probs: Tensor) -> dict:
    """Log-probabilities ``[10]`` -> what is sent."""
    probabilities = log_probs.exp().tolist()
    best = max(range(10), key=probabilities.__getitem__)
    return {
        "label": CLASSES[best],
        "confidence": probabilities[best],
        "probabilities": dict(zip(CLASSES, probabilities, strict=True)),
    }
