"""Synthetic photos: images of Fashion-MNIST on backgrounds, and pictures of none of the classes.

The photos that the network is trained on show no bags, and shoes only in pairs from above. Fashion-MNIST shows both,
but in grey, at 28 pixels, on black. Here its images become coloured articles on other backgrounds. Everything is drawn
from torch's random generator.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

LIT = 8
"""Pixels of Fashion-MNIST above this value belong to the article."""
_CHARACTERS = np.array(list("abcdefghijklmnopqrstuvwxyz     ABCDE0123456789.,"))


def draw_backgrounds(photos: Tensor, size: int) -> Tensor:
    """Returns a background for each photo: a corner of it, a gradient, clouds, or one colour.

    Args:
        photos: uint8 ``[N, H, W, 3]``.
        size: edge of the backgrounds in pixels.

    Returns:
        float32 ``[N, 3, size, size]``, 0..255.
    """
    drawn = [_corner(photo, size) if _chance(0.6) else _generated(size) for photo in photos]
    return torch.stack(drawn).clamp(0, 255)


def draw_articles(images: Tensor, backgrounds: Tensor) -> Tensor:
    """Returns images of Fashion-MNIST as coloured articles of random size, place and rotation.

    Args:
        images: uint8 ``[N, 28, 28]``.
        backgrounds: float32 ``[N, 3, S, S]``, 0..255.

    Returns:
        float32 ``[N, 3, S, S]``, 0..255.
    """
    size = backgrounds.shape[-1]
    pixels = images[:, None].float()
    pixels = torch.where(_coin(len(images)), pixels, pixels.flip(3))
    outline = F.interpolate((pixels > LIT).float(), size=(size, size), mode="bicubic")
    opacity = torch.sigmoid((outline - 0.5) * _uniform(len(images), 6, 40))
    places = F.affine_grid(_placements(len(images)), [len(images), 1, size, size], align_corners=False)
    opacity = F.grid_sample(opacity, places, align_corners=False)
    articles = F.grid_sample(_coloured(pixels, size), places, padding_mode="border", align_corners=False)
    shadow = torch.roll(F.avg_pool2d(opacity, 9, 1, 4), (3, 3), (2, 3))
    backgrounds = backgrounds * (1 - 0.35 * _uniform(len(images), 0, 1) * shadow)
    return articles.clamp(0, 255) * opacity + backgrounds * (1 - opacity)


def enlarge(images: Tensor, size: int) -> Tensor:
    """Images uint8 ``[N, 28, 28]`` -> the same in grey, float32 ``[N, 3, size, size]``, 0..255."""
    grey = F.interpolate(images[:, None].float(), size=(size, size), mode="bilinear")
    return grey.expand(-1, 3, -1, -1).clone()


def draw_outliers(backgrounds: Tensor) -> Tensor:
    """Returns pictures of none of the classes: a background alone, noise, text, or shapes.

    Args:
        backgrounds: float32 ``[N, 3, S, S]``, 0..255.
    """
    kinds: list[Callable[[Tensor], Tensor]] = [lambda background: background, _noise, _text, _shapes]
    weights = torch.tensor([0.35, 0.15, 0.25, 0.25])
    chosen = torch.multinomial(weights, len(backgrounds), replacement=True).tolist()
    return torch.stack([kinds[kind](background) for kind, background in zip(chosen, backgrounds, strict=True)])


def _corner(photo: Tensor, size: int) -> Tensor:
    height, width, _ = photo.shape
    edge = int(torch.randint(height // 6, height // 3, ()))
    top, left = (int(torch.randint(2, ())) * (whole - edge) for whole in (height, width))
    patch = photo[top : top + edge, left : left + edge].permute(2, 0, 1)[None].float()
    if _chance(0.5):  # mirrored on both axes, so that it spreads without a seam
        patch = torch.cat([patch, patch.flip(3)], 3)
        patch = torch.cat([patch, patch.flip(2)], 2)
    return F.interpolate(patch, size=(size, size), mode="bilinear")[0]


def _generated(size: int) -> Tensor:
    if _chance(0.3):
        return torch.full((3, size, size), 255.0 if _chance(0.5) else 235.0) + _grain(size)
    first, second = torch.rand(2, 3, 1, 1) * 255
    slope = torch.linspace(0, 1, size)
    slope = slope[None, :, None] if _chance(0.5) else slope[None, None]
    picture = first + (second - first) * slope * float(_chance(0.75))
    if _chance(0.4):
        cells = int(torch.randint(3, 40, ()))
        clouds = torch.randn(1, 3 if _chance(0.3) else 1, cells, cells) * torch.rand(()) * 60
        picture = picture + F.interpolate(clouds, size=(size, size), mode="bilinear")[0]
    return torch.add(picture, _grain(size))  # [1 or 3, S, S] and [3, S, S]


def _coloured(pixels: Tensor, size: int) -> Tensor:
    """Images ``[N, 1, 28, 28]`` -> articles in random colours, ``[N, 3, size, size]``."""
    count = len(pixels)
    bright = F.interpolate(pixels, size=(size, size), mode="bicubic") / 255
    shade = torch.where(_coin(count), 1 - 0.9 * bright, bright).clamp(0, 1)
    shade = torch.where(_coin(count), shade, 0.5 + 0.5 * shade * _uniform(count, 0, 1))
    colour = torch.where(_coin(count), _uniform(count, 0, 255), torch.rand(count, 3, 1, 1) * 255)
    darkest = _uniform(count, 0, 0.5)
    articles = colour * (darkest + (1 - darkest) * shade) + _uniform(count, 0, 51) * shade
    weave = F.interpolate(torch.randn(count, 1, size // 3, size // 3), size=(size, size), mode="bilinear")
    return articles + weave * _uniform(count, 0, 14) + torch.randn(count, 1, size, size) * _uniform(count, 0, 8)


def _placements(count: int) -> Tensor:
    """Affine maps ``[N, 2, 3]`` from the picture to the article, which fills most of it or less than half."""
    scale, stretch = torch.empty(count).uniform_(1.02, 2.2), torch.empty(count).uniform_(-0.2, 0.2).exp()
    angle = torch.randn(count) * 0.2
    across, down = ((torch.rand(count) * 2 - 1) * (scale - 1) * 0.8 for _ in range(2))
    return affine_maps(scale * stretch, scale / stretch, angle, across, down)


def affine_maps(width: Tensor, height: Tensor, angle: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Returns matrices ``[N, 2, 3]`` for ``F.affine_grid``; every argument is ``[N]``, ``angle`` in radians."""
    cosine, sine = angle.cos(), angle.sin()
    first = torch.stack([width * cosine, -height * sine, across], 1)
    second = torch.stack([width * sine, height * cosine, down], 1)
    return torch.stack([first, second], 1)


