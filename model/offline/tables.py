"""Tables of predictions: one row per picture, as CSV or Parquet."""

import csv
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from model.data import CLASSES
from model.installation import requires_extra
from model.prediction import Prediction

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1024
"""Rows to write at once: a row group of Parquet. Smaller groups make the file larger and slower to read."""

_FIELDS: dict[str, type] = {
    "label": str, "class_id": int, "confidence": float, "in_distribution": bool, "ood_score": float, "model": str,
    "model_version": str, "model_choice": str,
}  # fmt: skip
"""The columns that are fields of a prediction."""
COLUMNS: dict[str, type] = {"file": str, **_FIELDS, "warnings": str, **dict.fromkeys(CLASSES, float), "error": str}
"""Names and types of the columns, in order. Every column but ``file`` may be empty."""


class Outcome(NamedTuple):
    """The prediction for one file, or the reason why there is none."""

    file: str
    """The name of the file; bytes that are not UTF-8 are escaped."""
    prediction: Prediction | None
    error: str | None

    def row(self) -> dict[str, Any]:
        """Returns the values of ``COLUMNS``."""
        found = self.prediction
        fields = [getattr(found, name, None) for name in _FIELDS]
        warnings = " ".join(found.warnings) if found else ""
        probabilities = [found.probabilities[label] if found else None for label in CLASSES]
        return dict(zip(COLUMNS, [self.file, *fields, warnings or None, *probabilities, self.error], strict=True))


def arrow_schema() -> "pa.Schema":
    """Returns the columns as an Arrow schema. Raises ExtraMissing without the extra ``bulk``."""
    with requires_extra("bulk"):
        import pyarrow as pa

    types = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
    return pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])


class TableWriter(Protocol):
    """A context manager that writes rows; the file is complete when the context ends."""

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Appends ``rows``."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class CsvWriter:
    """Writes comma-separated values with a header."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w", newline="", encoding="utf-8")
        self.writer = csv.DictWriter(self.file, list(COLUMNS))
        self.writer.writeheader()

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Appends ``rows``."""
        self.writer.writerows(rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


class ParquetWriter:
    """Writes Parquet. Raises ExtraMissing without the extra ``bulk``."""

    def __init__(self, path: Path) -> None:
        self.schema = arrow_schema()
        import pyarrow.parquet as pq

        self.writer = pq.ParquetWriter(path, self.schema)

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Appends ``rows`` as a row group."""
        import pyarrow as pa

        self.writer.write_table(pa.Table.from_pylist(rows, self.schema))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()


def open_table(path: Path) -> TableWriter:
    """Returns a writer for the suffix of ``path``, ``.csv`` or ``.parquet``. Raises ValueError for any other."""
    if path.suffix.lower() == ".csv":
        return CsvWriter(path)
    if path.suffix.lower() == ".parquet":
        return ParquetWriter(path)
    raise ValueError(f"{path}: the table is a .csv or a .parquet file.")
