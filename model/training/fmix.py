"""FMix (Harris et al., arXiv:2002.12047): images with a region of another image, and their soft targets.

The region is where smooth noise is above a threshold, so its shapes vary as much as clothes do.
"""

from typing import NamedTuple

import torch
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from model.data import CLASSES

_DECAY = 3
"""The noise's amplitude falls with this power of the frequency, as in the paper."""


class FMixConfig(BaseModel):
    """How often images are mixed."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    probability: float = Field(
        gt=0, le=1, validation_alias=AliasChoices("probability", "share"), description="that an image is mixed"
    )


class MixedTargets(NamedTuple):
    """Which images N mixed images consist of."""

    partners: Tensor
    """int64 ``[N]``, index of the second image."""
    lam: Tensor
    """float32 ``[N]``, .5..1, share of the pixels that come from the first image."""

    def probabilities(self, labels: Tensor) -> Tensor:
        """Labels int64 ``[N]`` -> float32 ``[N, 10]``: ``lam`` for the image's label, the rest for its partner's."""
        one_hot = F.one_hot(labels, len(CLASSES)).float()
        return one_hot[self.partners].lerp(one_hot, self.lam[:, None])


def mix(images: Tensor, config: FMixConfig) -> tuple[Tensor, MixedTargets]:
    """Mix images uint8 ``[N, 28, 28]`` with each other; draws from torch's random generator."""
    count, pixels, device = len(images), images[0].numel(), images.device
    partners = torch.randperm(count, device=device)
    # The paper draws lam from 0..1. Swapping the two images so that lam is at least 1/2 is the same.
    replaced = (torch.rand(count, device=device) * pixels / 2).int()
    replaced = torch.where(torch.rand(count, device=device) < config.probability, replaced, 0)
    noise = _noise(count, images.shape[-1], device).flatten(1)
    highest = noise.sort(dim=1, descending=True).values
    threshold = highest.gather(1, replaced[:, None].long())
    masks = (noise > threshold).view(images.shape)
    return torch.where(masks, images[partners], images), MixedTargets(partners, 1 - replaced / pixels)


def _noise(count: int, size: int, device: torch.device) -> Tensor:
    """Smooth noise, float32 ``[N, S, S]``."""
    down, across = torch.fft.fftfreq(size, device=device), torch.fft.rfftfreq(size, device=device)
    frequency = (down[:, None].square() + across.square()).sqrt().clamp(min=1 / size)
    waves = torch.randn(count, *frequency.shape, 2, device=device) / frequency[:, :, None] ** _DECAY
    noise: Tensor = torch.fft.irfft2(torch.view_as_complex(waves), (size, size))
    return noise
