"""Many pictures on disk, classified at the speed of decoding; a broken one is told of and passed over."""

import csv
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar

from model.artifact import ModelCard
from model.engines import Engine, EngineName, create_engine, load_for_engine
from model.errors import ImageError
from model.files import printable
from model.installation import requires_extra
from model.prediction import ModelPair, Prediction, classify, infer
from model.preprocessing.decode import MAX_PIXELS
from model.preprocessing.pipeline import Picture, preprocess

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
BATCH = 64
TOGETHER = 4
"""Files that a thread reads in one go: of small pictures, handing one to a thread takes as long as decoding it. Of a
few large ones every thread is to get some."""
AHEAD = 4 * BATCH
"""Pictures that are decoded before the network asks for them."""

ANSWER: dict[str, type] = {
    "label": str, "class_id": int, "confidence": float, "in_distribution": bool, "ood_score": float
}  # fmt: skip
"""The columns that are attributes of a prediction."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def columns(classes: tuple[str, ...]) -> dict[str, type]:
    """The columns of every table, in their order, and the type of their values; all but ``file`` can be empty."""
    return {"file": str, **ANSWER, **dict.fromkeys(classes, float), "error": str}


def arrow_schema(classes: tuple[str, ...]) -> "pa.Schema":
    """The columns for Parquet; raises ExtraMissing without the extra ``bulk``."""
    with requires_extra("bulk"):
        import pyarrow as pa

    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    return pa.schema([(name, types[kind]) for name, kind in columns(classes).items()])


class Source(NamedTuple):
    """An encoded picture that is yet to be read."""

    name: Path | str
    read: Callable[[], bytes]


class Outcome(NamedTuple):
    """What became of one file: a prediction, or why there is none."""

    file: str
    """Its name, without bytes that are not UTF-8."""
    prediction: Prediction | None
    error: str | None

    def row(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """As a row of a table with ``columns``."""
        found = self.prediction
        answer = [getattr(found, name, None) for name in ANSWER]
        probabilities = [found.probabilities[label] if found else None for label in classes]
        return dict(zip(columns(classes), [self.file, *answer, *probabilities, self.error], strict=True))


class Loaded(NamedTuple):
    """A network that is ready to answer."""

    engine: Engine
    card: ModelCard


def load_both(engine: EngineName, folder: Path, names: ModelPair[str], threads: int = 1) -> ModelPair[Loaded]:
    """The networks of these names out of ``folder``; raises what ``load_artifact`` and ``create_engine`` do."""
    artifacts = {name: load_for_engine(engine, folder, name) for name in names}
    loaded = {name: Loaded(create_engine(engine, one, threads), one.card) for name, one in artifacts.items()}
    return ModelPair(*(loaded[name] for name in names))


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """The files among ``paths``, and every picture (by its suffix) in the folders among them, sorted.

    A folder that cannot be listed, or that holds no picture, is in the list itself: reading it says why.
    """
    return [found for path in paths for found in _pictures_in(path) or [path]]


def _pictures_in(path: Path) -> list[Path]:
    unlisted: list[OSError] = []  # of a file, that it is no folder
    inside = [Path(place, name) for place, _, names in os.walk(path, onerror=unlisted.append) for name in names]
    return sorted([*filter(_is_picture, inside), *(Path(error.filename) for error in unlisted)])


def _is_picture(path: Path) -> bool:
    """By its suffix; also a broken link and what may not be looked at, but no pipe, which would never end."""
    if path.suffix.lower() not in SUFFIXES:
        return False
    return os.path.isfile(path) or not os.path.exists(path)  # noqa: PTH110, PTH113 - pathlib's raise PermissionError


def classify_files(
    paths: Iterable[Path], networks: ModelPair[Loaded], *, threads: int, max_pixels: int = MAX_PIXELS
) -> Iterator[Outcome]:
    """Classify every file, in order; decoding goes on in ``threads`` threads while a network computes."""
    sources = (Source(path, path.read_bytes) for path in paths)
    return classify_sources(sources, networks, threads=threads, max_pixels=max_pixels)


def classify_sources(
    sources: Iterable[Source], networks: ModelPair[Loaded], *, threads: int, max_pixels: int = MAX_PIXELS
) -> Iterator[Outcome]:
    """The same for pictures that lie anywhere."""

    def read_some(some: Sequence[Source]) -> list[_Read]:
        return [_read(source, networks, max_pixels) for source in some]

    with ThreadPoolExecutor(threads) as pool:
        pictures = chain.from_iterable(_ahead(pool, read_some, _groups(sources, TOGETHER), AHEAD // TOGETHER))
        for batch in _groups(pictures, BATCH):
            yield from _answers(batch)


class _Read(NamedTuple):
    """A file that has been read: its picture, or why there is none, and the network that answers it."""

    file: str
    picture: Picture | str
    network: Loaded


def _read(source: Source, networks: ModelPair[Loaded], max_pixels: int) -> _Read:
    file = printable(source.name)
    try:
        picture = preprocess(source.read(), max_pixels)
        return _Read(file, picture, networks.of(picture))
    except Exception as error:  # noqa: BLE001 - one file, however bad, does not end the table
        return _Read(file, _sentence(error), networks.default)


def _sentence(error: Exception) -> str:
    match error:
        case ImageError():
            return str(error)
        case IsADirectoryError():
            return f"There is no picture in this folder ({', '.join(sorted(SUFFIXES))})."
        case OSError():
            return f"The file cannot be read: {error.strerror or error}."
    return f"Unexpected error, please report it: {type(error).__name__}: {error}"


def _answers(batch: Sequence[_Read]) -> Iterator[Outcome]:
    """What becomes of each file, in order; each engine is called once, with all that is its own."""
    pictures: dict[Engine, list[Picture]] = {}
    for _, picture, (engine, _) in batch:
        if not isinstance(picture, str):
            pictures.setdefault(engine, []).append(picture)
    findings = {engine: infer(engine, its) for engine, its in pictures.items()}
    for file, picture, (engine, card) in batch:
        if isinstance(picture, str):
            yield Outcome(file, None, picture)
        else:
            yield Outcome(file, classify(next(findings[engine]), card, picture), None)


def _groups(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group


def _ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], count: int
) -> Iterator[Result]:
    """``map`` that runs no further ahead than ``count`` items, so that a million of them fit into memory."""
    running: deque[Future[Result]] = deque()
    for item in items:
        running.append(pool.submit(function, item))
        if len(running) >= count:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


class TableWriter(Protocol):
    """Takes rows as they come and has them on the disk when it is left."""

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Append ``rows``."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class CsvWriter:
    """Comma-separated, a header first; what is empty is empty."""

    def __init__(self, path: Path, classes: tuple[str, ...]) -> None:
        self.file = path.open("w", newline="", encoding="utf-8")
        self.writer = csv.DictWriter(self.file, list(columns(classes)))
        self.writer.writeheader()

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Append ``rows``."""
        self.writer.writerows(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


class ParquetWriter:
    """Parquet, by pyarrow; raises ExtraMissing without the extra ``bulk``."""

    def __init__(self, path: Path, classes: tuple[str, ...]) -> None:
        self.schema = arrow_schema(classes)
        import pyarrow.parquet as pq

        self.writer = pq.ParquetWriter(path, self.schema)

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Append ``rows`` as a row group."""
        import pyarrow as pa

        self.writer.write_table(pa.Table.from_pylist(rows, self.schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()


def open_table(path: Path, classes: tuple[str, ...]) -> TableWriter:
    """The writer that the suffix of ``path`` asks for: ``.csv`` or ``.parquet``; ValueError for any other."""
    if path.suffix.lower() == ".csv":
        return CsvWriter(path, classes)
    if path.suffix.lower() == ".parquet":
        return ParquetWriter(path, classes)
    raise ValueError(f"{path}: the table is a .csv or a .parquet file.")
