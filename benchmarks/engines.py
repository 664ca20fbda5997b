"""How long does the network take, without HTTP? Every engine at several batch sizes, one thread, in turns.

Where the served graph has a convolution taken apart (docs/decisions/0018-low-rank.md), the whole one is beside it.

python benchmarks/engines.py --write benchmarks/results/engines
"""

import argparse
import json
import platform
import statistics
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np

from app.settings import read_settings
from model import (
    Artifact,
    Engine,
    EngineName,
    FashionMnist,
    Split,
    create_engine,
    evaluate,
    list_artifacts,
    load_artifact,
)
from model.artifact import Format
from model.cpu import cpu_flags, cpu_name
from model.detector import Detector
from model.network import load_network
from model.training.detector_graph import with_detector
from model.training.export import export_onnx
from model.training.low_rank import taken_apart
from model.training.quantize import CALIBRATION_IMAGES, quantize
from model.training.recipes import Recipe
from model.training.run import training_splits

ENGINES: tuple[EngineName, ...] = ("torch", "onnx", "onnx-int8")
BATCHES = (1, 8, 64)
CALLS = {1: 50, 8: 10, 64: 2}
"""Calls in one turn, about as long at every batch size."""
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")


def measure(name: str, rounds: int) -> list[dict[str, object]]:
    """Milliseconds an image of the artefact ``name``, and validation accuracy, a row an engine."""
    artifact = load_artifact(read_settings().model_dir, name)
    data_set = FashionMnist(read_settings().data_dir)
    train, validation = training_splits(data_set, Recipe(**artifact.card.recipe), artifact.card.training["seed"])
    engines: dict[str, Engine] = {engine: create_engine(engine, artifact) for engine in ENGINES}
    if whole := without_factors(artifact, train):
        engines |= {f"{engine}, whole": create_engine(engine, whole) for engine in ENGINES[1:]}
    times: dict[tuple[str, int], list[float]] = {}
    for turn in range(rounds + 1):  # the first one warms up
        for engine in engines:
            for batch in BATCHES:
                images = validation.images[:batch]
                for _ in range(CALLS[batch]):
                    start = time.perf_counter()
                    engines[engine].run(images)
                    if turn:
                        times.setdefault((engine, batch), []).append((time.perf_counter() - start) / batch * 1000)
    return [
        {
            "network": name,
            "engine": engine,
            "accuracy": evaluate(engines[engine], validation).accuracy,
            "ms": {batch: statistics.median(times[engine, batch]) for batch in BATCHES},
            "ms_p10": {batch: float(np.quantile(times[engine, batch], 0.1)) for batch in BATCHES},
        }
        for engine in engines
    ]


def without_factors(artifact: Artifact, train: Split) -> Artifact | None:
    """The artefact with graphs of its network as it is; None where nothing of it was taken apart."""
    network = load_network(artifact)
    if taken_apart(network) is network:
        return None
    graph, detector = export_onnx(network), Detector.from_bytes(artifact.content["detector.safetensors"])
    graphs: dict[Format, bytes] = {"onnx": graph, "int8.onnx": quantize(graph, train.images[:CALIBRATION_IMAGES])}
    return Artifact(artifact.card, {name: with_detector(one, detector) for name, one in graphs.items()})


def table(rows: list[dict], rounds: int) -> str:
    """Markdown."""
    lines = [
        "| network | engine | "
        + " | ".join(f"ms an image, batch {batch}" for batch in BATCHES)
        + " | validation accuracy |",
        "|---|---|" + "---|" * (len(BATCHES) + 1),
    ]
    for row in rows:
        cells = " | ".join(f"{row['ms'][batch]:.3f} ({row['ms_p10'][batch]:.3f})" for batch in BATCHES)
        lines.append(f"| {row['network']} | {row['engine']} | {cells} | {row['accuracy']:.2%} |")
    flags = ", ".join(flag for flag in FLAGS if flag in cpu_flags())
    return "\n".join(lines) + (
        f"\n\nMedian (10th percentile), one thread, {rounds} turns. {cpu_name()} with {flags}; Python "
        f"{platform.python_version()}, ONNX Runtime {version('onnxruntime')}, torch {version('torch')}; "
        f"{datetime.now(UTC).date()}. Made by `python benchmarks/engines.py`.\n"
    )


def main() -> None:
    """Measure every committed artefact and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="turns (default: %(default)s)")
    parser.add_argument("--write", type=Path, metavar="STEM", help="write STEM.md and STEM.json")
    arguments = parser.parse_args()
    rows = [row for name in list_artifacts(read_settings().model_dir) for row in measure(name, arguments.rounds)]
    print(table(rows, arguments.rounds))
    if arguments.write:
        arguments.write.with_suffix(".md").write_text(table(rows, arguments.rounds))
        arguments.write.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
