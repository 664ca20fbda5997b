"""The convention of Fashion-MNIST (Xiao et al., arXiv:1708.07747, section 2) for any picture.

Grey, the article light on a background of exactly 0, trimmed, its longest edge 28 pixels, centred. The steps are made
for product pictures on a plain background.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Box = tuple[int, int, int, int]
"""Left, top, right and bottom; right and bottom lie just beyond it."""
SIZE = 28
WORKING_SIZE = 128
"""Longest edge, in pixels, at which the background is measured."""
PLAIN = 0.75
"""Share of the border within ``EVEN`` of its median colour from which on a background is plain. The article may touch
the border."""
EVEN = 6.0
"""Of 255."""
FUZZ = 0.03
"""Contrast to the background, 0..1, below which a pixel belongs to it. The paper's step 2 has .05, which loses white
clothes on white."""
DARKEST = 30.0
"""Minimum brightness of an article, 0..255."""


class Background(NamedTuple):
    """The background of a picture, measured on its border."""

    colour: tuple[int, int, int]
    """The median of the border."""
    is_plain: bool
    """Whether most of the border has this colour."""


class Trimmed(NamedTuple):
    """A picture in the convention of the data set."""

    image: NDArray[np.uint8]
    """``[28, 28]``; all 0 if nothing differs from the background."""
    crop_box: Box | None
    """The article in the picture; None if nothing differs from the background."""
    placement: Box | None
    """The article in ``image``."""
    inverted: bool
    """Whether light and dark were exchanged."""
    coverage: float
    """Share of the picture that the article covers, 0..1."""
    contrast: float
    """Distance of the article's mean colour from the background's, 0..1."""


def measure_background(pixels: NDArray[np.uint8]) -> Background:
    """Pixels uint8 ``[H, W, 3]`` -> their background."""
    border = pixels[_frame(*pixels.shape[:2])]
    median = np.median(border, axis=0)
    plain = (np.abs(border - median).max(axis=1) <= EVEN).mean() >= PLAIN
    return Background((int(median[0]), int(median[1]), int(median[2])), bool(plain))


def trim(image: Image.Image, background: Background) -> Trimmed:
    """Returns a picture of mode RGB, at most ``WORKING_SIZE`` pixels wide and high, in the convention."""
    pixels, grey = np.asarray(image), np.asarray(image.convert("L"), np.float32)
    distance = np.abs(pixels - np.array(background.colour, np.float64)).max(axis=2)
    # A tenth of the strongest contrast: JPEG leaves ripples of a twentieth around an article.
    mask = _without_frame(distance > max(255 * FUZZ, distance.max() / 10))
    if not mask.any():
        return Trimmed(np.zeros((SIZE, SIZE), np.uint8), None, None, inverted=False, coverage=0, contrast=0)
    left, top, right, bottom = box = _bounds(mask)
    lightness = _lightness(background.colour)
    article = np.where(mask, _contrast(grey, lightness), np.float32(0))[top:bottom, left:right]
    centred, placement = _centre(article)
    return Trimmed(
        centred,
        box,
        placement,
        inverted=bool(lightness >= grey[mask].mean()),
        coverage=float(mask.mean()),
        contrast=float(np.abs(pixels[mask].mean(axis=0) - background.colour).max() / 255),
    )


def _frame(height: int, width: int) -> NDArray[np.bool_]:
    """The pixels along the four edges."""
    breadth = max(1, round(0.04 * min(height, width)))
    frame = np.ones((height, width), np.bool_)
    frame[breadth:-breadth, breadth:-breadth] = False
    return frame


def _without_frame(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Clears the outermost rings of pixels that differ from the background on all four sides.

    They are a frame, which no article is.
    """
    places = np.indices(mask.shape)
    to_edge = np.minimum(places, places[:, ::-1, ::-1]).min(axis=0)
    return mask if mask.all() else mask & (to_edge >= to_edge[~mask].min())


def _bounds(mask: NDArray[np.bool_]) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _lightness(colour: tuple[int, int, int]) -> int:
    """The grey of a colour, 0..255, as Pillow weighs and rounds it."""
    return round(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])


def _contrast(grey: NDArray[np.float32], background: int) -> NDArray[np.float32]:
    """Grey ``[H, W]`` -> contrast to the background: its farther end becomes 255, what differs in hue DARKEST."""
    contrast = np.abs(grey - background) * np.float32(255 / max(background, 255 - background))
    bounded: NDArray[np.float32] = np.maximum(contrast, np.float32(DARKEST))
    return bounded


def _centre(article: NDArray[np.float32]) -> tuple[NDArray[np.uint8], Box]:
    """Scales the longest edge to 28 and centres; an odd pixel of padding goes left or on top, as in the data set."""
    height, width = article.shape
    scale = SIZE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(np.ascontiguousarray(article)).resize(size, Image.Resampling.BOX))
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    top, left = -(-(SIZE - size[1]) // 2), -(-(SIZE - size[0]) // 2)
    canvas[top : top + size[1], left : left + size[0]] = small.round()
    return canvas, (left, top, left + size[0], top + size[1])
