"""Explains a prediction: how much each part of the image supports the predicted class.

The photo model has class activation maps (Zhou et al., arXiv:1512.04150), which one run gives. For the other models,
squares of the image are hidden one after the other (occlusion: Zeiler and Fergus, ECCV 2014).
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.engines import Engine, log_softmax

SIZE = 28
"""Rows and columns of an attribution."""
STEPS, PATCH = 6, 10
"""Hidden squares per row and column, and the edge of a square in pixels. Neighbours overlap by half."""
_STARTS = [round((step + 0.5) * SIZE / STEPS - PATCH / 2) for step in range(STEPS)]
"""First pixel of each square. The first and the last square extend beyond the image."""


def attribute(engine: Engine, image: NDArray[np.uint8], class_id: int, temperature: float) -> NDArray[np.float32]:
    """Returns how much each part of an image supports a class, float32 ``[28, 28]``; negative: it opposes it.

    Args:
        engine: of the model.
        image: uint8 of the shape that the model's card declares.
        class_id: the class to explain.
        temperature: of the model; it divides the logits.
    """
    maps = engine.class_maps(image[None])
    if maps is None:
        return heat_map(engine.run(occlusions(image)).logits / np.float32(temperature), class_id)
    return _resized(support(maps[0], class_id) / np.float32(temperature))


def support(class_maps: NDArray[np.float32], class_id: int) -> NDArray[np.float32]:
    """Returns what each place adds to the class's logit beyond what it adds to the mean of all, ``[H, W]``.

    ``class_maps`` is ``[10, H, W]``.
    """
    added: NDArray[np.float32] = class_maps[class_id] - class_maps.mean(0)
    return added


def occlusions(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns the image uint8 ``[28, 28]`` and 36 copies with one square hidden in each: uint8 ``[37, 28, 28]``."""
    copies = np.repeat(image[None], STEPS**2 + 1, axis=0)
    for place, (top, left) in enumerate(product(_STARTS, _STARTS)):
        copies[place + 1, max(0, top) : top + PATCH, max(0, left) : left + PATCH] = 0
    return copies


def heat_map(logits: NDArray[np.float32], class_id: int) -> NDArray[np.float32]:
    """Returns how much each pixel supports a class: float32 ``[28, 28]``, in nats.

    The value is the fall of the class's log-probability when the pixel is hidden; it is negative where hiding the
    pixel makes the class more probable.

    Args:
        logits: float32 ``[37, 10]``, of the images from ``occlusions``.
        class_id: the class to explain.
    """
    log_probs = log_softmax(logits)[:, class_id]
    falls = (log_probs[0] - log_probs[1:]).reshape(STEPS, STEPS).astype(np.float32)
    return _resized(falls)


def _resized(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(values).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
