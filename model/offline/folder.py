"""Classifies many pictures on disk. A file that cannot be used becomes a row with an error."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple, TypeVar

from model.engines import BATCH_SIZE
from model.errors import ImageError
from model.files import printable
from model.offline.tables import Outcome
from model.prediction import LoadedModel, ModelPair, Prediction, classify_pictures, input_of
from model.preprocessing.decode import MAX_PIXELS, DecodeLimits
from model.preprocessing.pipeline import Picture, preprocess

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
FILES_PER_TASK = 4
"""Files that a thread reads per task. For small pictures a task costs as much as the decoding; larger tasks would leave
threads without work when there are few large pictures."""
READ_AHEAD = 4 * BATCH_SIZE
"""Pictures that are decoded before the engine needs them."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Source(NamedTuple):
    """An encoded picture to be read."""

    name: Path | str
    read: Callable[[], bytes]


class _Decoded(NamedTuple):
    file: str
    picture: Picture | str
    """The picture, or an error message."""


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """Returns the files among ``paths`` and, sorted, every picture (by suffix) in the folders among ``paths``.

    A folder that has no picture or cannot be listed is returned itself; reading it then gives the reason.
    """
    return [found for path in paths for found in _pictures_in(path) or [path]]


def classify_files(
    paths: Iterable[Path], models: ModelPair[LoadedModel], *, threads: int, max_pixels: int = MAX_PIXELS
) -> Iterator[Outcome]:
    """Classifies files in order. ``threads`` threads decode while an engine computes."""

    def decode_some(some: Sequence[Path]) -> list[_Decoded]:
        return [_decode(Source(path, path.read_bytes), models, max_pixels) for path in some]

    with ThreadPoolExecutor(threads) as pool:
        tasks = _groups(paths, FILES_PER_TASK)
        decoded = chain.from_iterable(_map_ahead(pool, decode_some, tasks, READ_AHEAD // FILES_PER_TASK))
        for batch in _groups(decoded, BATCH_SIZE):
            yield from _classify(batch, models)


def classify_sources(
    sources: Iterable[Source], models: ModelPair[LoadedModel], *, max_pixels: int = MAX_PIXELS
) -> list[Outcome]:
    """Classifies one batch of pictures from any source, in the calling thread."""
    return _classify([_decode(source, models, max_pixels) for source in sources], models)


def _classify(batch: Sequence[_Decoded], models: ModelPair[LoadedModel]) -> list[Outcome]:
    found = classify_pictures(models, [picture for _, picture in batch])
    return [
        Outcome(file, one, None) if isinstance(one, Prediction) else Outcome(file, None, one)
        for (file, _), one in zip(batch, found, strict=True)
    ]


def _decode(source: Source, models: ModelPair[LoadedModel], max_pixels: int) -> _Decoded:
    file = printable(source.name)
    try:
        return _Decoded(file, preprocess(source.read(), partial(input_of, models), DecodeLimits(max_pixels)))
    except Exception as error:  # noqa: BLE001 - no file, however broken, ends the table
        return _Decoded(file, _message(error))


def _message(error: Exception) -> str:
    match error:
        case ImageError():
            return str(error)
        case IsADirectoryError():
            return f"There is no picture in this folder ({', '.join(sorted(SUFFIXES))})."
        case OSError():
            return f"The file cannot be read: {error.strerror or error}."
    return f"Unexpected error, please report it: {type(error).__name__}: {error}"


def _pictures_in(path: Path) -> list[Path]:
    unlisted: list[OSError] = []  # os.walk reports a file as NotADirectoryError
    inside = [Path(place, name) for place, _, names in os.walk(path, onerror=unlisted.append) for name in names]
    return sorted([*filter(_is_picture, inside), *(Path(error.filename) for error in unlisted)])


def _is_picture(path: Path) -> bool:
    """Decides by the suffix. Accepts broken links and unreadable files, but no pipes, which would block."""
    if path.suffix.lower() not in SUFFIXES:
        return False
    return os.path.isfile(path) or not os.path.exists(path)  # noqa: PTH110, PTH113 - pathlib's raise PermissionError


def _groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group


def _map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], count: int
) -> Iterator[Result]:
    """Like ``map``, but at most ``count`` items ahead of the consumer, which bounds the memory."""
    running: deque[Future[Result]] = deque()
    for item in items:
        running.append(pool.submit(function, item))
        if len(running) >= count:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()
