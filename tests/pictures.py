"""Pictures that the tests make: nothing here comes from the data set."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from model.inputs import ModelInput

FILES = Path(__file__).parent / "files"
"""Pictures in HEIC, which takes long to write: ``trousers`` saved in several ways, ``phone`` as iPhones do."""
COLOUR_SQUARE = ModelInput(height=224, width=224, channels=3, convention="photo", fit="squeeze")
"""The input of a model for photos."""


def encode(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    """The image as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def article(format_: str, size: int = 300) -> bytes:
    """Trousers as a file of an accepted format."""
    return (FILES / "trousers.heic").read_bytes() if format_ == "HEIF" else encode(trousers(size=size), format_)


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


def scene(
    background: str, ink: str = "#2d3a5c", size: int = 300, seed: int = 0
) -> tuple[Image.Image, NDArray[np.bool_]]:
    """Trousers, photographed on something, and where they are."""
    rng = np.random.default_rng(seed)
    place = np.asarray(trousers("L", "white", "black", size)) > 127
    ground = {
        "shaded": np.linspace(110, 230, size)[None, :, None] + rng.normal(0, 5, (size, size, 3)),
        "wood": 150
        + 30 * np.sin(np.arange(size) / 6)[:, None, None] * [1, 0.8, 0.5]
        + rng.normal(0, 8, (size, size, 3)),
        "tiles": np.where(np.add.outer(np.arange(size) // 50, np.arange(size) // 50)[..., None] % 2, 200, 170)
        + rng.normal(0, 6, (size, size, 3)),
        "dark": np.full((size, size, 3), 45) + rng.normal(0, 20, (size, size, 3)),
    }[background]
    cloth = np.array(Image.new("RGB", (1, 1), ink))[0, 0] + rng.normal(0, 8, (size, size, 3))
    pixels = np.where(place[..., None], cloth, ground).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1)), place
