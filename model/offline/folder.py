"""Classifies many pictures on disk. A file that cannot be used becomes a row with an error."""

import glob
import os
import sys
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
from model.preprocessing.formats import SUFFIXES
from model.preprocessing.pipeline import Picture, preprocess

FILES_PER_TASK = 4
"""Files that a thread reads per task. For small pictures a task costs as much as the decoding; larger tasks would leave
threads without work when there are few large pictures."""
READ_AHEAD = 4 * BATCH_SIZE
"""Pictures that are decoded before the engine needs them."""

STANDARD_INPUT = Path("-")

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


class Found(NamedTuple):
    """The files that paths name."""

    pictures: list[Path]
    skipped: list[Path]
    """Files in folders that have no suffix of a picture."""


def find_pictures(paths: Iterable[Path]) -> Found:
    """Finds the files among ``paths`` and, sorted, every picture (by suffix) in the folders among ``paths``.

    A path that does not exist may be a pattern, such as ``photos/*.jpg``. A folder that has no picture or cannot be
    listed is returned itself; reading it then gives the reason.
    """
    places = [place for path in paths for place in _matches(path)]
    found = [_files_in(place) for place in places]
    pictures = [file for place, one in zip(places, found, strict=True) for file in one.pictures or [place]]
    return Found(pictures, [file for one in found for file in one.skipped])


def _matches(path: Path) -> list[Path]:
    if os.path.lexists(path):
        return [path]
    return [Path(match) for match in sorted(glob.glob(str(path), recursive=True))] or [path]  # noqa: PTH207 - absolute


def classify_files(
    paths: Iterable[Path], models: ModelPair[LoadedModel], *, threads: int, max_pixels: int = MAX_PIXELS
) -> Iterator[Outcome]:
    """Classifies files in order. ``threads`` threads decode while an engine computes."""

    def decode_some(some: Sequence[Path]) -> list[_Decoded]:
        return [_decode(Source(path, partial(_content, path)), models, max_pixels) for path in some]

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


def _content(path: Path) -> bytes:
    return sys.stdin.buffer.read() if path == STANDARD_INPUT else path.read_bytes()


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
        case FileNotFoundError() if set("*?[") & set(str(error.filename)):
            return "No file has a name of this pattern."
        case OSError():
            return f"The file cannot be read: {error.strerror or error}."
    return f"Unexpected error, please report it: {type(error).__name__}: {error}"


def _files_in(path: Path) -> Found:
    unlisted: list[OSError] = []  # os.walk reports a file as NotADirectoryError
    inside = [Path(place, name) for place, _, names in os.walk(path, onerror=unlisted.append) for name in names]
    pictures = [file for file in inside if file.suffix.lower() in SUFFIXES and _may_be_read(file)]
    skipped = [file for file in inside if file.suffix.lower() not in SUFFIXES]
    return Found(sorted([*pictures, *(Path(error.filename) for error in unlisted)]), skipped)


def _may_be_read(path: Path) -> bool:
    """Accepts broken links and unreadable files, but no pipes, which would block."""
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
