"""Measure an artefact on the test set: what GET /evaluate answers, on the command line, and more.

python scripts/evaluate.py                                      accuracy, calibration, every class
python scripts/evaluate.py --against fashionnet-deep            is the other one better, or luckier?
python scripts/evaluate.py --outliers --suspects 20 --plots .   strangers, doubtful labels, pictures
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from app.command_line import add_settings, run, settings_of
from app.settings import Settings
from model import (
    CLASSES,
    Engine,
    FashionMnist,
    ModelCard,
    Report,
    Split,
    create_engine,
    draw_gallery,
    list_artifacts,
    usable_cores,
)
from model.engines import load_for_engine, softmax
from model.evaluation import chunks, report
from model.evaluation.comparison import Comparison, compare
from model.evaluation.label_issues import Suspect, find_suspects
from model.files import user_path
from model.installation import requires_extra
from model.plots import draw_confusion


class Measured(NamedTuple):
    """One artefact on the test set."""

    card: ModelCard
    engine: Engine
    logits: NDArray[np.float32]
    """``[N, 10]``"""
    report: Report
    seconds: float


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints; returns the exit status."""
    return run(partial(print_evaluation, parse_arguments(argv)))


def print_evaluation(arguments: argparse.Namespace) -> int:
    """Measures as the command line asks and prints what came out."""
    settings = settings_of(arguments)
    model = settings.models_among(list_artifacts(settings.model_dir)).default
    split = FashionMnist(settings.data_dir).load("test")
    measured = measure(settings, model, split)
    findings = find(arguments, settings, measured, split)
    if arguments.plots:
        draw(arguments.plots, measured, split, findings.get("suspects", []))
    if arguments.json:
        print(as_json(measured.report, findings))
    else:
        print("\n\n".join([table(measured), *paragraphs(findings, arguments.against)]))
    return 0


def measure(settings: Settings, name: str, split: Split) -> Measured:
    """The artefact ``name`` on ``split``, with a progress bar."""
    artifact = load_for_engine(settings.engine, settings.model_dir, name)
    engine = create_engine(settings.engine, artifact, usable_cores())
    start, logits = time.perf_counter(), []
    with tqdm(total=len(split.labels), desc=name, unit=" images", leave=False, disable=None) as bar:
        for chunk in chunks(split.images):
            logits.append(engine.run(chunk).logits)
            bar.update(len(chunk))
    seconds, together = time.perf_counter() - start, np.concatenate(logits)
    figures = report(together, split.labels, temperature=artifact.card.temperature)
    return Measured(artifact.card, engine, together, figures, seconds)


def find(arguments: argparse.Namespace, settings: Settings, measured: Measured, split: Split) -> dict[str, Any]:
    """What was asked for beside the report."""
    findings: dict[str, Any] = {}
    if arguments.against:
        other = measure(settings, arguments.against, split)
        findings["against"] = compare(*(one.logits.argmax(1) == split.labels for one in (measured, other)))
    if arguments.outliers:
        with requires_extra("train"):
            from model.evaluation.ood_sets import measure_detector

        findings["outliers"] = measure_detector(measured.engine, split.images)
    if arguments.suspects:
        probabilities = softmax(measured.logits / measured.card.temperature)
        findings["suspects"] = find_suspects(probabilities, split.labels, arguments.suspects)
    return findings


def draw(folder: Path, measured: Measured, split: Split, suspects: list[Suspect]) -> None:
    """Every picture there is, into ``folder``."""
    with requires_extra("train"):
        from model.plots.reliability import draw_reliability

    folder.mkdir(parents=True, exist_ok=True)
    card, figures = measured.card, measured.report
    (folder / "confusion.png").write_bytes(draw_confusion(figures.confusion_matrix, card.classes))
    (folder / "reliability.png").write_bytes(draw_reliability(figures.reliability, card.name))
    if suspects:
        index, predicted = [one.index for one in suspects], [one.predicted for one in suspects]
        picture = draw_gallery(split.images[index], split.labels[index], predicted, columns=min(8, len(index)))
        (folder / "suspects.png").write_bytes(picture)


def as_json(figures: Report, findings: dict[str, Any]) -> str:
    """The report and the findings for programs."""
    return json.dumps(figures.model_dump() | findings, indent=2, default=lambda model: model.model_dump())


def paragraphs(findings: dict[str, Any], other: str) -> list[str]:
    """The findings for people."""
    said = {
        "against": lambda comparison: against(comparison, other),
        "outliers": outliers,
        "suspects": doubtful,
    }
    return [said[name](finding) for name, finding in findings.items()]


def against(comparison: Comparison, other: str) -> str:
    """The comparison for people."""
    low, high = (f"{bound:+.2%}" for bound in comparison.interval)
    return (
        f"against {other}: {comparison.difference:+.2%} ({low} to {high}); right alone {comparison.only_first:,}, "
        f"the other alone {comparison.only_second:,}; McNemar's exact p = {comparison.p_value:.2g}"
    )


def outliers(aurocs: dict[str, float]) -> str:
    """How well strangers are told apart, for people."""
    lines = ["strangers, told from the test images by ood_score (AUROC):"]
    return "\n".join([*lines, *(f"{kind:12} {auroc:.3f}" for kind, auroc in aurocs.items())])


def doubtful(suspects: list[Suspect]) -> str:
    """The images that are most likely mislabelled, for people."""
    lines = [f"most likely mislabelled:\n{'test image':>12}  {'labelled':12} {'':>7}  {'looks like':12}"]
    lines += [
        f"{one.index:12}  {CLASSES[one.label]:12} {one.label_probability:7.2%}  "
        f"{CLASSES[one.predicted]:12} {one.predicted_probability:7.2%}"
        for one in suspects
    ]
    return "\n".join(lines)


def table(measured: Measured) -> str:
    """The report for people."""
    card, figures = measured.card, measured.report
    title = f"{card.name} {card.version}, {measured.engine.name}, {measured.seconds:.1f} s"
    low, high = (f"{bound:.2%}" for bound in figures.accuracy_interval)
    lines = [
        f"{title}: accuracy {figures.accuracy:.2%} ({low} to {high}) on {figures.count:,} test images",
        f"loss {figures.loss:.4f}, Brier score {figures.brier:.4f}, expected calibration error {figures.ece:.2%}",
        f"{'':12} {'precision':>9} {'recall':>9} {'F1':>9} {'support':>9}",
    ]
    lines += [f"{c.label:12} {c.precision:9.2%} {c.recall:9.2%} {c.f1:9.2%} {c.support:9,}" for c in figures.classes]
    return "\n".join(lines)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", dest="default_model", metavar="NAME", help="name of the model (FASHIONNET_DEFAULT_MODEL)")
    add_settings(parser, "model_dir", "data_dir", "engine")
    add("--against", metavar="NAME", help="compare with another model of the folder (McNemar's test)")
    add("--outliers", action="store_true", help="how well images of other things are detected (extra train)")
    add("--suspects", type=int, default=0, metavar="N", help="list the N test images most likely mislabelled")
    add(
        "--plots",
        type=user_path,
        metavar="FOLDER",
        help="draw confusion matrix, reliability and suspects (extra train)",
    )
    add("--json", action="store_true", help="everything, with the confusion matrix")
    arguments = parser.parse_args(argv)
    if arguments.suspects < 0:
        parser.error("--suspects is a number of images, 0 or more")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
