"""Measure an artefact on the test set: what GET /evaluate answers, on the command line, and more.

python scripts/evaluate.py                                      accuracy, calibration, every class
python scripts/evaluate.py --against fashionnet-deep            is the other one better, or luckier?
python scripts/evaluate.py --outliers --suspects 20 --plots .   strangers, doubtful labels, pictures
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from app.settings import Settings, SettingsError, read_settings
from model import (
    CLASSES,
    Engine,
    EngineName,
    FashionMnist,
    FashionNetError,
    ModelCard,
    Report,
    Split,
    chunks,
    create_engine,
    draw_confusion,
    draw_gallery,
    load_for_engine,
    report,
    softmax,
    usable_cores,
)
from model.comparison import Comparison, compare
from model.suspects import Suspect, find_suspects


class Measured(NamedTuple):
    """One artefact on the test set."""

    card: ModelCard
    engine: Engine
    logits: NDArray[np.float32]
    """``[N, 10]``"""
    report: Report
    seconds: float


def main() -> int:
    """Measure and print; returns the exit status."""
    try:
        settings = read_settings()
        arguments = parse_arguments(settings)
        split = FashionMnist(arguments.data_dir).load("test")
        measured = measure(arguments, arguments.model, split)
        findings = find(arguments, measured, split)
        if arguments.plots:
            draw(arguments.plots, measured, split, findings.get("suspects", []))
    except (FashionNetError, SettingsError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(as_json(measured.report, findings))
    else:
        print("\n\n".join([table(measured), *paragraphs(findings, arguments.against)]))
    return 0


def measure(arguments: argparse.Namespace, name: str, split: Split) -> Measured:
    """The artefact ``name`` on ``split``, with a progress bar."""
    artifact = load_for_engine(arguments.engine, arguments.model_dir, name)
    engine = create_engine(arguments.engine, artifact, usable_cores())
    start, logits = time.perf_counter(), []
    with tqdm(total=len(split.labels), desc=name, unit=" images", leave=False, disable=None) as bar:
        for chunk in chunks(split.images):
            logits.append(engine.run(chunk).logits)
            bar.update(len(chunk))
    seconds, together = time.perf_counter() - start, np.concatenate(logits)
    figures = report(together, split.labels, temperature=artifact.card.temperature)
    return Measured(artifact.card, engine, together, figures, seconds)


def find(arguments: argparse.Namespace, measured: Measured, split: Split) -> dict[str, Any]:
    """What was asked for beside the report."""
    findings: dict[str, Any] = {}
    if arguments.against:
        rights = [
            one.logits.argmax(1) == split.labels for one in (measured, measure(arguments, arguments.against, split))
        ]
        findings["against"] = compare(*rights)
    if arguments.outliers:
        from model.training.outliers import measure_detector

        findings["outliers"] = measure_detector(measured.engine, split.images)
    if arguments.suspects:
        probabilities = softmax(measured.logits / measured.card.temperature)
        findings["suspects"] = find_suspects(probabilities, split.labels, arguments.suspects)
    return findings


def draw(folder: Path, measured: Measured, split: Split, suspects: list[Suspect]) -> None:
    """Every picture there is, into ``folder``."""
    from model.training.reliability_diagram import draw_reliability

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


def parse_arguments(settings: Settings) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", default=settings.default_model, help="name of the artefact (default: %(default)s)")
    add("--model-dir", type=Path, default=settings.model_dir, help="its folder (default: the committed weights)")
    add("--data-dir", type=Path, default=settings.data_dir, help="holds FashionMNIST/raw (default: %(default)s)")
    add("--engine", choices=get_args(EngineName), default=settings.engine, help="default: %(default)s")
    add("--against", metavar="NAME", help="compare with another artefact of the folder (McNemar's test)")
    add("--outliers", action="store_true", help="how well images of other things are told apart (extra 'train')")
    add("--suspects", type=int, default=0, metavar="N", help="list the N test images most likely mislabelled")
    add("--plots", type=Path, metavar="FOLDER", help="draw confusion matrix, reliability diagram and suspects into it")
    add("--json", action="store_true", help="everything, with the confusion matrix")
    arguments = parser.parse_args()
    if arguments.suspects < 0:
        parser.error("--suspects is a number of images, 0 or more")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
