"""Classifies pictures across a cluster with Ray Data (extra ``ray``)."""

import math
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import ray
import ray.data

from model.engines import BATCH_SIZE, EngineName
from model.errors import DataCorrupt, NotAnImage
from model.files import printable
from model.offline.folder import Source, classify_sources, find_pictures
from model.offline.tables import arrow_schema
from model.prediction import ModelPair, load_model_pair
from model.preprocessing.decode import MAX_PIXELS


class Classifier:
    """A Ray actor: loads the models once and classifies batch after batch."""

    def __init__(self, engine: EngineName, model_dir: Path, names: ModelPair[str], max_pixels: int) -> None:
        self.models = load_model_pair(engine, model_dir, names)
        self.max_pixels = max_pixels

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Classifies a batch with the columns ``file`` and either ``image`` (encoded bytes) or ``path``."""
        outcomes = classify_sources(_sources(batch), self.models, max_pixels=self.max_pixels)
        return pa.Table.from_pylist([outcome.row() for outcome in outcomes], arrow_schema())


def classify_on_cluster(
    inputs: Sequence[Path],
    out: Path,
    engine: EngineName,
    model_dir: Path,
    names: ModelPair[str],
    *,
    max_pixels: int = MAX_PIXELS,
) -> tuple[int, int]:
    """Classifies pictures into a folder of Parquet files. Returns the number of pictures and of failures.

    Args:
        inputs: folders or files of pictures, readable on every node; or Parquet files with a column ``image`` and
            optionally a column ``file``.
        out: the folder to write; new or empty.
        engine: the engine of every actor.
        model_dir: the folder of the models, readable on every node.
        names: the models.
        max_pixels: the maximum number of pixels of a picture.

    Raises:
        FileExistsError: ``out`` is not empty.
        DataCorrupt: a Parquet file has no column ``image``.
    """
    if out.is_dir() and any(out.iterdir()):
        raise FileExistsError(f"{printable(out)} is not empty: name a new folder with --out.")
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    cores = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
    found = _read(inputs).map_batches(
        Classifier,
        fn_constructor_args=(engine, model_dir.absolute(), names, max_pixels),
        batch_size=BATCH_SIZE,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, cores)),
    )
    found.write_parquet(str(out.absolute()))
    written = ray.data.read_parquet(str(out.absolute()), columns=["file", "error"])
    failed = written.filter(lambda row: row["error"] is not None).count()
    return written.count(), failed


def _read(inputs: Sequence[Path]) -> ray.data.Dataset:
    if all(path.suffix == ".parquet" for path in inputs):
        table = ray.data.read_parquet([str(path.absolute()) for path in inputs])
        if "image" not in table.columns():
            raise DataCorrupt(
                "The Parquet files have no column 'image': rename the one that holds the encoded pictures."
            )
        return table if "file" in table.columns() else table.add_column("file", lambda frame: [""] * len(frame))
    # Paths as bytes: Arrow's strings are UTF-8, file names need not be.
    files = [{"file": printable(path), "path": os.fsencode(path.absolute())} for path in find_pictures(inputs).pictures]
    return ray.data.from_items(files, override_num_blocks=math.ceil(len(files) / BATCH_SIZE))


def _content(cell: object) -> bytes:
    """Returns the encoded picture of a row; raises NotAnImage if the cell holds something else, or nothing."""
    if not isinstance(cell, bytes):
        raise NotAnImage("The cell in the column 'image' is no encoded picture: write the bytes of a file into it.")
    return cell


def _sources(batch: pa.Table) -> Iterator[Source]:
    for row in batch.to_pylist():
        if "image" in row:
            yield Source(str(row["file"] or ""), partial(_content, row["image"]))
        else:
            yield Source(row["file"], Path(os.fsdecode(row["path"])).read_bytes)
