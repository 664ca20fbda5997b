"""Images made of two, and what is to be said of them: FMix (Harris et al., arXiv:2002.12047).

The mask that takes each pixel from the one or the other is where low-frequency noise is above a threshold, so that its
shapes are as varied as clothes are. The pixels stay what they were.
"""

from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from model.data import CLASSES

_DECAY = 3
"""By which power of its frequency a wave of the noise is fainter; the paper's."""


class Mixing(BaseModel):
    """How many images are made of two."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float = Field(gt=0, le=1, description="share of the images that are mixed with another")


class Mixture(NamedTuple):
    """What N mixed images are made of."""

    partners: Tensor
    """int64 ``[N]``, with which of the images each has been mixed."""
    kept: Tensor
    """float32 ``[N]``, .5..1, how much of its own pixels it has kept."""

    def targets(self, labels: Tensor) -> Tensor:
        """Labels int64 ``[N]`` -> probabilities float32 ``[N, 10]``, each label's its share of the pixels."""
        one_hot = F.one_hot(labels, len(CLASSES)).float()
        return one_hot[self.partners].lerp(one_hot, self.kept[:, None])


def mix(images: Tensor, mixing: Mixing) -> tuple[Tensor, Mixture]:
    """Images uint8 ``[N, 28, 28]`` -> as many, some with pixels of others; draws from torch's random generator."""
    count, pixels, device = len(images), images[0].numel(), images.device
    partners = torch.randperm(count, device=device)
    # Of two images mixed by k and 1 - k, as the paper has it, the one that keeps more comes first here.
    given = (torch.rand(count, device=device) * pixels / 2).int()
    given = torch.where(torch.rand(count, device=device) < mixing.share, given, 0)
    noise = _noise(count, images.shape[-1], device).flatten(1)
    highest = noise.sort(dim=1, descending=True).values
    threshold = highest.gather(1, given[:, None].long())
    masks = (noise > threshold).view(images.shape)
    return torch.where(masks, images[partners], images), Mixture(partners, 1 - given / pixels)


def _noise(count: int, size: int, device: torch.device) -> Tensor:
    """Float32 ``[N, S, S]``, smooth."""
    down, across = torch.fft.fftfreq(size, device=device), torch.fft.rfftfreq(size, device=device)
    frequency = (down[:, None].square() + across.square()).sqrt().clamp(min=1 / size)
    waves = torch.randn(count, *frequency.shape, 2, device=device) / frequency[:, :, None] ** _DECAY
    noise: Tensor = torch.fft.irfft2(torch.view_as_complex(waves), (size, size))
    return noise
