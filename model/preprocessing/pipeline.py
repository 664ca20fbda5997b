"""Turns any picture into the model's input: uint8 ``[28, 28]`` in the convention of the data set.

The convention (Xiao et al., arXiv:1708.07747, section 2): grey, the article light on a background of exactly 0,
trimmed, its longest edge 28 pixels, centred. A 28x28 grey picture is used unchanged.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from model.preprocessing.decode import MAX_PIXELS, Decoded, decode, decode_small_png, is_small_png
from model.preprocessing.foreground import Box, Foreground, bounds, find_foreground
from model.preprocessing.pose import Part, Pose, find_pose

SIZE = 28
WORKING_SIZE = 128
"""Longest edge, in pixels, at which the article is segmented."""
DARKEST, MIDDLE = 30.0, 150.0
"""Minimum brightness of an article, and the target mean of photos; the mean is moved half-way to the target, because
exposure differs more between photos than in the data set."""
CONTRASTS = (1.0, 0.5)
"""Contrast factors of the views of a photo: the data set's thumbnails show folds and prints less clearly."""
SMALL, LOW_CONTRAST = 0.05, 0.1


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
    rotation_degrees: int | None = Field(default=None, description="rotation of the article, counter-clockwise")
    coverage: float | None = Field(default=None, ge=0, le=1, description="share of the picture that the article covers")


class Picture(NamedTuple):
    """The model's input for a picture."""

    views: NDArray[np.uint8]
    """uint8 ``[V, 28, 28]`` in the data set's convention, the most probable first; their outputs are averaged."""
    preprocessing: Preprocessing
    warnings: tuple[str, ...] = ()
    """Sentences on why the input may be unsuitable."""
    is_photo: bool = False
    """Whether the background is not plain. Photos have several views and a model of their own."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """The first view, ``[28, 28]``, which is shown to users."""
        first: NDArray[np.uint8] = self.views[0]
        return first


IDENTITY = Preprocessing(steps=["28x28 and grey: used as it is"])


def preprocess(content: bytes, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decodes a picture (PNG, JPEG, WebP, GIF, BMP or TIFF; the first frame) and turns it into the model's input.

    Raises:
        EmptyImage, NotAnImage, UnknownFormat, TooManyPixels, DamagedImage: why it cannot be used.
    """
    small = decode_small_png(content, SIZE)
    if small is not None:
        return Picture(small[None], IDENTITY)
    decoded = decode(content, max_pixels, needed=2 * WORKING_SIZE, untouched=SIZE)
    image = decoded.image
    if image.size == (SIZE, SIZE) and _is_grey(image):
        pixels = image.convert("L").tobytes() if image.mode != "L" else image.tobytes()
        return Picture(np.frombuffer(pixels, np.uint8).reshape(1, SIZE, SIZE), IDENTITY)
    return _segment_article(decoded)


def is_native_png(content: bytes) -> bool:
    """Returns whether the content starts as a 28x28 PNG of 8 bits of grey, the data set's own form."""
    return is_small_png(content, SIZE)


def _is_grey(image: Image.Image) -> bool:
    if image.mode == "L":
        return True
    red, green, blue = image.split()
    return bool(red.tobytes() == green.tobytes() == blue.tobytes())


def _segment_article(decoded: Decoded) -> Picture:
    """Turns a picture that is not of the data set's own form into the input."""
    image = decoded.image
    if max(image.size) > WORKING_SIZE:
        image.thumbnail((WORKING_SIZE, WORKING_SIZE), Image.Resampling.BOX)
    found = find_foreground(np.asarray(image.convert("RGB")))
    background = "#{:02x}{:02x}{:02x}".format(*found.background)
    if not found.mask.any():
        steps = [*_first_steps(decoded), "nothing stands out from the background"]
        warning = "Nothing stands out from the background: photograph the article on a cloth of another colour."
        return Picture(
            np.zeros((1, SIZE, SIZE), np.uint8), Preprocessing(steps=steps, background=background), (warning,)
        )
    grey = np.asarray(image.convert("L"), np.float32)
    inverted = not found.plain or _lightness(found.background) >= grey[found.mask].mean()
    pose = Pose("", [Part(found.mask, 0, (1.0,))]) if found.plain else find_pose(found.mask)
    views, placement = _views(grey, found, pose)
    box = bounds(pose.parts[0].mask)
    preprocessing = Preprocessing(
        steps=[*_first_steps(decoded), *_later_steps(found, pose, len(views), inverted=inverted)],
        inverted=inverted,
        background=background,
        crop_box=_scaled(box, image.size, decoded.size),
        placement=placement,
        rotation_degrees=90 * pose.parts[0].turns or None,
        coverage=float(found.mask.mean()),
    )
    return Picture(views, preprocessing, tuple(_warnings(found)), is_photo=not found.plain)


