"""Pictures that the tests make: nothing here comes from the data set."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw


def encode(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    """The image as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def random_image(seed: int = 0) -> NDArray[np.uint8]:
    """Noise, uint8 [28, 28]."""
    return np.random.default_rng(seed).integers(0, 256, (28, 28), np.uint8)


def grey_png(seed: int = 0) -> bytes:
    """Noise as a 28x28 greyscale PNG."""
    return encode(Image.fromarray(random_image(seed)))


def trousers(mode: str = "RGB", ink: str = "#203040", paper: str = "white", size: int = 300) -> Image.Image:
    """Trousers that any decent network knows; the left leg is the longer one, so that turning them shows."""
    image = Image.new("RGB", (size, size), paper)
    points = [(100, 20), (200, 20), (210, 250), (165, 250), (151, 90), (132, 282), (88, 282)]
    ImageDraw.Draw(image).polygon([(x * size / 300, y * size / 300) for x, y in points], ink)
    return image.convert(mode)
