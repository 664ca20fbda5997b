"""How long does the network take, without HTTP? Every engine at several batch sizes, one thread, in turns.

A graph with a factorised convolution (docs/decisions/0018-low-rank.md) is compared with the whole one, and a graph with
a row convolution (0020-row-convolution.md) with the one over pixels.

python benchmarks/engines.py --write benchmarks/results/engines
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np

from app.settings import read_settings
from benchmarks.report import add_write, machine, table, write
from model import (
    Artifact,
    Engine,
    FashionMnist,
    Split,
    create_engine,
    evaluate,
    list_artifacts,
    load_artifact,
)
from model.artifact import Format, read_card
from model.engines import EngineName
from model.export.build import export_onnx
from model.export.low_rank import factorized
from model.export.quantize import CALIBRATION_IMAGES, quantize
from model.export.row_convolution import to_row_convolution
from model.network import Network, load_network
from model.ood.score import load_score
from model.training.recipes import Recipe
from model.training.run import training_splits

ENGINES: tuple[EngineName, ...] = ("torch", "onnx", "onnx-int8")
BATCHES = (1, 8, 64)
CALLS = {1: 50, 8: 10, 64: 2}
"""Calls in one turn, about as long at every batch size."""


def measure(name: str, rounds: int) -> list[dict[str, object]]:
    """Milliseconds an image of the artefact ``name``, and validation accuracy, a row an engine."""
    artifact = load_artifact(read_settings().model_dir, name)
    data_set = FashionMnist(read_settings().data_dir)
    train, validation = training_splits(data_set, Recipe(**artifact.card.recipe), artifact.card.training["seed"])
    engines: dict[str, Engine] = {engine: create_engine(engine, artifact) for engine in ENGINES}
    engines |= {f"{engine}, {how}": create_engine(engine, one) for engine, how, one in otherwise(artifact, train)}
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


def otherwise(artifact: Artifact, train: Split) -> Iterator[tuple[EngineName, str, Artifact]]:
    """Artefacts with other graphs of the same network, by their engines and in what they differ."""
    network, score = load_network(artifact), load_score(artifact.content["detector.safetensors"])
    served = factorized(network)

    def with_graph(file: Format, graph: bytes) -> Artifact:
        return Artifact(artifact.card, {file: graph})

    def in_8_bits(network: Network) -> Artifact:
        return with_graph("int8.onnx", quantize(export_onnx(network, score), train.images[:CALIBRATION_IMAGES]))

    if served is not network:
        yield "onnx", "whole", with_graph("onnx", export_onnx(network, score))
        yield "onnx-int8", "whole", in_8_bits(to_row_convolution(network))
    if to_row_convolution(served) is not served:
        yield "onnx-int8", "over pixels", in_8_bits(served)


def report(rows: list[dict], rounds: int) -> str:
    """Markdown."""
    head = ("network", "engine", *(f"ms an image, batch {batch}" for batch in BATCHES), "validation accuracy")
    cells = [
        (
            row["network"],
            row["engine"],
            *(f"{row['ms'][batch]:.3f} ({row['ms_p10'][batch]:.3f})" for batch in BATCHES),
            f"{row['accuracy']:.2%}",
        )
        for row in rows
    ]
    return (
        f"{table(head, cells)}\n\nMedian (10th percentile), one thread, {rounds} turns. {machine()}; "
        f"{datetime.now(UTC).date()}. Made by `python benchmarks/engines.py`.\n"
    )


def main() -> None:
    """Measures every committed model of 28x28 images and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="turns (default: %(default)s)")
    add_write(parser)
    arguments = parser.parse_args()
    folder = read_settings().model_dir
    cards = [read_card(folder, name) for name in list_artifacts(folder)]
    names = [card.name for card in cards if card.input.convention == "fashion-mnist"]
    rows = [row for name in names for row in measure(name, arguments.rounds)]
    print(report(rows, arguments.rounds))
    write(arguments.write, report(rows, arguments.rounds), rows)


if __name__ == "__main__":
    main()
