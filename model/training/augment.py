"""Random changes of training images that leave their class: a whole batch at once, each image in its own way."""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from model.network import PIXEL_MEAN


class Augmentation(BaseModel):
    """Which changes are drawn; none by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flip: bool = Field(default=False, description="mirror half of the images, left and right")
    shift: int = Field(default=0, ge=0, lt=28, description="most pixels that an image moves, in each direction")
    cutout: int = Field(
        default=0, ge=0, le=28, description="edge of a square that is made grey (DeVries & Taylor, arXiv:1708.04552)"
    )
    photo: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the images that look as if cut out of a photo instead: bent, toned",
    )


def augment(images: Tensor, augmentation: Augmentation) -> Tensor:
    """Images uint8 ``[N, 28, 28]`` -> as many, changed; draws from torch's random generator."""
    if augmentation.flip or augmentation.shift:
        images = _move(images, flip=augmentation.flip, shift=augmentation.shift)
    changed = _cut_out(images, augmentation.cutout) if augmentation.cutout else images
    if not augmentation.photo:
        return changed
    photographed = torch.rand(len(images), device=images.device) < augmentation.photo
    return torch.where(photographed[:, None, None], photograph(images), changed)


STRETCH, SMALLEST, TURN, KEYSTONE = 1.5, 0.85, 0.2, 0.35
"""How photos bend a cut-out article: width to height, least size, radians, width at the head to that at the foot."""
FLATTEST, GAIN, GRAIN = 0.7, 0.4, 6.0
"""How they tone it: share of a single grey, logarithm of the brightness, deviation of the noise."""


def photograph(images: Tensor) -> Tensor:
    """Images uint8 ``[N, 28, 28]`` -> as many, as the preprocessing cuts articles out of photos.

    Sleeves lie spread, the camera looks from an angle, narrow gaps are closed, the cloth has another tone.
    """
    chunks = [_tone(_close(_bend(chunk[:, None].float()))) for chunk in torch.split(images, 2048)]
    return torch.cat(chunks)[:, 0].clamp(0, 255).to(torch.uint8)


def _bend(articles: Tensor) -> Tensor:
    """Stretch, turn, scale and move each of ``[N, 1, 28, 28]``, within the frame's size."""
    count = len(articles)
    stretch = STRETCH ** _uniform(count, articles)
    size = 1 - (1 - SMALLEST) * torch.rand(count, device=articles.device)
    turn = TURN * _uniform(count, articles)
    across, up = 1 / (size * stretch.clamp(max=1)), 1 / (size * (1 / stretch).clamp(max=1))
    sine, cosine = turn.sin(), turn.cos()
    moved = 0.08 * _uniform(2 * count, articles).view(count, 2)
    rows = torch.stack([cosine * across, -sine * up, moved[:, 0], sine * across, cosine * up, moved[:, 1]], dim=1)
    grid = F.affine_grid(rows.view(count, 2, 3), list(articles.shape), align_corners=False)
    keystone = 1 + KEYSTONE * _uniform(count, articles).view(-1, 1, 1) * grid[..., 1]
    grid = torch.stack([grid[..., 0] * keystone, grid[..., 1]], dim=-1)
    return F.grid_sample(articles, grid, align_corners=False)


def _close(articles: Tensor) -> Tensor:
    """Close gaps of one pixel or two in every third image."""
    closed = -F.max_pool2d(-F.max_pool2d(articles, 3, stride=1, padding=1), 3, stride=1, padding=1)
    chosen = torch.rand(len(articles), 1, 1, 1, device=articles.device) < 1 / 3
    return torch.where(chosen, closed, articles)


def _tone(articles: Tensor) -> Tensor:
    """Another grey, flatter, grainy; the background stays black."""
    count, there = len(articles), articles > GRAIN
    grey = (60 + 180 * torch.rand(count, device=articles.device)).view(-1, 1, 1, 1)
    flat = (FLATTEST * torch.rand(count, device=articles.device)).view(-1, 1, 1, 1)
    gain = (GAIN * _uniform(count, articles)).exp().view(-1, 1, 1, 1)
    toned = (articles * (1 - flat) + grey * flat) * gain + GRAIN * torch.randn_like(articles)
    return torch.where(there, toned, 0)


def _uniform(count: int, like: Tensor) -> Tensor:
    """Numbers between -1 and 1, ``[N]``."""
    return torch.rand(count, device=like.device) * 2 - 1


def _move(images: Tensor, *, flip: bool, shift: int) -> Tensor:
    """Mirror and shift: one gather over the images with a margin of black."""
    count, size, _ = images.shape
    padded = F.pad(images, [shift] * 4)
    rows, columns = (_starts(count, 2 * shift, images) + torch.arange(size, device=images.device) for _ in range(2))
    if flip:
        mirrored = torch.rand(count, 1, device=images.device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    of = torch.arange(count, device=images.device)
    return padded[of[:, None, None], rows[:, :, None], columns[:, None, :]]


def _cut_out(images: Tensor, edge: int) -> Tensor:
    """Set a square of the mean brightness; its centre lies anywhere, so that it may hang over the border."""
    count, size, _ = images.shape
    axis = torch.arange(size, device=images.device)
    tops, lefts = (_starts(count, size - 1, images) - edge // 2 for _ in range(2))
    rows, columns = ((axis >= start) & (axis < start + edge) for start in (tops, lefts))
    return images.masked_fill(rows[:, :, None] & columns[:, None, :], round(255 * PIXEL_MEAN))


def _starts(count: int, most: int, like: Tensor) -> Tensor:
    """Whole numbers from 0 to ``most``, int64 ``[N, 1]``."""
    return torch.randint(0, most + 1, (count, 1), device=like.device)
