"""From the bytes of any picture to what the network sees: uint8 ``[28, 28]`` in the data set's own convention.

The convention (Xiao et al., arXiv:1708.07747, section 2): grey, the article light on a background of exactly 0,
trimmed, its longest edge 28 pixels, centred. A 28x28 grey picture is taken to be in it already and passes untouched.
"""

import io
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from model.errors import DamagedImage, EmptyImage, NotAnImage, TooManyPixels, UnknownFormat

SIZE = 28
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 50_000_000
WORKING_SIZE = 280
"""Longest edge, in pixels, that the article is looked for at."""
FUZZ = 0.05
"""Contrast to the background, 0..1, below which a pixel belongs to it (section 2, step 2 of the paper)."""

_KNOWN_BUT_REFUSED = {
    b"%PDF": "PDF", b"%!PS": "PostScript", b"8BPS": "Photoshop", b"\x00\x00\x01\x00": "ICO", b"<svg": "SVG",
    b"<?xml": "SVG", b"\x00\x00\x00\x0cjP": "JPEG 2000", b"\xff\x0a": "JPEG XL", b"P5": "PNM", b"P6": "PNM",
}  # fmt: skip
_ISO_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"avif": "AVIF"}

# Pillow only warns about a bomb half as large as the one it refuses; here both are refused.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


def preprocess(content: bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """An encoded picture (PNG, JPEG, WebP, GIF, BMP or TIFF; the first frame) -> uint8 ``[28, 28]``.

    Raises:
        EmptyImage, NotAnImage, UnknownFormat, TooManyPixels, DamagedImage: why it cannot be used.
    """
    return to_convention(decode(content, max_pixels))


def decode(content: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An encoded picture, decoded: upright, its alpha on white, mode ``L`` or ``RGB``.

    A JPEG that is far larger than needed is decoded at a half, a quarter or an eighth of its size.

    Raises:
        EmptyImage, NotAnImage, UnknownFormat, TooManyPixels, DamagedImage: why it cannot be used.
    """
    if not content:
        raise EmptyImage("The picture is empty (0 bytes): send the content of an image file.")
    image = _open(content)
    if image.width * image.height > max_pixels:
        raise TooManyPixels(
            f"The picture has {image.width} x {image.height} pixels, and {max_pixels:,} are the most that are decoded: "
            "send a smaller one."
        )
    if image.mode == "L" and image.size == (SIZE, SIZE):
        return _guard(lambda: _loaded(image))
    return _guard(lambda: _flatten(_upright(image)))


def to_convention(image: Image.Image) -> NDArray[np.uint8]:
    """A picture of mode ``L`` or ``RGB`` -> uint8 ``[28, 28]`` in the data set's convention.

    Of 28x28 pixels and grey (in content, whatever its mode): as it is. Else: the background is the median of the
    border, the article what stands out from it, lighter or darker; its contrast becomes its brightness.
    """
    if image.size == (SIZE, SIZE) and _is_grey(image):
        return np.frombuffer(image.convert("L").tobytes() if image.mode != "L" else image.tobytes(), np.uint8).reshape(
            SIZE, SIZE
        )
    if max(image.size) > WORKING_SIZE:
        image.thumbnail((WORKING_SIZE, WORKING_SIZE), Image.Resampling.BOX)
    return _centre(_trim(_contrast(np.asarray(image.convert("L"), np.float32))))


def _open(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooManyPixels("The picture has too many pixels to be decoded: send a smaller one.") from None
    except UnidentifiedImageError:
        raise _unidentified(content) from None
    except Exception as error:  # the decoders raise whatever a hostile header makes them stumble over
        raise _damaged() from error


def _guard(decoder: Callable[[], Image.Image]) -> Image.Image:
    try:
        return decoder()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooManyPixels("The picture has too many pixels to be decoded: send a smaller one.") from None
    except Exception as error:  # as above
        raise _damaged() from error


def _damaged() -> DamagedImage:
    return DamagedImage("The picture is truncated or damaged: open it in an image viewer, save it anew and send that.")


def _unidentified(content: bytes) -> NotAnImage | UnknownFormat:
    accepted = f"{', '.join(FORMATS[:-1])} and {FORMATS[-1]} are accepted"
    name = _ISO_BRANDS.get(content[8:12]) if content[4:8] == b"ftyp" else None
    for signature, known in _KNOWN_BUT_REFUSED.items():
        name = name or (known if content.startswith(signature) else None)
    if name:
        return UnknownFormat(f"This is a {name} file; {accepted}: convert it first.")
    return NotAnImage(f"This is not a picture that can be read; {accepted}.")


def _loaded(image: Image.Image) -> Image.Image:
    image.load()
    return image


def _upright(image: Image.Image) -> Image.Image:
    image.draft("RGB", (2 * WORKING_SIZE, 2 * WORKING_SIZE))
    image.load()
    return ImageOps.exif_transpose(image)


def _flatten(image: Image.Image) -> Image.Image:
    """Any mode -> ``L`` or ``RGB``."""
    if image.mode.startswith("I") or image.mode == "F":
        return _to_eight_bits(image)
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey by its upper byte; 32-bit integers and floats, whose range nobody states, from least to most."""
    values = np.asarray(image).astype(np.float64)
    values = np.nan_to_num(values, posinf=0, neginf=0)
    least, most = (
        (0, 65535) if image.mode.startswith("I;16") or _within_16_bits(values) else (values.min(), values.max())
    )
    scaled = (values - least) / max(most - least, 1e-12) * 255
    return Image.fromarray(scaled.round().astype(np.uint8), "L")


def _within_16_bits(values: NDArray[np.float64]) -> bool:
    # Pillow opens some 16-bit PNGs and TIFFs as 32-bit integers.
    return bool(values.min() >= 0 and 255 < values.max() <= 65535)


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "L":
        return True
    red, green, blue = image.split()
    return bool(red.tobytes() == green.tobytes() == blue.tobytes())


def _contrast(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Grey ``[H, W]`` -> contrast to the background, 0..255: its farther end becomes 255."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    background = float(np.median(border))
    contrast: NDArray[np.float32] = np.abs(grey - background) * (255 / max(background, 255 - background))
    return contrast


def _trim(contrast: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut off the rows and columns at the edges that hold nothing but background; what is left of that is 0."""
    # A tenth of the strongest contrast: JPEG leaves ripples of a twentieth around an article.
    threshold = max(255 * FUZZ, contrast.max() / 10)
    contrast = np.where(contrast > threshold, contrast, 0)
    rows, columns = np.flatnonzero(contrast.any(1)), np.flatnonzero(contrast.any(0))
    if not rows.size:
        return contrast
    return contrast[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _centre(article: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Scale the longest edge to 28 and centre; an odd pixel of padding goes left or on top, as in the data set."""
    height, width = article.shape
    scale = SIZE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(article).resize(size, Image.Resampling.BOX))
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    top, left = -(-(SIZE - size[1]) // 2), -(-(SIZE - size[0]) // 2)
    canvas[top : top + size[1], left : left + size[0]] = small.round()
    return canvas
