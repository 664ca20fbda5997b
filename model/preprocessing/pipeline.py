"""From an encoded picture to the input of a model, as the model's card declares it."""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from model.inputs import ModelInput
from model.preprocessing.convention import (
    EVEN,
    SIZE,
    WORKING_SIZE,
    Background,
    Box,
    Trimmed,
    measure_background,
    trim,
)
from model.preprocessing.decode import DEFAULT_LIMITS, Decoded, DecodeLimits, decode, decode_native_png
from model.preprocessing.fit import fit_data_set, squeeze

DECODED_EDGE = 240
"""Pixels of the shorter edge that suffice: models take 224 at most, but an article that is trimmed fills only a part of
the picture, and was too small at 192. A larger JPEG is decoded at a half, a quarter or an eighth of its size, but not
below this edge. Of a HEIC its thumbnail is decoded: those of iPhones have 320x240 pixels
(docs/decisions/0027-heic.md)."""
LIGHT = 128
"""Of 255."""
SMALL, LOW_CONTRAST = 0.05, 0.1
"""Coverage and contrast below which a prediction may be unreliable."""
FEW_PIXELS = SIZE // 2
"""Longest edge of a picture below which nobody can recognise an article."""

NOTHING = "Nothing stands out from the background: photograph the article on a cloth of another colour."
NOT_A_PRODUCT_PICTURE = (
    "This model knows only product pictures on a plain background, and this is a photo: use the photo model."
)


class PictureKind(StrEnum):
    """What a picture is, which decides on its model."""

    DATA_SET = "28x28 grey picture"
    PLAIN = "picture with a plain background"
    PHOTO = "photo"


class Preprocessing(BaseModel):
    """How a picture became the model's input."""

    model_config = ConfigDict(frozen=True)

    steps: list[str] = Field(description="the steps in order")
    inverted: bool = Field(default=False, description="whether light and dark were exchanged")
    background: str | None = Field(default=None, description="colour of the border, #rrggbb")
    crop_box: Box | None = Field(
        default=None, description="left, top, right and bottom of the article in the upright picture, in pixels"
    )
    placement: Box | None = Field(
        default=None, description="left, top, right and bottom of the article in the 28x28 image, in pixels"
    )
    coverage: float | None = Field(default=None, ge=0, le=1, description="share of the picture that the article covers")


class Picture(NamedTuple):
    """The model's input for a picture."""

    image: NDArray[np.uint8]
    """uint8 of the shape that the model declares: ``[28, 28]``, or ``[S, S, 3]``."""
    preprocessing: Preprocessing
    kind: PictureKind = PictureKind.DATA_SET
    warnings: tuple[str, ...] = ()
    """Sentences on why the input may be unsuitable."""


InputOf = Callable[[PictureKind], ModelInput]
IDENTITY = Preprocessing(steps=["28x28 and grey: used as it is"])
_ENLARGED = Preprocessing(steps=["28x28 and grey: enlarged to the model's size"])


def for_data_set(_: PictureKind) -> ModelInput:
    """The input of Fashion-MNIST for every picture."""
    return ModelInput()


def preprocess(content: bytes, input_of: InputOf = for_data_set, limits: DecodeLimits = DEFAULT_LIMITS) -> Picture:
    """Decodes a picture (one of ``FORMATS``; the first frame) and turns it into a model's input.

    Args:
        content: the file.
        input_of: the input of the model for a kind of picture.
        limits: the largest picture that is decoded.

    Raises:
        EmptyImage, NotAnImage, UnknownFormat, TooManyPixels, DamagedImage: why it cannot be used.
    """
    native = preprocess_native(content, input_of)
    if native is not None:
        return native
    decoded = decode(content, limits, min_edge=DECODED_EDGE, untouched=True)
    image = decoded.image
    if image.size == (SIZE, SIZE) and _is_grey(image):
        grey = np.asarray(image.convert("L"))
        if not _has_light_ground(grey):
            return fit_data_set_image(grey, input_of(PictureKind.DATA_SET))
    small_image = image.convert("RGB")
    if max(image.size) > WORKING_SIZE:
        small_image.thumbnail((WORKING_SIZE, WORKING_SIZE), Image.Resampling.BOX)
    background = measure_background(np.asarray(small_image))
    kind = PictureKind.PLAIN if background.is_plain else PictureKind.PHOTO
    if input_of(kind).convention == "photo":
        return _squeezed(decoded, input_of(kind), background, kind)
    return _trimmed(decoded, trim(small_image, background), small_image.size, background)


