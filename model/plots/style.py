"""What all plots share: the colours and the PNG encoder."""

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito, 2008: distinguishable with every kind of colour vision. Each has one meaning.
CORRECT, INCORRECT = "#0072b2", "#d55e00"
SUPPORTS, OPPOSES = "#009e73", "#cc79a7"
SERIES = CORRECT
"""Curves and bars of a single series."""
INK, PAPER = "#1a1a1a", "#ffffff"

_COMPRESS_LEVEL = 1
"""Takes half the time of zlib's default level and a sixth more bytes."""


def encode_png(image: Image.Image) -> bytes:
    """Returns the image as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=_COMPRESS_LEVEL)
    return buffer.getvalue()


def encode_figure(figure: "Figure") -> bytes:
    """Returns a Matplotlib figure as a PNG file of 120 pixels per inch."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(120)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return encode_png(Image.fromarray(pixels).convert("RGB"))
