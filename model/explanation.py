"""Explains a prediction by occlusion: hides parts of the image and measures how the prediction changes.

The method is Zeiler and Fergus, ECCV 2014. It needs only an engine's outputs, so it explains any model.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.engines import log_softmax
from model.preprocessing.pipeline import SIZE

STEPS, PATCH = 6, 10
"""Hidden squares per row and column, and the edge of a square in pixels. Neighbours overlap by half."""
_STARTS = [round((step + 0.5) * SIZE / STEPS - PATCH / 2) for step in range(STEPS)]
"""First pixel of each square. The first and the last square extend beyond the image."""


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
    return np.asarray(Image.fromarray(falls).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
