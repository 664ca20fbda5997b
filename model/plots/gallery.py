"""Draws test images with their predicted and true labels."""

from functools import cache, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from model.data import CLASSES
from model.plots.style import CORRECT, INCORRECT, INK, PAPER, encode_png

TILE = 112
"""Edge of an image in the grid, in pixels: four times 28."""
CAPTION = 34
GAP = 8


def draw_gallery(images: NDArray[np.uint8], labels: ArrayLike, predicted: ArrayLike, *, columns: int) -> bytes:
    """Returns a PNG grid: each image with a tick or a cross, the predicted label and the true label.

    Args:
        images: uint8 ``[N, 28, 28]``.
        labels: true class ids ``[N]``.
        predicted: predicted class ids ``[N]``.
        columns: images per row.
    """
    return encode_png(show(images, labels, predicted, columns=columns))


def show(images: NDArray[np.uint8], labels: ArrayLike, predicted: ArrayLike, *, columns: int = 5) -> Image.Image:
    """Returns the grid of ``draw_gallery`` as an image, which a notebook displays."""
    rows = max(1, -(-len(images) // columns))
    canvas = Image.new("RGB", (columns * (TILE + GAP) + GAP, rows * (TILE + CAPTION + GAP) + GAP), PAPER)
    if not len(images):
        ImageDraw.Draw(canvas).text((GAP, GAP), "no such image", INK, _font(13))
    for index, (image, found, true) in enumerate(zip(images, np.asarray(predicted), np.asarray(labels), strict=True)):
        row, column = divmod(index, columns)
        corner = GAP + column * (TILE + GAP), GAP + row * (TILE + CAPTION + GAP)
        _draw_tile(canvas, corner, image, CLASSES[int(found)], CLASSES[int(true)])
    return canvas


def _draw_tile(
    canvas: Image.Image, corner: tuple[int, int], image: NDArray[np.uint8], predicted: str, true: str
) -> None:
    x, y = corner
    canvas.paste(CORRECT if predicted == true else INCORRECT, (x - 2, y - 2, x + TILE + 2, y + TILE + 2))
    canvas.paste(Image.fromarray(image).resize((TILE, TILE), Image.Resampling.NEAREST), corner)
    canvas.paste(_caption(predicted, true), (x, y + TILE + 2))


@lru_cache(maxsize=len(CLASSES) ** 2)
def _caption(predicted: str, true: str) -> Image.Image:
    # Cached: text takes longer than all other drawing.
    caption = Image.new("RGB", (TILE + GAP - 2, CAPTION), PAPER)
    colour, draw = CORRECT if predicted == true else INCORRECT, ImageDraw.Draw(caption)
    _draw_mark(draw, (1, 3), predicted == true, colour)
    draw.text((16, 1), predicted, colour, _font(13))
    draw.text((16, 16), f"true {true}", INK, _font(12))
    return caption


def _draw_mark(draw: ImageDraw.ImageDraw, corner: tuple[int, int], correct: bool, colour: str) -> None:
    """Draws a tick or a cross of 10 x 10 pixels, so that the meaning does not depend on colour."""
    x, y = corner
    if correct:
        draw.line([(x, y + 5), (x + 4, y + 9), (x + 10, y + 1)], colour, 2)
    else:
        draw.line([(x + 1, y + 1), (x + 9, y + 9)], colour, 2)
        draw.line([(x + 1, y + 9), (x + 9, y + 1)], colour, 2)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