def _views(grey: NDArray[np.float32], found: Foreground, pose: Pose) -> tuple[NDArray[np.uint8], Box]:
    """Grey ``[H, W]`` -> the article in it as the network sees it, ``[V, 28, 28]``; where it lies in the first."""
    centred = [
        _centre(article, width)
        for part in pose.parts
        for article in _articles(grey, found, part)
        for width in part.widths
    ]
    return np.stack([view for view, _ in centred]), centred[0][1]


def _articles(grey: NDArray[np.float32], found: Foreground, part: Part) -> Iterator[NDArray[np.float32]]:
    """One part in its brightness in the data set's convention, cropped and turned: in all contrasts, of a photo."""
    left, top, right, bottom = bounds(part.mask)
    for contrast in CONTRASTS[:1] if found.plain else CONTRASTS:
        light = _contrast(grey, found) if found.plain else _exposed(255 - grey, part.mask, contrast)
        cropped = np.where(part.mask, light, np.float32(0))[top:bottom, left:right]
        yield np.ascontiguousarray(np.rot90(cropped, part.turns))


def _first_steps(decoded: Decoded) -> list[str]:
    done = {"turned upright, as its EXIF says": decoded.turned, "transparency laid on white": decoded.transparent}
    return [step for step, was_done in done.items() if was_done]


def _later_steps(found: Foreground, pose: Pose, views: int, *, inverted: bool) -> list[str]:
    done = {
        "plain background removed": found.plain,
        "background told from the article by colour, place and edges, and removed": not found.plain,
        "cropped to the article": True,
        "inverted": inverted,
        "exposure brought near the data set's": not found.plain,
        pose.step: not found.plain,
        "longest edge scaled to 28 pixels, centred": True,
        f"seen in {views} ways, of other widths and contrasts, answers averaged": not found.plain,
    }
    return [step for step, was_done in done.items() if was_done]


def _warnings(found: Foreground) -> list[str]:
    """What may have gone wrong."""
    box = bounds(found.mask)
    height, width = found.mask.shape
    coverage = float(found.mask.mean())
    cut = sum((box[0] == 0, box[1] == 0, box[2] == width, box[3] == height))
    said = {
        f"The article fills only {coverage:.0%} of the picture: crop it closer.": coverage < SMALL,
        "The article hardly differs from its background: use another one.": found.contrast < LOW_CONTRAST,
        "The article reaches the edges of the picture and may be cut off.": cut > 1 and not found.plain,
    }
    return [warning for warning, holds in said.items() if holds]


def _lightness(colour: tuple[int, int, int]) -> int:
    """The grey of a colour, 0..255, as Pillow weighs and rounds it."""
    return round(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2])


def _contrast(grey: NDArray[np.float32], found: Foreground) -> NDArray[np.float32]:
    """Grey ``[H, W]`` -> contrast to the plain background: its farther end becomes 255, what differs in hue DARKEST."""
    background = _lightness(found.background)
    contrast = np.abs(grey - background) * np.float32(255 / max(background, 255 - background))
    bounded: NDArray[np.float32] = np.maximum(contrast, np.float32(DARKEST))
    return bounded


def _exposed(brightness: NDArray[np.float32], mask: NDArray[np.bool_], contrast: float) -> NDArray[np.float32]:
    """Brightness ``[H, W]`` -> the same, the article's mean half-way to the data set's, ``contrast`` around it."""
    mean = brightness[mask].mean()
    exposed: NDArray[np.float32] = np.clip((brightness - mean) * contrast + (mean + MIDDLE) / 2, DARKEST, 255)
    return exposed


def _scaled(box: Box, small: tuple[int, int], whole: tuple[int, int]) -> Box:
    """The box in the pixels of the whole picture."""
    across, down = whole[0] / small[0], whole[1] / small[1]
    return round(box[0] * across), round(box[1] * down), round(box[2] * across), round(box[3] * down)


def _centre(article: NDArray[np.float32], aspect: float) -> tuple[NDArray[np.uint8], Box]:
    """Scale the longest edge to 28 and centre; an odd pixel of padding goes left or on top, as in the data set.

    Returns:
        uint8 ``[28, 28]``, and where in it the article lies.
    """
    height, width = article.shape[0], article.shape[1] * aspect
    scale = SIZE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(article).resize(size, Image.Resampling.BOX))
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    top, left = -(-(SIZE - size[1]) // 2), -(-(SIZE - size[0]) // 2)
    canvas[top : top + size[1], left : left + size[0]] = small.round()
    return canvas, (left, top, left + size[0], top + size[1])
