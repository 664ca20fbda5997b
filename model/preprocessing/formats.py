"""The formats of pictures: those that are decoded here, and those that are recognised to be refused by name."""

import re
from collections.abc import Iterator
from importlib.util import find_spec

from PIL import AvifImagePlugin, features


def _accepted() -> Iterator[str]:
    """Yields the names of the formats in Pillow; AVIF and HEIC (``HEIF``) where their decoders are installed."""
    yield from ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
    if features.check("avif"):
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # a worker has one core
        yield "AVIF"
    if find_spec("pillow_heif"):  # extra heic
        import pillow_heif

        pillow_heif.register_heif_opener(decode_threads=1, depth_images=False, aux_images=False)
        yield "HEIF"


FORMATS = tuple(_accepted())
"""As Pillow names them."""
SUFFIXES = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic",
    ".heif", ".hif",
})  # fmt: skip
"""How the names of pictures end, in lower case; also those of a format whose decoder is not installed."""

_SIGNATURES = {
    b"%PDF": "PDF", b"%!PS": "PostScript", b"8BPS": "Photoshop", b"\x00\x00\x01\x00": "ICO", b"<svg": "SVG",
    b"<?xml": "SVG", b"\x00\x00\x00\x0cjP": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000", b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL", b"P5": "PNM", b"P6": "PNM",
}  # fmt: skip
_ISO_BRANDS = dict.fromkeys((b"avif", b"avis"), "AVIF") | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"), "HEIC"
)
"""Brands of files that hold pictures, ISO/IEC 23008-12; the general ones last."""
_JPEG_12_BIT = re.compile(rb"\xff\xd8.*?\xff[\xc0-\xc3\xc9\xca]..\x0c", re.DOTALL)
"""A frame header of 12 bits, ITU T.81, B.2.2."""


def known_as(name: str) -> str:
    """Returns the name that people know a format of Pillow by."""
    return "HEIC" if name == "HEIF" else name


def format_name(content: bytes) -> str | None:
    """Returns the name of the format that a file begins as, of those that are not always accepted."""
    if _JPEG_12_BIT.match(content[:65536]):
        return "12-bit JPEG"
    if content[4:8] == b"ftyp":
        return _iso_name(content)
    return next((name for signature, name in _SIGNATURES.items() if content.startswith(signature)), None)


def _iso_name(content: bytes) -> str | None:
    """Returns the format that the brands of an ISO base media file name."""
    brands = [content[8:12], *(content[i : i + 4] for i in range(16, min(content[3], 64), 4))]
    return next((name for brand, name in _ISO_BRANDS.items() if brand in brands), None)
