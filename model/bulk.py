"""Many pictures on disk, classified at the speed of decoding; a broken one is told of and passed over."""

import csv
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from model.artifact import ModelCard
from model.decode import MAX_PIXELS
from model.engines import Engine, EngineName, create_engine, load_for_engine
from model.errors import ImageError
from model.installation import requires_extra
from model.prediction import Prediction, classify, examine
from model.preprocess import Choice, Picture, preprocess

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
BATCH = 64
TOGETHER = 4
"""Files that a thread reads in one go: of small pictures, handing one to a thread takes as long as decoding it. Of a
few large ones every thread is to get some."""
AHEAD = 4 * BATCH
"""Pictures that are decoded before the network asks for them."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Outcome(NamedTuple):
    """What became of one file: a prediction, or why there is none."""

    path: Path
    prediction: Prediction | None
    error: str | None

    def row(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """As a row of a table: the file, the answer with a probability a class, the error."""
        found = self.prediction
        answer = {
            name: getattr(found, name, None)
            for name in ("label", "class_id", "confidence", "in_distribution", "ood_score")
        }
        probabilities = {label: found.probabilities[label] if found else None for label in classes}
        return {"file": str(self.path)} | answer | probabilities | {"error": self.error}


class Loaded(NamedTuple):
    """A network that is ready to answer."""

    engine: Engine
    card: ModelCard


def load_both(engine: EngineName, folder: Path, names: Choice[str], threads: int = 1) -> Choice[Loaded]:
    """The networks of these names out of ``folder``; raises what ``load_artifact`` and ``create_engine`` do."""
    artifacts = {name: load_for_engine(engine, folder, name) for name in names}
    loaded = {name: Loaded(create_engine(engine, one, threads), one.card) for name, one in artifacts.items()}
    return Choice(*(loaded[name] for name in names))


def find_pictures(paths: Iterable[Path]) -> list[Path]:
    """The files among ``paths``, and every picture (by its suffix) in the folders among them, sorted."""
    found: list[Path] = []
    for path in paths:
        inside = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        found += sorted(inside) if path.is_dir() else [path]
    return found


def classify_files(
    paths: Iterable[Path], networks: Choice[Loaded], *, threads: int, max_pixels: int = MAX_PIXELS
) -> Iterator[Outcome]:
    """Classify every file, in order; decoding goes on in ``threads`` threads while a network computes."""

    def read(path: Path) -> _Read:
        try:
            picture = preprocess(path.read_bytes(), max_pixels)
            return _Read(path, picture, networks.of(picture))
        except (ImageError, OSError) as error:
            return _Read(path, str(error), networks.default)

    def read_some(some: Sequence[Path]) -> list[_Read]:
        return [read(path) for path in some]

    with ThreadPoolExecutor(threads) as pool:
        pictures = chain.from_iterable(_ahead(pool, read_some, _groups(paths, TOGETHER), AHEAD // TOGETHER))
        for batch in _groups(pictures, BATCH):
            yield from _answers(batch)


class _Read(NamedTuple):
    """A file that has been read: its picture, or why there is none, and the network that answers it."""

    path: Path
    picture: Picture | str
    network: Loaded


def _answers(batch: Sequence[_Read]) -> Iterator[Outcome]:
    """What becomes of each file, in order; each engine is called once, with all that is its own."""
    pictures: dict[Engine, list[Picture]] = {}
    for _, picture, (engine, _) in batch:
        if not isinstance(picture, str):
            pictures.setdefault(engine, []).append(picture)
    findings = {engine: examine(engine, its) for engine, its in pictures.items()}
    for path, picture, (engine, card) in batch:
        if isinstance(picture, str):
            yield Outcome(path, None, picture)
        else:
            yield Outcome(path, classify(next(findings[engine]), card, picture), None)


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
        self.writer = csv.DictWriter(self.file, list(Outcome(path, None, None).row(classes)))
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
        with requires_extra("bulk"):
            import pyarrow as pa
            import pyarrow.parquet as pq

        numbers = [("confidence", pa.float64()), *((label, pa.float64()) for label in classes)]
        self.pa = pa
        self.schema = pa.schema(
            [("file", pa.string()), ("label", pa.string()), ("class_id", pa.int8()), *numbers, ("error", pa.string())]
        )
        self.writer = pq.ParquetWriter(path, self.schema)

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Append ``rows`` as a row group."""
        self.writer.write_table(self.pa.Table.from_pylist(rows, self.schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()


def open_table(path: Path, classes: tuple[str, ...]) -> TableWriter:
    """The writer that the suffix of ``path`` asks for: ``.csv`` or ``.parquet``; ValueError for any other."""
    if path.suffix == ".csv":
        return CsvWriter(path, classes)
    if path.suffix == ".parquet":
        return ParquetWriter(path, classes)
    raise ValueError(f"{path}: the table is a .csv or a .parquet file.")
