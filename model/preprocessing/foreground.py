"""Which pixels of a picture are the article and which its background.

On a plain background: what differs from it. On any other: colour models of the border and of the middle, grown
against each other. That is the idea of GrabCut (Rother et al., SIGGRAPH 2004) with histograms for its mixtures and a
guided filter (He et al., ECCV 2010) for its graph cut, which leaves milliseconds of NumPy. Everything is measured on
the border that most photos leave around their subject; no trained segmentation is small enough to come along.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.floating]
"""``[H, W]``"""
Mask = NDArray[np.bool_]
"""``[H, W]``"""
Box = tuple[int, int, int, int]
"""Left, top, right and bottom; right and bottom lie just beyond it."""

PLAIN = 0.75
"""Share of the border within EVEN of its median from which on a background is plain: the article may touch it."""
EVEN = 6.0
"""Of 255."""
FUZZ = 0.03
"""Contrast to a plain background, 0..1, below which a pixel belongs to it; the paper's step 2 has .05, which loses
white clothes on white."""
ROUNDS = 4
RADIUS = 2
"""Of the guided filter, in pixels."""
EDGES = 3e-4
"""Variance of lightness, 0..1, that the guided filter takes for an edge."""
BINS = (10, 8, 8)
"""Of lightness, red against green, yellow against blue."""


class Foreground(NamedTuple):
    """Where the article is."""

    mask: Mask
    """All False where none stands out."""
    background: tuple[int, int, int]
    """The median colour of the border."""
    plain: bool
    """Whether the background is one colour."""
    contrast: float
    """Distance of the article's mean colour from the background's, 0..1; 0 where there is none."""


def find_foreground(pixels: NDArray[np.uint8]) -> Foreground:
    """Pixels uint8 ``[H, W, 3]`` -> the article in them."""
    border = pixels[_frame(*pixels.shape[:2])]
    background = np.median(border, axis=0)
    plain = bool((np.abs(border - background).max(axis=1) <= EVEN).mean() >= PLAIN)
    mask = _differing(pixels, background) if plain else _filled(_main_parts(_grown(pixels)))
    contrast = np.abs(pixels[mask].mean(axis=0) - background).max() / 255 if mask.any() else 0.0
    return Foreground(mask, (int(background[0]), int(background[1]), int(background[2])), plain, float(contrast))


def bounds(mask: Mask) -> Box:
    """The box of what is True; something is."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _frame(height: int, width: int) -> Mask:
    """The pixels along the four edges."""
    breadth = max(1, round(0.04 * min(height, width)))
    frame = np.ones((height, width), np.bool_)
    frame[breadth:-breadth, breadth:-breadth] = False
    return frame


def _differing(pixels: NDArray[np.uint8], background: NDArray[np.float64]) -> Mask:
    contrast = np.abs(pixels - background).max(axis=2)
    # A tenth of the strongest contrast: JPEG leaves ripples of a twentieth around an article.
    differing: Mask = contrast > max(255 * FUZZ, contrast.max() / 10)
    return differing


def _grown(pixels: NDArray[np.uint8]) -> Mask:
    """The article by colour, place and edges."""
    colours = _opponent(pixels)
    frame, middle = _frame(*pixels.shape[:2]), _middle(*pixels.shape[:2])
    bins, guide = _bins(colours), _Guide(colours[..., 0])
    article = middle * ~frame
    for _ in range(ROUNDS):
        inside = _histogram(bins, article * middle)
        outside = _histogram(bins, (1 - article) * (1 - 0.7 * middle) + 0.5 * frame)
        place = np.clip(0.6 * _box(article, 3) + 0.35 * middle, 0.03, 0.95)
        evidence = np.clip(np.log(inside / outside)[bins], -4, 4) + np.log(place / (1 - place))
        article = np.clip(guide.filter(1 / (1 + np.exp(-evidence))), 0, 1)
    mask: Mask = article > 0.5
    return mask


