"""Random changes of training images that keep their class, drawn for each image of an epoch or an augmented set."""

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from model.network import PIXEL_MEAN


def derived_seed(*numbers: int) -> int:
    """Returns a 63-bit seed made of ``numbers``; other numbers, or another order, give another one."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


class Augmentation(BaseModel):
    """Which changes are drawn; none by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: bool = Field(default=False, description="mirror half of the images horizontally")
    shift: int = Field(default=0, ge=0, lt=28, description="largest shift in each direction, in pixels")
    cutout: int = Field(
        default=0, ge=0, le=28, description="edge of a square that is made grey (DeVries & Taylor, arXiv:1708.04552)"
    )


def augment(images: Tensor, augmentation: Augmentation, mirrored: Tensor | None = None) -> Tensor:
    """Returns the images uint8 ``[N, 28, 28]``, changed; draws from torch's random generator.

    Args:
        images: uint8 ``[N, 28, 28]``.
        augmentation: which changes.
        mirrored: bool ``[N]``, which images a flip mirrors. The default is a random half.
    """
    if augmentation.flip and mirrored is None:
        mirrored = torch.rand(len(images), device=images.device) < 0.5
    if augmentation.flip or augmentation.shift:
        images = _move(images, mirrored if augmentation.flip else None, augmentation.shift)
    return _cut_out(images, augmentation.cutout) if augmentation.cutout else images


def _move(images: Tensor, mirrored: Tensor | None, shift: int) -> Tensor:
    """Mirror and shift by one gather from the images with a black margin."""
    count, size, _ = images.shape
    padded = F.pad(images, [shift] * 4)
    rows, columns = (_starts(count, 2 * shift, images) + torch.arange(size, device=images.device) for _ in range(2))
    if mirrored is not None:
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    of = torch.arange(count, device=images.device)
    return padded[of[:, None, None], rows[:, :, None], columns[:, None, :]]


def _cut_out(images: Tensor, edge: int) -> Tensor:
    """Set a square to the mean brightness. Its centre may be any pixel, so it may extend over the border."""
    count, size, _ = images.shape
    axis = torch.arange(size, device=images.device)
    tops, lefts = (_starts(count, size - 1, images) - edge // 2 for _ in range(2))
    rows, columns = ((axis >= start) & (axis < start + edge) for start in (tops, lefts))
    return images.masked_fill(rows[:, :, None] & columns[:, None, :], round(255 * PIXEL_MEAN))


def _starts(count: int, most: int, like: Tensor) -> Tensor:
    """Random integers from 0 to ``most``, int64 ``[N, 1]``."""
    return torch.randint(0, most + 1, (count, 1), device=like.device)
