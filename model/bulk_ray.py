"""The same across a cluster, by Ray Data (the extra ``ray``): reading, classifying and writing where the data lies."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import ray.data

from model.bulk import BATCH, Outcome, load_both
from model.engines import EngineName
from model.errors import ImageError
from model.prediction import classify, examine
from model.preprocess import Choice, preprocess


class Classifier:
    """What a Ray actor does: loads the networks once, then classifies batch after batch."""

    def __init__(self, engine: EngineName, model_dir: Path, names: Choice[str]) -> None:
        self.networks = load_both(engine, model_dir, names)
        self.classes = self.networks.default.card.classes

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Columns ``image`` (a file's bytes) and ``file`` -> the columns of ``Outcome.row``."""
        rows = [
            self._outcome(str(file), content).row(self.classes)
            for file, content in zip(batch["file"], batch["image"], strict=True)
        ]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _outcome(self, file: str, content: bytes) -> Outcome:
        try:
            picture = preprocess(bytes(content))
        except ImageError as error:
            return Outcome(Path(file), None, str(error))
        engine, card = self.networks.of(picture)
        return Outcome(Path(file), classify(next(examine(engine, [picture])), card, picture), None)


def classify_on_cluster(
    inputs: Sequence[Path], out: Path, engine: EngineName, model_dir: Path, names: Choice[str]
) -> tuple[int, int]:
    """Classify pictures across the cluster into a folder of Parquet files; returns how many, and how many could not.

    Args:
        inputs: folders or files of pictures; or Parquet files with a column ``image`` and, if they have one, ``file``.
        out: the folder to write.
        engine: the engine of every actor.
        model_dir: the artefacts' folder, which every node must see.
        names: the artefacts that answer.
    """
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    cores = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
    found = _read(inputs).map_batches(
        Classifier,
        fn_constructor_args=(engine, model_dir, names),
        batch_size=BATCH,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, cores)),
    )
    found.write_parquet(str(out))
    written = ray.data.read_parquet(str(out), columns=["file", "error"])
    failed = written.filter(lambda row: row["error"] is not None).count()
    return written.count(), failed


def _read(inputs: Sequence[Path]) -> ray.data.Dataset:
    if all(path.suffix == ".parquet" for path in inputs):
        table = ray.data.read_parquet([str(path) for path in inputs])
        return table if "file" in table.columns() else table.add_column("file", lambda frame: [""] * len(frame))
    pictures = ray.data.read_binary_files([str(path) for path in inputs], include_paths=True)
    renamed: ray.data.Dataset = pictures.rename_columns({"bytes": "image", "path": "file"})
    return renamed