def _opponent(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Lightness, red against green and yellow against blue, ``[H, W, 3]``: 0..1, then -.9...9 twice."""
    red, green, blue = np.moveaxis(pixels.astype(np.float32) / 255, 2, 0)
    return np.stack([(red + green + blue) / 3, (red - green) * 0.9, ((red + green) / 2 - blue) * 0.9], axis=2)


def _middle(height: int, width: int) -> Map:
    """How likely the article is at a place, before anything is seen of it: 1 in the middle, .1 in the corners."""
    down, across = (((np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1) ** 2 for size in (height, width))
    return np.exp(-1.2 * (down[:, None] + across))


def _bins(colours: NDArray[np.float32]) -> NDArray[np.int64]:
    scaled = colours * BINS + (0, BINS[1] / 2, BINS[2] / 2)
    index = np.clip(scaled.astype(np.int64), 0, np.array(BINS) - 1)
    return (index[..., 0] * BINS[1] + index[..., 1]) * BINS[2] + index[..., 2]


def _histogram(bins: NDArray[np.int64], weights: Map) -> NDArray[np.float64]:
    """The share of every bin, smoothed by a triangle over its neighbours and never 0."""
    counts: NDArray[np.float64] = np.bincount(bins.ravel(), weights.ravel(), np.prod(BINS)).astype(np.float64)
    counts = np.pad(counts.reshape(BINS), 1)
    counts = counts[:-2] / 4 + counts[1:-1] / 2 + counts[2:] / 4
    counts = counts[:, :-2] / 4 + counts[:, 1:-1] / 2 + counts[:, 2:] / 4
    counts = counts[:, :, :-2] / 4 + counts[:, :, 1:-1] / 2 + counts[:, :, 2:] / 4
    shares: NDArray[np.float64] = counts.ravel() / max(counts.sum(), 1e-9) + 1e-5
    return shares


class _Guide:
    """A guided filter: smooths a map, but not across the edges of the guide."""

    def __init__(self, guide: Map) -> None:
        self.guide = guide
        self.mean, squares = _box(np.stack([guide, guide * guide]), RADIUS)
        self.variance = squares - self.mean**2

    def filter(self, values: Map) -> Map:
        mean, products = _box(np.stack([values, self.guide * values]), RADIUS)
        slope = (products - self.mean * mean) / (self.variance + EDGES)
        slope, offset = _box(np.stack([slope, mean - slope * self.mean]), RADIUS)
        filtered: Map = slope * self.guide + offset
        return filtered


def _box(maps: Map, radius: int) -> Map:
    """Maps ``[..., H, W]`` -> the mean over a square of ``2 radius + 1`` pixels, without those beyond the edges."""
    for _ in range(2):  # along the rows; turned, along the columns
        begin, end, count = _windows(maps.shape[-1], radius)
        sums = np.zeros((*maps.shape[:-1], maps.shape[-1] + 1))
        np.cumsum(maps, axis=-1, out=sums[..., 1:])
        maps = ((sums[..., end] - sums[..., begin]) / count).swapaxes(-1, -2)
    return maps


@cache
def _windows(size: int, radius: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Where the stretch around each of ``size`` pixels begins and ends (just beyond), and how many it holds."""
    place = np.arange(size)
    begin, end = np.maximum(place - radius, 0), np.minimum(place + radius + 1, size)
    return begin, end, end - begin


def _main_parts(mask: Mask) -> Mask:
    """The connected part with the most to show in the middle, and others that are not much less (a pair of shoes)."""
    labels, count = label(mask)
    if not count:
        return mask
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    weights = np.bincount(labels.ravel(), _middle(*mask.shape).ravel(), count + 1)[1:]
    main = int(weights.argmax())
    kept = (sizes >= 0.2 * sizes[main]) & (weights > 0.2 * weights[main])
    return np.concatenate([[False], kept])[labels]


def _filled(mask: Mask) -> Mask:
    """Without the holes: on a busy background they are prints and shadows more often than openings."""
    labels, count = label(~mask)
    outside = np.zeros(count + 1, np.bool_)
    outside[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = True
    return mask | ~outside[labels]


def label(mask: Mask) -> tuple[NDArray[np.int64], int]:
    """The connected parts (by edges) of a mask: their numbers from 1 on, int64 ``[H, W]``, 0 outside; how many.

    By runs and a union of those that touch; SciPy has it too, for a hundred megabytes more in the image.
    """
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (rows, starts), (_, ends) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    roots = _united_runs(rows.tolist(), starts.tolist(), ends.tolist())
    numbers = np.unique(roots, return_inverse=True)[1] + 1 if roots else np.zeros(0, np.int64)
    labels = np.zeros(mask.shape, np.int64)
    labels[mask] = np.repeat(numbers, ends - starts)
    return labels, int(numbers.max(initial=0))


def _united_runs(rows: list[int], starts: list[int], ends: list[int]) -> list[int]:
    """For every run, in the order of reading, the first one of those that it is connected to."""
    parent, above = list(range(len(rows))), 0

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = run = parent[parent[run]]
        return run

    for run, row in enumerate(rows):
        while rows[above] < row - 1 or (rows[above] == row - 1 and ends[above] <= starts[run]):
            above += 1
        touching = above
        while touching < run and rows[touching] == row - 1 and starts[touching] < ends[run]:
            one, other = sorted((root(touching), root(run)))
            parent[other] = one
            touching += 1
    return [root(run) for run in range(len(rows))]
