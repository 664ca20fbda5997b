"""From the bytes of any picture to its pixels, or to a sentence that says why there are none."""

import io
import math
import struct
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import pyspng
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile

from model.errors import DamagedImage, EmptyImage, ImageError, NotAnImage, TooManyPixels, UnknownFormat
from model.installation import install_command
from model.preprocessing.convention import SIZE
from model.preprocessing.formats import FORMATS, format_name, known_as

MAX_PIXELS = 50_000_000
MAX_MEMORY = 16 * MAX_PIXELS
"""Bytes; any picture of ``MAX_PIXELS``."""
MAX_REDUCED_PIXELS = 4_000_000
"""Of a long, narrow picture, whose shorter edge alone would hardly reduce it."""
STRIP_PIXELS = 1_000_000
"""A large picture is converted to RGB and reduced in strips of so many pixels."""

_PNG_METADATA = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")
_END_OF_JPEG = b"\xff\xd9"

_ORIENTATION = 274  # EXIF
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""What turns a picture of an EXIF orientation upright."""

# Pillow only warns about a bomb half as large as the one it refuses; here both are refused.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


Result = TypeVar("Result")


class DecodeLimits(NamedTuple):
    """The largest picture that is decoded."""

    pixels: int = MAX_PIXELS
    memory: int = MAX_MEMORY
    """Bytes that decoding takes."""


DEFAULT_LIMITS = DecodeLimits()


class Decoded(NamedTuple):
    """A picture, upright, its alpha on white."""

    image: Image.Image
    """Mode ``L`` or ``RGB``; a picture that is far larger than needed comes reduced by a whole factor."""
    size: tuple[int, int]
    """Width and height of the whole picture, upright."""
    turned: bool
    """Whether its EXIF orientation turned or mirrored it."""
    transparent: bool
    """Whether it had an alpha channel."""


def decode_native_png(content: bytes) -> NDArray[np.uint8] | None:
    """A PNG as the data set's images are mostly sent: its pixels ``[28, 28]`` in a quarter of Pillow's time.

    None where it is no such file: grey, 8 bits a pixel, not interlaced, nothing between header and pixels, undamaged.
    ``decode`` is for all others, and has words for what is wrong with them.
    """
    if not is_native_png(content) or content[_CHUNK_TYPE] != b"IDAT":
        return None
    try:
        pixels: NDArray[np.uint8] = pyspng.load(content, "L")
    except RuntimeError:
        return None
    return pixels


def is_native_png(content: bytes) -> bool:
    """Returns whether a file begins as a 28x28 PNG of 8 bits of grey, not interlaced: the data set's own form."""
    return content.startswith(_NATIVE_PNG_HEAD)


_NATIVE_PNG_HEAD = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", SIZE, SIZE, 8, 0, 0, 0, 0)
"""Signature and header (PNG specification, 5.2 and 11.2.1): 8 bits of grey, then the only methods there are."""
_CHUNK_TYPE = slice(37, 41)
"""Position of the type of the chunk after the header. Only IDAT is accepted there, because libspng would decompress all
of a compressed text chunk."""


def decode(
    content: bytes,
    limits: DecodeLimits = DEFAULT_LIMITS,
    *,
    min_edge: int = 0,
    untouched: bool = False,
    grey: bool = False,
) -> Decoded:
    """An encoded picture in one of ``FORMATS``, decoded; of several frames the first.

    Args:
        content: the file.
        limits: the largest picture that is decoded.
        min_edge: shorter edge in pixels that suffices; larger pictures may be reduced, but not below it, unless they
            are long and narrow. 0 keeps the full size.
        grey: whether brightness is all that is needed, which spares a JPEG its colours; other pictures keep theirs.
        untouched: whether a 28x28 grey picture is decoded as it is, with no regard to its EXIF.

    Raises:
        EmptyImage, NotAnImage, UnknownFormat, TooManyPixels, DamagedImage: why it cannot be used.
    """
    if not content:
        raise EmptyImage("The picture is empty (0 bytes): send the content of an image file.")
    read = partial(_decode, limits=limits, min_edge=min_edge, untouched=untouched, grey=grey)
    try:
        return read(content)
    except DamagedImage:
        return _mended(content, read)


def _mended(content: bytes, read: Callable[[bytes], Decoded]) -> Decoded:
    """Decodes a PNG without its metadata, which may be what is wrong, and a JPEG that lacks nothing but its end.

    Raises DamagedImage for all others. Of a truncated JPEG the missing part depends on the bytes that follow.
    """
    if content.startswith(b"\x89PNG") and any(name in content for name in _PNG_METADATA):
        return read(_without_metadata(content))
    if content.startswith(b"\xff\xd8") and not content.endswith(_END_OF_JPEG):
        one, other = (read(content + padding * 1000 + _END_OF_JPEG) for padding in (b"\x00", b"\x55"))
        if one.image.tobytes() == other.image.tobytes():
            return one
    raise _damaged()


