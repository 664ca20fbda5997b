"""Measure an artefact on the test set: what GET /evaluate answers, on the command line.

python scripts/evaluate.py [--model NAME] [--json]
"""

import argparse
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
from tqdm import tqdm

from app.settings import Settings, SettingsError, read_settings
from model import (
    Engine,
    EngineName,
    FashionMnist,
    FashionNetError,
    Report,
    Split,
    chunks,
    create_engine,
    draw_confusion,
    load_for_engine,
    report,
    usable_cores,
)


def main() -> int:
    """Measure and print; returns the exit status."""
    try:
        settings = read_settings()
        arguments = parse_arguments(settings)
        artifact = load_for_engine(arguments.engine, arguments.model_dir, arguments.model)
        engine = create_engine(arguments.engine, artifact, usable_cores())
        split = FashionMnist(arguments.data_dir).load("test")
        start = time.perf_counter()
        figures = measure(engine, split, artifact.card.temperature)
    except (FashionNetError, SettingsError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.confusion:
        arguments.confusion.write_bytes(draw_confusion(figures.confusion_matrix, artifact.card.classes))
    title = f"{artifact.card.name} {artifact.card.version}, {engine.name}, {time.perf_counter() - start:.1f} s"
    print(figures.model_dump_json(indent=2) if arguments.json else table(title, figures))
    return 0


def measure(engine: Engine, split: Split, temperature: float) -> Report:
    """The report of ``engine`` on ``split``, with a progress bar."""
    with tqdm(total=len(split.labels), unit=" images", leave=False, disable=None) as bar:
        logits = []
        for chunk in chunks(split.images):
            logits.append(engine.run(chunk).logits)
            bar.update(len(chunk))
    return report(np.concatenate(logits), split.labels, temperature=temperature)


def table(title: str, figures: Report) -> str:
    """The report for people."""
    low, high = (f"{bound:.2%}" for bound in figures.accuracy_interval)
    lines = [
        f"{title}: accuracy {figures.accuracy:.2%} ({low} to {high}) on {figures.count:,} test images",
        f"loss {figures.loss:.4f}, Brier score {figures.brier:.4f}, expected calibration error {figures.ece:.2%}",
        f"{'':12} {'precision':>9} {'recall':>9} {'F1':>9} {'support':>9}",
    ]
    lines += [f"{c.label:12} {c.precision:9.2%} {c.recall:9.2%} {c.f1:9.2%} {c.support:9,}" for c in figures.classes]
    return "\n".join(lines)


def parse_arguments(settings: Settings) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure an artefact on the 10,000 test images.")
    add = parser.add_argument
    add("--model", default=settings.default_model, help="name of the artefact (default: %(default)s)")
    add("--model-dir", type=Path, default=settings.model_dir, help="its folder (default: the committed weights)")
    add("--data-dir", type=Path, default=settings.data_dir, help="holds FashionMNIST/raw (default: %(default)s)")
    add("--engine", choices=get_args(EngineName), default=settings.engine, help="default: %(default)s")
    add("--json", action="store_true", help="the whole report, with the confusion matrix")
    add("--confusion", type=Path, metavar="PNG", help="draw the confusion matrix into this file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