def _noise(background: Tensor) -> Tensor:
    size = background.shape[-1]
    cells = int(torch.randint(4, size, ()))
    values = torch.rand(1, 3 if _chance(0.5) else 1, cells, cells) * 255
    mode = "nearest" if _chance(0.5) else "bilinear"
    return F.interpolate(values, size=(size, size), mode=mode)[0].expand(3, -1, -1)


def _text(background: Tensor) -> Tensor:
    rng, image = _generator(), _to_image(background)
    ink = rng.integers(0, 60, 3) if background.mean() > 128 else rng.integers(190, 255, 3)
    font = ImageFont.load_default(float(rng.integers(8, 26)))
    draw, line_height = ImageDraw.Draw(image), int(rng.integers(12, 34))
    for top in range(int(rng.integers(12)), image.height, line_height):
        line = "".join(rng.choice(_CHARACTERS, 40))
        draw.text((float(rng.integers(20)), top), line, tuple(ink.tolist()), font)
    return _to_tensor(image)


def _shapes(background: Tensor) -> Tensor:
    rng, image = _generator(), _to_image(background)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(1, 8)):
        corner = rng.integers(0, image.width, 2)
        box = [*corner.tolist(), *(corner + rng.integers(8, image.width, 2)).tolist()]
        shape = draw.ellipse if rng.random() < 0.67 else draw.rectangle
        shape(box, fill=tuple(rng.integers(0, 255, 3).tolist()))
    return _to_tensor(image)


def _to_image(picture: Tensor) -> Image.Image:
    return Image.fromarray(picture.permute(1, 2, 0).to(torch.uint8).numpy())


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def _generator() -> np.random.Generator:
    return np.random.default_rng(int(torch.randint(2**31, ())))


def _chance(probability: float) -> bool:
    return bool(torch.rand(()) < probability)


def _coin(count: int) -> Tensor:
    return torch.rand(count, 1, 1, 1) < 0.5


def _uniform(count: int, least: float, most: float) -> Tensor:
    return torch.empty(count, 1, 1, 1).uniform_(least, most)


def _grain(size: int) -> Tensor:
    return torch.randn(3, size, size) * torch.rand(()) * 8
