"""The same across a cluster, by Ray Data (the extra ``ray``): reading, classifying and writing where the data lies."""

import math
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import ray
import ray.data

from model.engines import EngineName
from model.files import printable
from model.offline.folder import BATCH, Source, arrow_schema, classify_sources, find_pictures, load_both
from model.prediction import ModelPair
from model.preprocessing.decode import MAX_PIXELS


class Classifier:
    """What a Ray actor does: loads the networks once, then classifies batch after batch."""

    def __init__(self, engine: EngineName, model_dir: Path, names: ModelPair[str], max_pixels: int) -> None:
        self.networks = load_both(engine, model_dir, names)
        self.max_pixels = max_pixels

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Columns ``file`` and either ``image`` (a file's bytes) or ``path`` -> the columns of ``Outcome.row``."""
        classes = self.networks.default.card.classes
        outcomes = classify_sources(_sources(batch), self.networks, threads=1, max_pixels=self.max_pixels)
        return pa.Table.from_pylist([outcome.row(classes) for outcome in outcomes], arrow_schema(classes))


def classify_on_cluster(
    inputs: Sequence[Path],
    out: Path,
    engine: EngineName,
    model_dir: Path,
    names: ModelPair[str],
    *,
    max_pixels: int = MAX_PIXELS,
) -> tuple[int, int]:
    """Classify pictures across the cluster into a folder of Parquet files; returns how many, and how many could not.

    Args:
        inputs: folders or files of pictures, which every node must see; or Parquet files with a column ``image`` and,
            if they have one, ``file``.
        out: the folder to write, new or empty.
        engine: the engine of every actor.
        model_dir: the artefacts' folder, which every node must see.
        names: the artefacts that answer.
        max_pixels: the largest picture.

    Raises:
        ValueError: ``out`` holds something, which would be counted as written now; or a Parquet file has no ``image``.
    """
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{printable(out)} is not empty: name a new folder with --out.")
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    cores = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
    found = _read(inputs).map_batches(
        Classifier,
        fn_constructor_args=(engine, model_dir.absolute(), names, max_pixels),
        batch_size=BATCH,
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
            raise ValueError(
                "The Parquet files have no column 'image': rename the one that holds the encoded pictures."
            )
        return table if "file" in table.columns() else table.add_column("file", lambda frame: [""] * len(frame))
    # Names as bytes: Arrow's text is UTF-8, which a file's name need not be.
    files = [{"file": printable(path), "path": os.fsencode(path.absolute())} for path in find_pictures(inputs)]
    return ray.data.from_items(files, override_num_blocks=math.ceil(len(files) / BATCH))


def _sources(batch: pa.Table) -> Iterator[Source]:
    for row in batch.to_pylist():
        if "image" in row:
            yield Source(str(row["file"] or ""), partial(bytes, row["image"]))
        else:
            yield Source(row["file"], Path(os.fsdecode(row["path"])).read_bytes)
