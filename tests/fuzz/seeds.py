"""Well-formed pictures, from which the mutators make hostile ones."""

from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from tests.pictures import FILES, encode, grey_png, trousers

PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
TIFF_COMPRESSIONS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "lzma", "zstd")


@cache
def pictures() -> dict[str, bytes]:
    """Returns the pictures by name; the name begins with the format."""
    kinds = (_pngs, _jpegs, _webps, _pictures_of_phones, _gifs, _bmps, _tiffs)
    return {name: content for kind in kinds for name, content in kind()}


def _drawing(mode: str = "RGB", size: int = 40) -> Image.Image:
    image = trousers(size=size)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257)
    return image.convert(mode)


def _frames() -> dict[str, object]:
    return {"save_all": True, "append_images": [_drawing().rotate(90 * turn) for turn in (1, 2)]}


def _profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _pngs() -> Iterator[tuple[str, bytes]]:
    yield "png 28x28", grey_png()
    for mode in PNG_MODES:
        yield f"png {mode}", encode(_drawing(mode))
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 200, zip=True)
    text.add_itxt("XML:com.adobe.xmp", "<x/>", zip=True)
    yield "png metadata", encode(_drawing(), pnginfo=text, icc_profile=_profile(), exif=_exif(6))
    yield "png transparent", encode(_drawing("P"), transparency=0)
    yield "png animated", encode(_drawing(), **_frames())


def _jpegs() -> Iterator[tuple[str, bytes]]:
    for mode in ("L", "RGB", "CMYK"):
        yield f"jpeg {mode}", encode(_drawing(mode), "JPEG")
    yield "jpeg progressive", encode(_drawing(), "JPEG", progressive=True, quality=70)
    yield "jpeg metadata", encode(_drawing(), "JPEG", icc_profile=_profile(), exif=_exif(8), comment=b"x")
    yield "jpeg restarts", encode(_drawing(), "JPEG", restart_marker_blocks=2, subsampling="4:1:1")


def _webps() -> Iterator[tuple[str, bytes]]:
    yield "webp lossy", encode(_drawing(), "WEBP")
    yield "webp lossless", encode(_drawing(), "WEBP", lossless=True)
    yield "webp alpha", encode(_drawing("RGBA"), "WEBP", exif=_exif(3).tobytes())
    yield "webp animated", encode(_drawing(), "WEBP", **_frames())


def _pictures_of_phones() -> Iterator[tuple[str, bytes]]:
    yield "avif", encode(_drawing(), "AVIF")
    yield "avif alpha", encode(_drawing("RGBA"), "AVIF", exif=_exif(3))
    yield "avif animated", encode(_drawing(), "AVIF", **_frames())
    for file in FILES.glob("*.heic"):
        yield file.name, file.read_bytes()


def _gifs() -> Iterator[tuple[str, bytes]]:
    yield "gif", encode(_drawing("P"), "GIF")
    yield "gif animated", encode(_drawing("P"), "GIF", **_frames(), transparency=0, interlace=True)


def _bmps() -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"bmp {mode}", encode(_drawing(mode), "BMP")


def _tiffs() -> Iterator[tuple[str, bytes]]:
    for compression in TIFF_COMPRESSIONS:
        yield f"tiff {compression}", encode(_drawing(), "TIFF", compression=compression)
    for mode in ("L", "RGBA", "CMYK", "I;16", "F"):
        yield f"tiff {mode}", encode(_drawing(mode), "TIFF")
    yield "tiff fax", encode(_drawing("1"), "TIFF", compression="group4")
    yield "tiff pages", encode(_drawing(), "TIFF", **_frames())
