"""Which parts of a picture an answer rests on: what happens to it when they are hidden.

Occlusion (Zeiler & Fergus, ECCV 2014): it asks nothing of the engine but answers, so it explains any network.
"""

import io
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.engines import log_softmax
from model.preprocessing.decode import MAX_PIXELS, decode
from model.preprocessing.pipeline import SIZE, Preprocessing

STEPS, PATCH = 6, 10
"""Hidden squares across, and the edge of one in pixels: each lies over half of its neighbours."""
_STARTS = [round((step + 0.5) * SIZE / STEPS - PATCH / 2) for step in range(STEPS)]
"""Where they begin; the first and the last hang over the edge."""
MOST_PIXELS = 480
"""Edge of the picture that a heat map is laid over."""
FOR, AGAINST = (213, 94, 0), (0, 114, 178)
"""Vermilion and blue: told apart with every kind of colour vision (Okabe and Ito, 2008)."""
OPACITY = 0.75


def occlusions(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An image uint8 ``[28, 28]`` -> itself, and 36 copies with a square hidden each: uint8 ``[37, 28, 28]``."""
    copies = np.repeat(image[None], STEPS**2 + 1, axis=0)
    for place, (top, left) in enumerate(product(_STARTS, _STARTS)):
        copies[place + 1, max(0, top) : top + PATCH, max(0, left) : left + PATCH] = 0
    return copies


def heat_map(logits: NDArray[np.float32], class_id: int) -> NDArray[np.float32]:
    """Logits ``[37, 10]`` of ``occlusions`` -> float32 ``[28, 28]``: how much each pixel speaks for the class.

    In nats: by how much the class's log-probability falls where the pixel is hidden; below 0 where it rises.
    """
    log_probs = log_softmax(logits)[:, class_id]
    falls = (log_probs[0] - log_probs[1:]).reshape(STEPS, STEPS).astype(np.float32)
    return np.asarray(Image.fromarray(falls).resize((SIZE, SIZE), Image.Resampling.BICUBIC))


class Canvas(NamedTuple):
    """What a heat map is laid over."""

    image: Image.Image
    """The picture in grey, small, of mode RGB."""
    size: tuple[int, int]
    """Width and height of the whole picture."""


def draw_canvas(content: bytes, max_pixels: int = MAX_PIXELS) -> Canvas:
    """An encoded picture, of ``max_pixels`` at most -> what a heat map is laid over; raises as ``preprocess``."""
    decoded = decode(content, max_pixels, needed=MOST_PIXELS, grey=True)
    image = decoded.image.convert("L")
    image.thumbnail((MOST_PIXELS, MOST_PIXELS))
    if max(image.size) < MOST_PIXELS // 4:  # a 28x28 picture would be a stamp
        image = image.resize((image.width * 8, image.height * 8), Image.Resampling.NEAREST)
    return Canvas(image.convert("RGB"), decoded.size)


def draw_heat_map(canvas: Canvas, heat: NDArray[np.float32], done: Preprocessing) -> bytes:
    """A PNG of a picture in grey under its heat map: vermilion speaks for the answer, blue against it.

    Args:
        canvas: the picture.
        heat: ``[28, 28]``, as from ``heat_map``.
        done: how the picture was preprocessed, and so where in it the heat lies.
    """
    image, size = canvas
    box = done.crop_box or (0, 0, *size)
    scale = image.width / size[0], image.height / size[1]
    place = round(box[0] * scale[0]), round(box[1] * scale[1])
    extent = max(1, round((box[2] - box[0]) * scale[0])), max(1, round((box[3] - box[1]) * scale[1]))
    patch = Image.fromarray(_of_article(_coloured(heat), done)).resize(extent, Image.Resampling.BILINEAR)
    image.paste(patch.convert("RGB"), place, patch.getchannel("A"))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _coloured(heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Heat ``[28, 28]`` -> its colours ``[28, 28, 4]``, the more opaque the farther from 0."""
    strength = np.abs(heat) / max(float(np.abs(heat).max()), 1e-6)
    colours = np.where(heat[..., None] > 0, np.array(FOR), np.array(AGAINST)).astype(np.uint8)
    return np.dstack([colours, (255 * OPACITY * strength).astype(np.uint8)])


def _of_article(layer: NDArray[np.uint8], done: Preprocessing) -> NDArray[np.uint8]:
    """The part of ``[28, 28, C]`` that the article was scaled into, as it lies in the picture."""
    if done.frame is None:
        return layer
    left, top, right, bottom = done.frame
    turns_back = -(done.turned or 0) // 90
    return np.ascontiguousarray(np.rot90(layer[top:bottom, left:right], turns_back))
