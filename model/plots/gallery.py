"""Test images with their predicted and true labels, as a picture."""

import io
from functools import cache, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from model.data import CLASSES

TILE = 112
"""Pixels of one side of an image in the grid, four times its own."""
CAPTION = 34
GAP = 8
QUICK = 1
"""zlib's level: about half the time of its usual one for a sixth more bytes."""
RIGHT, WRONG = "#0072b2", "#d55e00"
"""Blue and vermilion: told apart with every kind of colour vision (Okabe and Ito, 2008)."""
INK, PAPER = "#1a1a1a", "#ffffff"


def draw_gallery(
    images: NDArray[np.uint8],
    labels: ArrayLike,
    predicted: ArrayLike,
    *,
    columns: int,
    classes: tuple[str, ...] = CLASSES,
) -> bytes:
    """A PNG grid: each image with a tick or a cross, the predicted label and, below it, the true one.

    Args:
        images: uint8 ``[N, 28, 28]``.
        labels: true class ids ``[N]``.
        predicted: predicted class ids ``[N]``.
        columns: images in a row.
        classes: names of the class ids.
    """
    buffer = io.BytesIO()
    _draw(images, np.asarray(labels), np.asarray(predicted), columns, classes).save(buffer, "PNG", compress_level=QUICK)
    return buffer.getvalue()


def show(images: NDArray[np.uint8], labels: ArrayLike, predicted: ArrayLike, *, columns: int = 5) -> Image.Image:
    """The same grid as an image that a notebook displays; the arguments are those of ``draw_gallery``."""
    return _draw(images, np.asarray(labels), np.asarray(predicted), columns, CLASSES)


def _draw(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    predicted: NDArray[np.int64],
    columns: int,
    classes: tuple[str, ...],
) -> Image.Image:
    rows = max(1, -(-len(images) // columns))
    canvas = Image.new("RGB", (columns * (TILE + GAP) + GAP, rows * (TILE + CAPTION + GAP) + GAP), PAPER)
    if not len(images):
        ImageDraw.Draw(canvas).text((GAP, GAP), "no such image", INK, _font(13))
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        corner = GAP + column * (TILE + GAP), GAP + row * (TILE + CAPTION + GAP)
        _draw_tile(canvas, corner, image, classes[int(predicted[index])], classes[int(labels[index])])
    return canvas


def _draw_tile(
    canvas: Image.Image, corner: tuple[int, int], image: NDArray[np.uint8], predicted: str, true: str
) -> None:
    x, y = corner
    canvas.paste(RIGHT if predicted == true else WRONG, (x - 2, y - 2, x + TILE + 2, y + TILE + 2))
    canvas.paste(Image.fromarray(image).resize((TILE, TILE), Image.Resampling.NEAREST), corner)
    canvas.paste(_caption(predicted, true), (x, y + TILE + 2))


@lru_cache(maxsize=len(CLASSES) ** 2)
def _caption(predicted: str, true: str) -> Image.Image:
    """What stands below an image; kept, because writing takes longer than all else that is drawn."""
    caption = Image.new("RGB", (TILE + GAP - 2, CAPTION), PAPER)
    colour, draw = RIGHT if predicted == true else WRONG, ImageDraw.Draw(caption)
    _draw_mark(draw, (1, 3), predicted == true, colour)
    draw.text((16, 1), predicted, colour, _font(13))
    draw.text((16, 16), f"true {true}", INK, _font(12))
    return caption


def _draw_mark(draw: ImageDraw.ImageDraw, corner: tuple[int, int], right: bool, colour: str) -> None:
    """A tick or a cross of 10 x 10 pixels: colour alone does not tell everybody."""
    x, y = corner
    if right:
        draw.line([(x, y + 5), (x + 4, y + 9), (x + 10, y + 1)], colour, 2)
    else:
        draw.line([(x + 1, y + 1), (x + 9, y + 9)], colour, 2)
        draw.line([(x + 1, y + 9), (x + 9, y + 1)], colour, 2)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
