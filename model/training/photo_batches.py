"""The batches of an epoch of the photo model: photos, Fashion-MNIST on other backgrounds, and outliers."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.network import PHOTO_OUTPUTS, PhotoFashionNet
from model.training.augment import derived_seed
from model.training.batches import Batch
from model.training.photo_mix import PhotoMix
from model.training.synthesis import affine_maps, draw_articles, draw_backgrounds, draw_outliers, enlarge

PHOTO_SIZE = PhotoFashionNet.input.height
"""Edge of the model's input in pixels."""
ON_ITS_SIDE = 0.1
"""Share of the photos that are turned by 90 degrees while training."""
_EPOCH = 11  # purpose of a seed; model.training.batches has others


class PhotoTensors(NamedTuple):
    """Photos in memory, and the images that are drawn among them."""

    photos: Tensor
    """uint8 ``[N, H, H, 3]``"""
    sets: Tensor
    """bool ``[N, 11]``, the right answers."""
    images: Tensor
    """uint8 ``[M, 28, 28]``, of Fashion-MNIST."""
    labels: Tensor
    """int64 ``[M]``"""


class PhotoBatches:
    """Makes the batches of each epoch. They depend on the seed and the epoch only, so a resumed run gets the same."""

    def __init__(self, mix: PhotoMix, batch_size: int, tensors: PhotoTensors, seed: int) -> None:
        self.mix, self.tensors, self.seed, self.batch_size = mix, tensors, seed, batch_size
        weights = torch.ones(PHOTO_OUTPUTS - 1)
        for label, weight in mix.class_weights.items():
            weights[label] = weight
        self._weights = weights[tensors.labels]
        self._photos = batch_size - mix.drawn - mix.outliers
        """Photos in a batch."""

    @property
    def images_per_epoch(self) -> int:
        """Photos and drawn images."""
        return len(self.tensors.photos) + len(self) * (self.batch_size - self._photos)

    def __len__(self) -> int:
        """Returns the number of batches in an epoch."""
        return math.ceil(len(self.tensors.photos) / self._photos)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yields the batches of the epoch ``number`` (0, 1, ...); seeds torch's random generator."""
        torch.manual_seed(derived_seed(_EPOCH, self.seed, number))
        for indices in torch.split(torch.randperm(len(self.tensors.photos)), self._photos):
            yield self._batch(indices)

    def _batch(self, indices: Tensor) -> Batch:
        mix, tensors, size = self.mix, self.tensors, self.mix.crop_size
        photos = vary_colours(crop_randomly(tensors.photos[indices], size))
        count = mix.drawn + mix.outliers
        backgrounds = draw_backgrounds(tensors.photos[torch.randint(len(tensors.photos), (count,))], size)
        chosen = torch.multinomial(self._weights, mix.drawn)
        images = torch.where(
            torch.rand(mix.drawn, 1, 1, 1) < mix.enlarged,
            enlarge(tensors.images[chosen], size),
            vary_colours(draw_articles(tensors.images[chosen], backgrounds[: mix.drawn])),
        )
        outliers = draw_outliers(backgrounds[mix.drawn :])
        drawn_sets = F.one_hot(tensors.labels[chosen], PHOTO_OUTPUTS).bool()
        none = F.one_hot(torch.full((mix.outliers,), PHOTO_OUTPUTS - 1), PHOTO_OUTPUTS).bool()
        pictures = torch.cat([photos, images, outliers]).permute(0, 2, 3, 1)
        sets = torch.cat([tensors.sets[indices], drawn_sets, none])
        return Batch(pictures, sets, sets)


def crop_randomly(photos: Tensor, size: int) -> Tensor:
    """Returns random crops, mirrored, turned and stretched a little.

    Crops may extend beyond the photo; reflection fills the rest. One in ten is turned by 90 degrees, because some
    cameras record no orientation.

    Args:
        photos: uint8 ``[N, H, H, 3]``.
        size: edge of the crops in pixels.

    Returns:
        float32 ``[N, 3, size, size]``, 0..255.
    """
    count = len(photos)
    scale = torch.empty(count).uniform_(0.6, 1.2).sqrt()
    stretch = torch.empty(count).uniform_(-0.15, 0.15).exp()
    mirror = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    sides = torch.where(torch.rand(count) < ON_ITS_SIDE, torch.randint(2, (count,)) * 2 - 1, 0)
    width, height, angle = scale * stretch, scale / stretch, torch.randn(count) * 0.12 + sides * math.pi / 2
    reach = torch.stack([width, height])  # of the crop, across and down
    reach = torch.where(sides == 0, reach, reach.flip(0))
    across, down = (torch.rand(2, count) * 2 - 1) * (1 - reach).abs()
    maps = affine_maps(width, height, angle, across, down)
    maps[:, :, 0] *= mirror[:, None]
    places = F.affine_grid(maps, [count, 3, size, size], align_corners=False)
    pixels = photos.permute(0, 3, 1, 2).float()
    return F.grid_sample(pixels, places, padding_mode="reflection", align_corners=False)


def vary_colours(pictures: Tensor) -> Tensor:
    """Returns pictures ``[N, 3, S, S]`` with another brightness, tint, contrast and saturation; some are blurred.

    A fifth of them is reduced to 28 to 96 pixels and enlarged again, because otherwise only images of Fashion-MNIST
    were blurred, and blur would mean "bag".
    """
    count = len(pictures)
    brightness, contrast, saturation = (
        torch.empty(count, 1, 1, 1).uniform_(*limits) for limits in ((0.65, 1.35), (0.75, 1.25), (0.5, 1.3))
    )
    pictures = pictures * brightness * torch.empty(count, 3, 1, 1).uniform_(0.9, 1.1)
    mean = pictures.mean((1, 2, 3), keepdim=True)
    pictures = (pictures - mean) * contrast + mean
    grey = pictures.mean(1, keepdim=True)
    pictures = (pictures - grey) * saturation + grey
    blurred = torch.rand(count) < 0.2
    if blurred.any():
        edge = int(torch.randint(28, 97, ()))
        small = F.interpolate(pictures[blurred], size=(edge, edge), mode="bilinear", antialias=True)
        pictures[blurred] = F.interpolate(small, size=pictures.shape[2:], mode="bicubic")
    return pictures.clamp(0, 255)
