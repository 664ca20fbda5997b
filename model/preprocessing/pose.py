"""How an article lies in a photo, as far as its outline tells, and so how it is brought nearer to the data set's.

There clothes hang, and shoes are single and seen from the side. In photos clothes lie with their sleeves spread, and
shoes stand in pairs, seen from above.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.preprocessing.foreground import Mask, bounds

WIDTHS = (0.8, 0.7, 1.0)
"""Widths of an article, to what it is in the photo: no one is right for all, so it is seen in each."""
SHOE_WIDTHS = (1.0, 1.25)
"""Of one shoe of a pair, once it lies on its side: as it is, and as shoes are that are narrower than high."""
SLEEVE = 0.1
"""Least share of the width, at either side, in which spread clothes are at most half as high as in the middle."""
LOPSIDED = 0.78
"""Overlap of an outline with its mirror image below which what is wider than high is a single shoe from the side."""
NOTCH = 0.09
"""Least depth, to the height, of the notches between two shoes: at their toes and at their heels."""
LEAST_HEIGHT = 0.85
"""Height of a pair to its width, at least."""
ALIKE = 0.7
"""Overlap of one shoe of a pair with the other one's mirror image, at least."""


class Part(NamedTuple):
    """What is seen of an article, and how."""

    mask: Mask
    turns: int
    """By how many quarters it is turned, counter-clockwise."""
    widths: tuple[float, ...]
    """To what it is in the photo, after the turn."""


class Pose(NamedTuple):
    """How an article lies."""

    step: str
    """What is done about it, in words."""
    parts: list[Part]
    """The likeliest first."""


def find_pose(mask: Mask) -> Pose:
    """The mask ``[H, W]`` of an article in a photo, some of it True -> how it lies."""
    left, top, right, bottom = bounds(mask)
    outline = mask[top:bottom, left:right]
    cut = _seam(outline)
    if cut is not None:
        return Pose("a pair of shoes: each laid on its inner side", _shoes(mask, left + cut))
    height, width = outline.shape
    if width > height and _has_sleeves(outline):
        widths = tuple(part * height / width for part in WIDTHS)
        return Pose("spread sleeves: narrowed to the height, and further", [Part(mask, 0, widths)])
    if width > height and _overlap(outline, outline[:, ::-1]) < LOPSIDED:
        return Pose("on its side: as wide as it is", [Part(mask, 0, (1.0,))])
    return Pose(f"narrowed to {WIDTHS[0]:.0%}", [Part(mask, 0, WIDTHS)])


def _shoes(mask: Mask, cut: int) -> list[Part]:
    """Both of a pair, the inner side of each, which is the straighter one, down: there the data set's have the sole."""
    is_left = np.arange(mask.shape[1]) < cut
    return [Part(mask & is_left, 3, SHOE_WIDTHS), Part(mask & ~is_left, 1, SHOE_WIDTHS)]


def _seam(outline: Mask) -> int | None:
    """The first column of the right one of two shoes; None where it is no pair.

    Between the two there are notches above and below, about as deep. Trousers have none above, shirts none below.
    """
    height, width = outline.shape
    if height < LEAST_HEIGHT * width:
        return None
    above, below = _notches(outline), _notches(outline[::-1])
    middle = np.arange(round(0.35 * width), round(0.65 * width))
    if not middle.size:
        return None
    depths = np.minimum(above, below)[middle]
    cut = int(np.median(middle[depths == depths.max()]))
    shallow, deep = sorted((above[cut], below[cut]))
    if shallow < max(NOTCH * height, deep / 2):
        return None
    one, other = outline[:, :cut][:, ::-1], outline[:, cut:]
    reach = max(one.shape[1], other.shape[1])
    padded = (np.pad(half, ((0, 0), (0, reach - half.shape[1]))) for half in (one, other))
    return cut if _overlap(*padded) >= ALIKE else None


def _notches(outline: Mask) -> NDArray[np.int64]:
    """How far below the highest points on both sides of it each column ``[W]`` begins, in rows; below 0 on a slope."""
    height = len(outline)
    tops = np.where(outline.any(axis=0), outline.argmax(axis=0), height)
    left, right = np.minimum.accumulate(tops), np.minimum.accumulate(tops[::-1])[::-1]
    depths: NDArray[np.int64] = tops - np.maximum(left, right)
    return depths


def _has_sleeves(outline: Mask) -> bool:
    heights = outline.sum(axis=0)
    trunk = np.flatnonzero(heights >= heights.max() / 2)
    return bool(min(trunk[0], len(heights) - 1 - trunk[-1]) >= SLEEVE * len(heights))


def _overlap(one: Mask, other: Mask) -> float:
    """Intersection over union."""
    return float((one & other).sum() / max(1, (one | other).sum()))
