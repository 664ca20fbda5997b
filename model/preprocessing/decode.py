"""From the bytes of any picture to its pixels, or to a sentence that says why there are none."""

import io
import struct
import warnings
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import pyspng
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from model.errors import DamagedImage, EmptyImage, NotAnImage, TooManyPixels, UnknownFormat

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 50_000_000

_KNOWN_BUT_REFUSED = {
    b"%PDF": "PDF", b"%!PS": "PostScript", b"8BPS": "Photoshop", b"\x00\x00\x01\x00": "ICO", b"<svg": "SVG",
    b"<?xml": "SVG", b"\x00\x00\x00\x0cjP": "JPEG 2000", b"\xff\x0a": "JPEG XL", b"P5": "PNM", b"P6": "PNM",
}  # fmt: skip
_ISO_BRANDS = {b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC", b"avif": "AVIF"}

_ORIENTATION = 274  # EXIF

# Pillow only warns about a bomb half as large as the one it refuses; here both are refused.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


class Decoded(NamedTuple):
    """A picture, upright, its alpha on white."""

    image: Image.Image
    """Mode ``L`` or ``RGB``; a JPEG that is far larger than needed comes at a half, a quarter or an eighth."""
    size: tuple[int, int]
    """Width and height of the whole picture, upright."""
    turned: bool
    """Whether its EXIF orientation turned or mirrored it."""
    transparent: bool
    """Whether it had an alpha channel."""


def decode_small_png(content: bytes, edge: int) -> NDArray[np.uint8] | None:
    """A PNG as the data set's images are mostly sent: its pixels ``[edge, edge]`` in a quarter of Pillow's time.

    None where it is no such file: grey, 8 bits a pixel, not interlaced, nothing between header and pixels, undamaged.
    ``decode`` is for all others, and has words for what is wrong with them.
    """
    if not is_small_png(content, edge) or content[_DATA] != b"IDAT":
        return None
    try:
        pixels: NDArray[np.uint8] = pyspng.load(content, "L")
    except RuntimeError:
        return None
    return pixels


def is_small_png(content: bytes, edge: int) -> bool:
    """Whether a file begins as a PNG of ``edge`` by ``edge`` pixels of 8 bits of grey, not interlaced."""
    return content.startswith(_small_png_head(edge))


_DATA = slice(37, 41)
"""Where the type of the chunk after the header stands; of a packed text there libspng would inflate all."""


@cache
def _small_png_head(edge: int) -> bytes:
    """Signature and header (PNG specification, 5.2 and 11.2.1): 8 bits of grey, then the only methods there are."""
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", edge, edge, 8, 0, 0, 0, 0)


def decode(
    content: bytes, max_pixels: int = MAX_PIXELS, *, needed: int = 0, untouched: int = 0, grey: bool = False
) -> Decoded:
    """An encoded picture (PNG, JPEG, WebP, GIF, BMP or TIFF; the first frame), decoded.

    Args:
        content: the file.
        max_pixels: the most that are decoded.
        needed: the edge, in pixels, that the picture need not exceed; 0: all of it.
        grey: whether brightness is all that is needed, which spares a JPEG its colours; other pictures keep theirs.
        untouched: the edge of square grey pictures that are decoded as they are, with no regard to their EXIF.

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
    if image.mode == "L" and image.size == (untouched, untouched):
        return _guard(lambda: Decoded(_loaded(image), image.size, turned=False, transparent=False))
    return _guard(lambda: _decoded(image, needed, "L" if grey else "RGB"))


def _open(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooManyPixels("The picture has too many pixels to be decoded: send a smaller one.") from None
    except UnidentifiedImageError:
        raise _unidentified(content) from None
    except Exception as error:  # the decoders raise whatever a hostile header makes them stumble over
        raise _damaged() from error


def _guard(decoder: Callable[[], Decoded]) -> Decoded:
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


def _decoded(image: Image.Image, needed: int, mode: str) -> Decoded:
    turned = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    width, height = image.size
    if needed:
        image.draft(mode, (needed, needed))
    image.load()
    upright = ImageOps.exif_transpose(image)
    size = (width, height) if (upright.width > upright.height) == (width > height) else (height, width)
    return Decoded(_flatten(upright), size, turned, image.has_transparency_data)


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