def preprocess_native(content: bytes, input_of: InputOf) -> Picture | None:
    """Returns the model's input for a 28x28 PNG of 8 bits of grey, the data set's own form; None for others."""
    image = decode_native_png(content)
    if image is None or _has_light_ground(image):
        return None
    return fit_data_set_image(image, input_of(PictureKind.DATA_SET))


def fit_data_set_image(image: NDArray[np.uint8], model_input: ModelInput) -> Picture:
    """Returns the input for an image uint8 ``[28, 28]`` of the data set: itself, or enlarged."""
    if model_input.convention == "fashion-mnist":
        return Picture(image, IDENTITY)
    return Picture(fit_data_set(image[None], model_input)[0], _ENLARGED)


def _has_light_ground(image: NDArray[np.uint8]) -> bool:
    """Returns whether the corners of an image uint8 ``[28, 28]`` are light and alike; no image of the data set is so.

    Transparent pixels count as white.
    """
    corners = [int(image[row, column]) for row in (0, -1) for column in (0, -1)]
    return min(corners) >= LIGHT and max(corners) - min(corners) <= EVEN


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "L":
        return True
    red, green, blue = image.split()
    return bool(red.tobytes() == green.tobytes() == blue.tobytes())


def _squeezed(decoded: Decoded, model_input: ModelInput, background: Background, kind: PictureKind) -> Picture:
    size = model_input.height
    preprocessing = Preprocessing(
        steps=[*_first_steps(decoded), f"the whole picture in colour, scaled to {size}x{size} pixels"],
        background=_hex(background),
    )
    return Picture(squeeze(decoded.image, size), preprocessing, kind, _size_warnings(decoded))


def _trimmed(decoded: Decoded, found: Trimmed, measured: tuple[int, int], background: Background) -> Picture:
    """The input of a model of the data set's convention; ``found`` was measured at the size ``measured``."""
    kind = PictureKind.PLAIN if background.is_plain else PictureKind.PHOTO
    if found.crop_box is None:
        steps = [*_first_steps(decoded), "nothing stands out from the background"]
        return Picture(found.image, Preprocessing(steps=steps, background=_hex(background)), kind, (NOTHING,))
    inverted = ["inverted"] if found.inverted else []
    removed = "plain background removed" if background.is_plain else "what has the colour of the border removed"
    preprocessing = Preprocessing(
        steps=[
            *_first_steps(decoded), removed, "cropped to the article", *inverted,
            "longest edge scaled to 28 pixels, centred",
        ],
        inverted=found.inverted,
        background=_hex(background),
        crop_box=_scaled(found.crop_box, measured, decoded.size),
        placement=found.placement,
        coverage=found.coverage,
    )  # fmt: skip
    return Picture(found.image, preprocessing, kind, (*_warnings(found, kind), *_size_warnings(decoded)))


def _first_steps(decoded: Decoded) -> list[str]:
    done = {"turned upright, as its EXIF says": decoded.turned, "transparency laid on white": decoded.transparent}
    return [step for step, was_done in done.items() if was_done]


def _warnings(found: Trimmed, kind: PictureKind) -> list[str]:
    if kind is PictureKind.PHOTO:
        return [NOT_A_PRODUCT_PICTURE]
    said = {
        f"The article fills only {found.coverage:.0%} of the picture: crop it closer.": found.coverage < SMALL,
        "The article hardly differs from its background: use another one.": found.contrast < LOW_CONTRAST,
    }
    return [warning for warning, holds in said.items() if holds]


def _size_warnings(decoded: Decoded) -> tuple[str, ...]:
    width, height = decoded.size
    sentence = f"The picture has only {width} x {height} pixels: send a larger one."
    return (sentence,) if max(width, height) < FEW_PIXELS else ()


def _hex(background: Background) -> str:
    return "#{:02x}{:02x}{:02x}".format(*background.colour)


def _scaled(box: Box, small: tuple[int, int], whole: tuple[int, int]) -> Box:
    """The box in the pixels of the whole picture."""
    across, down = whole[0] / small[0], whole[1] / small[1]
    return round(box[0] * across), round(box[1] * down), round(box[2] * across), round(box[3] * down)
