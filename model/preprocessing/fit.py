"""Fits pictures into the square of a model that takes colour images."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.inputs import ModelInput


def squeeze(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Returns the whole picture in RGB at ``size`` by ``size`` pixels, uint8 ``[size, size, 3]``.

    Both axes are scaled by their own factor: nothing is cut off and no pixel is spent on margins.
    """
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)  # Pillow's filter averages when it reduces
    return np.asarray(image.convert("RGB"))


def fit_data_set(images: NDArray[np.uint8], model_input: ModelInput) -> NDArray[np.uint8]:
    """Images of the data set, uint8 ``[N, 28, 28]`` -> the model's input, ``[N, *shape]``: the same, or enlarged."""
    if model_input.convention == "fashion-mnist":
        return images
    enlarged = [squeeze(Image.fromarray(image), model_input.height) for image in images]
    return np.stack(enlarged) if enlarged else np.empty((0, *model_input.shape), np.uint8)