def _without_metadata(png: bytes) -> bytes:
    kept, start = [png[:8]], 8
    while start < len(png):
        end = start + 12 + int.from_bytes(png[start : start + 4], "big")
        if png[start + 4 : start + 8] not in _PNG_METADATA:
            kept.append(png[start:end])
        start = end
    return b"".join(kept)


def _decode(content: bytes, limits: DecodeLimits, *, min_edge: int, untouched: bool, grey: bool) -> Decoded:
    image = _open(content)
    size = image.size
    _check_pixels(size, limits)
    if min_edge:
        _guard(lambda: image.draft("L" if grey else "RGB", (min_edge, min_edge)))  # decodes the thumbnail of a HEIC
    _check_memory(image, size, limits)
    if untouched and image.mode == "L" and image.size == (SIZE, SIZE) and not image.has_transparency_data:
        return _guard(lambda: Decoded(_loaded(image), size, turned=False, transparent=False))
    return _guard(lambda: _decoded(image, size, min_edge))


def _check_pixels(size: tuple[int, int], limits: DecodeLimits) -> None:
    """Raises TooManyPixels if a picture of ``size`` has more pixels than the limit."""
    if size[0] * size[1] > limits.pixels:
        raise TooManyPixels(
            f"The picture has {size[0]} x {size[1]} pixels, and {limits.pixels:,} are the most that are decoded: "
            "send a smaller one."
        )


def _check_memory(image: Image.Image, size: tuple[int, int], limits: DecodeLimits) -> None:
    """Raises TooManyPixels if a picture of ``size``, which ``image`` may hold a draft of, takes too much memory."""
    memory, name = _decoding_memory(image, size), known_as(str(image.format))
    if memory > limits.memory:
        raise TooManyPixels(
            f"The picture has {size[0]} x {size[1]} pixels, which take {memory / 1e6:.0f} MB to decode from "
            f"{name}, and the limit is {limits.memory / 1e6:.0f} MB: send a smaller one, or a JPEG."
        )


_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2}
"""Bytes that Pillow stores for a pixel by mode; 4 for the others."""


def _decoding_memory(image: Image.Image, size: tuple[int, int]) -> int:
    """Returns the bytes that decoding takes; for compressed TIFF and progressive JPEG an upper bound."""
    stored, pixels = _STORED.get(image.mode, 4) * image.width * image.height, size[0] * size[1]
    match image.format:
        case "WEBP":  # libwebp holds two canvases, Pillow the bytes of one, and the picture
            return 16 * pixels
        case "AVIF":  # the decoder's planes, the bytes of its picture, and the picture
            return (12 if image.has_transparency_data else 10) * pixels
        case "HEIF":  # as above, and the decoder frees its planes; of a draft those of the thumbnail alone
            return (10 if image.has_transparency_data else 8) * image.width * image.height
        case "TIFF":  # a strip may be as large as the picture
            return 2 * stored
        case "JPEG" if image.info.get("progressive"):  # libjpeg holds the coefficients of the whole picture
            return stored + 2 * len(image.getbands()) * pixels
        case _:
            return stored


