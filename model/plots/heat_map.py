"""An explanation drawn over its picture."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor

from model.plots.style import OPPOSES, SUPPORTS, encode_png
from model.preprocessing.decode import DEFAULT_LIMITS, DecodeLimits, decode
from model.preprocessing.pipeline import Preprocessing

MAX_EDGE = 480
"""Longest edge of the drawing, in pixels."""
OPACITY = 0.75


class Canvas(NamedTuple):
    """The picture below a heat map."""

    image: Image.Image
    """Grey, of mode RGB, at most ``MAX_EDGE`` pixels wide and high."""
    size: tuple[int, int]
    """Width and height of the original picture."""


def draw_explanation(
    content: bytes, heat: NDArray[np.float32], preprocessing: Preprocessing, limits: DecodeLimits = DEFAULT_LIMITS
) -> bytes:
    """Draws an explanation over an encoded picture, see ``draw_heat_map``; raises the same errors as ``preprocess``."""
    return draw_heat_map(draw_canvas(content, limits), heat, preprocessing)


def draw_canvas(content: bytes, limits: DecodeLimits = DEFAULT_LIMITS) -> Canvas:
    """Decodes a picture for ``draw_heat_map``. Raises the same errors as ``preprocess``."""
    decoded = decode(content, limits, min_edge=MAX_EDGE, grey=True)
    image = decoded.image.convert("L")
    image.thumbnail((MAX_EDGE, MAX_EDGE))
    if max(image.size) < MAX_EDGE // 4:
        factor = min(8, MAX_EDGE // max(image.size))
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return Canvas(image.convert("RGB"), decoded.size)


def draw_heat_map(canvas: Canvas, heat: NDArray[np.float32], preprocessing: Preprocessing) -> bytes:
    """Draws an explanation as a PNG: green pixels support the predicted class, purple pixels oppose it.

    Args:
        canvas: the picture; the function draws on it.
        heat: float32 ``[28, 28]``, from ``heat_map``.
        preprocessing: where the article is in the picture and in the 28x28 image.
    """
    image, size = canvas
    box = preprocessing.crop_box or (0, 0, *size)
    scale = image.width / size[0], image.height / size[1]
    corner = round(box[0] * scale[0]), round(box[1] * scale[1])
    extent = max(1, round((box[2] - box[0]) * scale[0])), max(1, round((box[3] - box[1]) * scale[1]))
    layer = Image.fromarray(_crop_to_article(_coloured(heat), preprocessing))
    layer = layer.resize(extent, Image.Resampling.BILINEAR)
    image.paste(layer.convert("RGB"), corner, layer.getchannel("A"))
    return encode_png(image)


def _coloured(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Heat ``[28, 28]`` -> RGBA ``[28, 28, 4]``; the opacity is proportional to the distance from 0."""
    strength = np.abs(heat) / max(float(np.abs(heat).max()), 1e-6)
    colours = np.where(heat[..., None] > 0, ImageColor.getrgb(SUPPORTS), ImageColor.getrgb(OPPOSES)).astype(np.uint8)
    return np.dstack([colours, (255 * OPACITY * strength).astype(np.uint8)])


def _crop_to_article(layer: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """``[28, 28, C]`` -> the part that holds the article."""
    if preprocessing.placement is None:
        return layer
    left, top, right, bottom = preprocessing.placement
    return np.ascontiguousarray(layer[top:bottom, left:right])