def _open(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooManyPixels("The picture has too many pixels to be decoded: send a smaller one.") from None
    except UnidentifiedImageError:
        raise _unidentified(content) from None
    except MemoryError:
        raise
    except Exception as error:  # the decoders raise whatever a hostile header makes them stumble over
        raise _damaged() from error


def _guard(decoder: Callable[[], Result]) -> Result:
    try:
        return decoder()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise TooManyPixels("The picture has too many pixels to be decoded: send a smaller one.") from None
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise _damaged() from error


def _damaged() -> DamagedImage:
    return DamagedImage("The picture is truncated or damaged: open it in an image viewer, save it anew and send that.")


def _unidentified(content: bytes) -> ImageError:
    names, name = [known_as(format_) for format_ in FORMATS], format_name(content)
    if name in names:
        return _damaged()
    first = ", ".join(names[:-1])
    if name:
        accepted = f"{first} and {names[-1]} are accepted"
        remedy = f", or install its decoder: {install_command('heic')}" if name == "HEIC" else ""
        return UnknownFormat(f"This is a file of the format {name}; {accepted}: convert it first{remedy}.")
    return NotAnImage(f"This is not a picture that can be read: send a {first} or {names[-1]} file.")


def _loaded(image: Image.Image) -> Image.Image:
    image.load()
    return image


def _decoded(image: Image.Image, size: tuple[int, int], min_edge: int) -> Decoded:
    _scale_transparent_colour(image)
    orientation = _orientation(image)
    image.load()
    left = _orientation(image)  # 1 for a TIFF, which Pillow itself turns
    reduced, method = _reduced(image, _factor(image.size, min_edge)), _TRANSPOSE.get(left)
    upright = reduced if method is None else reduced.transpose(method)
    upright_size = size[::-1] if left in (5, 6, 7, 8) else size
    return Decoded(upright, upright_size, orientation in _TRANSPOSE, image.has_transparency_data)


def _scale_transparent_colour(image: Image.Image) -> None:
    """Scales the colour that is transparent in a PNG to 8 bits, as Pillow scales the pixels alone."""
    if not isinstance(image, PngImageFile) or "transparency" not in image.info:
        return
    colour = image.info["transparency"]
    match image.tile[0].args:
        case "L;2":
            image.info["transparency"] = colour * 85
        case "L;4":
            image.info["transparency"] = colour * 17
        case "RGB;16B":
            image.info["transparency"] = tuple(value >> 8 for value in colour)


def _orientation(image: Image.Image) -> int:
    orientation: int = image.getexif().get(_ORIENTATION, 1)
    return orientation


def _factor(size: tuple[int, int], min_edge: int) -> int:
    """Returns the factor that a picture is reduced by: its shorter edge keeps ``min_edge`` pixels; 1 if that is 0."""
    if not min_edge:
        return 1
    return max(min(size) // min_edge, math.isqrt(size[0] * size[1] // MAX_REDUCED_PIXELS), 1)


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    """Any mode -> ``L`` or ``RGB``, reduced by a whole factor. Only a strip of it is converted at a time."""
    depth = _depth(image) if _is_deep(image) else None
    if factor == 1:
        return _flatten(image, depth)
    small = Image.new(_flatten(image.crop((0, 0, 1, 1)), depth).mode, _divided(image.size, factor))
    for top, strip in _strips(image, factor):
        small.paste(_flatten(strip, depth).reduce(factor), (0, top // factor))
    return small


def _divided(size: tuple[int, int], factor: int) -> tuple[int, int]:
    return -(-size[0] // factor), -(-size[1] // factor)


def _strips(image: Image.Image, factor: int) -> Iterator[tuple[int, Image.Image]]:
    """Yields the top and the pixels of strips of about ``STRIP_PIXELS``, of a multiple of ``factor`` rows."""
    rows = max(STRIP_PIXELS // (image.width * factor), 1) * factor
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _flatten(image: Image.Image, depth: "_Depth | None") -> Image.Image:
    """Any mode -> ``L`` or ``RGB``; ``depth`` is that of a mode of more than 8 bits."""
    if depth:
        return _to_eight_bits(image, depth)
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layers.size, "white"), layers).convert("RGB")
    return image.convert("L" if image.mode in ("1", "L") else "RGB")


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


class _Depth(NamedTuple):
    """What the values of a mode of more than 8 bits mean."""

    unsigned: bool
    """Whether the 32-bit integers, which Pillow takes for signed ones, have no sign."""
    black: float = 0
    white: float = 65535
    transparent: int | None = None


def _depth(image: Image.Image) -> _Depth:
    """Returns the depth of a picture of more than 8 bits.

    Values of 16 bits and less have the range of their bits. 32-bit integers and floats, whose range nobody states, have
    the picture's own.
    """
    tags = dict(image.tag_v2) if isinstance(image, TiffImageFile) else {}
    bits, sample_format = (tags.get(tag, (default,))[0] for tag, default in ((BITSPERSAMPLE, 16), (SAMPLEFORMAT, 1)))
    unsigned = image.mode == "I" and bits == 32 and sample_format == 1
    black, white = (0.0, 2.0**bits - 1) if image.mode.startswith("I;16") else _range(image, unsigned)
    if tags.get(PHOTOMETRIC_INTERPRETATION) == 0:  # white is 0; of 8 bits Pillow inverts the values itself
        black, white = white, black
    return _Depth(unsigned, black, white, image.info.get("transparency"))


def _range(image: Image.Image, unsigned: bool) -> tuple[float, float]:
    ranges = [(values.min(), values.max()) for values in (_finite(strip, unsigned) for _, strip in _strips(image, 1))]
    least, most = float(min(low for low, _ in ranges)), float(max(high for _, high in ranges))
    # Pillow opens some 16-bit PNGs and TIFFs as 32-bit integers.
    return (0, 65535) if least >= 0 and 255 < most <= 65535 else (least, most)


def _to_eight_bits(image: Image.Image, depth: _Depth) -> Image.Image:
    values = _finite(image, depth.unsigned)
    scaled = (values - depth.black) / (depth.white - depth.black or 1) * 255
    if depth.transparent is not None:
        scaled[values == depth.transparent] = 255
    return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8), "L")


def _finite(image: Image.Image, unsigned: bool) -> NDArray[np.float64]:
    values = np.asarray(image)
    return np.nan_to_num(np.asarray(values.view(np.uint32) if unsigned else values, np.float64), posinf=0, neginf=0)
