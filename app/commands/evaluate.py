"""Measure a model on the test set, as GET /evaluate does, and more.

fashionnet evaluate                                      accuracy, calibration, figures per class
fashionnet evaluate --compare-with fashionnet-deep       McNemar's test against another model
fashionnet evaluate --ood --label-issues 20 --plots .    OOD detection, probable label errors, plots
fashionnet evaluate --photos DIR --plots .               photos, as the service answers them (docs/photos.md)
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.command_line import add_renamed, add_settings, command_parser, run, settings_of
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
from model.artifact import require_artifact
from model.engines import load_for_engine, softmax
from model.errors import DataMissing, ImageError
from model.evaluation import report
from model.evaluation.comparison import Comparison, compare
from model.evaluation.label_issues import LabelIssue, find_label_issues
from model.evaluation.photos import PhotoPredictions, PhotoReport, as_text, photo_report
from model.evaluation.report import run_data_set
from model.files import user_path
from model.installation import requires_extra
from model.offline.folder import classify_files
from model.offline.tables import Outcome
from model.photos import NONE, Photos, read_photos
from model.plots import draw_confusion
from model.prediction import LoadedModel, ModelPair, Prediction, load_model_pair
from model.preprocessing.decode import DecodeLimits, decode
from model.progress import progress_bar


class EvaluatedModel(NamedTuple):
    """A model on the test set."""

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
    """Measures what the command line asks for and prints it."""
    settings = settings_of(arguments)
    if arguments.plots:
        with requires_extra("train"):
            import_module("model.plots.reliability")  # before anything is measured
    for name in filter(None, (arguments.default_model, arguments.compare_with)):
        require_artifact(settings.model_dir, name)
    names = settings.models_among(list_artifacts(settings.model_dir))
    if arguments.photos:
        return print_photo_evaluation(arguments, settings, names)
    model = names.default
    split = FashionMnist(settings.data_dir).load("test")
    evaluation = evaluate_model(settings, model, split)
    extras = measure_extras(arguments, settings, evaluation, split)
    if arguments.json:
        print(as_json(evaluation.report, extras), flush=True)
    else:
        print("\n\n".join([table(evaluation), *paragraphs(extras, arguments.compare_with)]), flush=True)
    if arguments.plots:
        draw(arguments.plots, evaluation, split, extras.get("label_issues", []))
    return 0


def evaluate_model(settings: Settings, name: str, split: Split) -> EvaluatedModel:
    """Runs the model ``name`` on ``split``, with a progress bar."""
    artifact = load_for_engine(settings.engine, settings.model_dir, name)
    engine = create_engine(settings.engine, artifact, usable_cores())
    start = time.perf_counter()
    with progress_bar(name, len(split.labels), "images") as bar:
        logits = run_data_set(engine, split.images, artifact.card.input, bar.update).logits
    seconds = time.perf_counter() - start
    figures = report(logits, split.labels, temperature=artifact.card.temperature)
    return EvaluatedModel(artifact.card, engine, logits, figures, seconds)


def measure_extras(
    arguments: argparse.Namespace, settings: Settings, evaluation: EvaluatedModel, split: Split
) -> dict[str, Any]:
    """Returns the optional results by name."""
    extras: dict[str, Any] = {}
    if arguments.compare_with:
        other = evaluate_model(settings, arguments.compare_with, split)
        extras["comparison"] = compare(*(one.logits.argmax(1) == split.labels for one in (evaluation, other)))
    if arguments.ood:
        with requires_extra("train"):
            from model.evaluation.ood_sets import measure_ood_auroc

        extras["ood_auroc"] = measure_ood_auroc(evaluation.engine, split.images, evaluation.card.input)
    if arguments.label_issues:
        probabilities = softmax(evaluation.logits / evaluation.card.temperature)
        extras["label_issues"] = find_label_issues(probabilities, split.labels, arguments.label_issues)
    return extras


def print_photo_evaluation(arguments: argparse.Namespace, settings: Settings, names: ModelPair[str]) -> int:
    """Measures labelled photos as the service answers them, and in the way of a tutorial; returns the exit status."""
    photos = read_photos(arguments.photos)
    if not (photos.classes != NONE).any():
        raise DataMissing(
            f"No photo in {arguments.photos} shows one of the ten classes: add some, for example in Dress/."
        )
    if arguments.default_model:
        names = ModelPair(arguments.default_model, arguments.default_model)
    models = load_model_pair(settings.engine, settings.model_dir, names, usable_cores())
    start = time.perf_counter()
    predictions = predict_photos(photos, models, settings.max_pixels)
    seconds = time.perf_counter() - start
    figures = photo_report(photos, predictions)
    tutorial = tutorial_accuracy(photos, models.default, settings.max_pixels)
    if arguments.json:
        print(as_json(figures, {"tutorial_accuracy": tutorial, "seconds": seconds}), flush=True)
    else:
        print(f"{as_text(figures)}\n{len(photos.files) / seconds:,.0f} photos per second with {usable_cores()} cores")
        way = f"the tutorial's way (grey, resized to 28x28, inverted, by {models.default.card.name})"
        print(f"{way}: {tutorial:.1%}", flush=True)
    if arguments.plots:
        draw_photo_plots(arguments.plots, figures, models.photos.card.name)
    return 0


def predict_photos(photos: Photos, models: ModelPair[LoadedModel], max_pixels: int) -> PhotoPredictions:
    """Returns the predictions for the photos; raises ImageError if one cannot be read."""
    outcomes = classify_files(photos.files, models, threads=usable_cores(), max_pixels=max_pixels)
    bar = progress_bar("classified", len(photos.files), "photos", outcomes)
    found = [prediction_of(outcome) for outcome in bar]
    probabilities = np.array([list(prediction.probabilities.values()) for prediction in found])
    return PhotoPredictions(probabilities, np.array([prediction.ood_score for prediction in found]))


def prediction_of(outcome: Outcome) -> Prediction:
    """Returns the prediction of an outcome; raises ImageError if there is none."""
    if outcome.prediction is None:
        raise ImageError(f"{outcome.file}: {outcome.error}")
    return outcome.prediction


def tutorial_accuracy(photos: Photos, model: LoadedModel, max_pixels: int) -> float:
    """Returns the accuracy on the ten classes of grey photos that are resized to 28x28 and inverted."""
    limits = DecodeLimits(max_pixels)
    rows = np.flatnonzero(photos.classes != NONE)
    images = np.empty((len(rows), 28, 28), np.uint8)
    for place, index in enumerate(progress_bar("resized", len(rows), "photos", rows)):
        grey = decode(photos.files[index].read_bytes(), limits, min_edge=56).image.convert("L")
        images[place] = 255 - np.asarray(grey.resize((28, 28)))
    predicted = run_data_set(model.engine, images, model.card.input).logits.argmax(1)
    return float(photos.sets[rows, predicted].mean())


def draw_photo_plots(folder: Path, figures: PhotoReport, name: str) -> None:
    """Draws confusion matrix and reliability diagram into ``folder``."""
    with requires_extra("train"):
        from model.plots.reliability import draw_reliability

    folder.mkdir(parents=True, exist_ok=True)
    empty = [0] * len(CLASSES)
    counts = [figures.classes[label].predicted if label in figures.classes else empty for label in CLASSES]
    (folder / "photo-confusion.png").write_bytes(draw_confusion(counts, CLASSES))
    (folder / "photo-reliability.png").write_bytes(draw_reliability(figures.reliability, name))


def draw(folder: Path, evaluation: EvaluatedModel, split: Split, issues: list[LabelIssue]) -> None:
    """Draws confusion matrix, reliability diagram and, if there are any, label issues into ``folder``."""
    with requires_extra("train"):
        from model.plots.reliability import draw_reliability

    folder.mkdir(parents=True, exist_ok=True)
    card, figures = evaluation.card, evaluation.report
    (folder / "confusion.png").write_bytes(draw_confusion(figures.confusion_matrix, card.classes))
    (folder / "reliability.png").write_bytes(draw_reliability(figures.reliability, card.name))
    if issues:
        index, predicted = [issue.index for issue in issues], [issue.predicted for issue in issues]
        picture = draw_gallery(split.images[index], split.labels[index], predicted, columns=min(8, len(index)))
        (folder / "label-issues.png").write_bytes(picture)


def as_json(figures: Report | PhotoReport, extras: dict[str, Any]) -> str:
    """Returns the report and the optional results as JSON."""
    return json.dumps(figures.model_dump() | extras, indent=2, default=lambda model: model.model_dump())


def paragraphs(extras: dict[str, Any], other: str) -> list[str]:
    """Returns the optional results as text."""
    describe: dict[str, Callable[[Any], str]] = {
        "comparison": partial(comparison_text, other),
        "ood_auroc": ood_text,
        "label_issues": label_issues_text,
    }
    return [describe[name](result) for name, result in extras.items()]


def comparison_text(other: str, comparison: Comparison) -> str:
    """Describes the comparison with the model ``other``."""
    low, high = (f"{bound:+.2%}" for bound in comparison.interval)
    return (
        f"compared with {other}: {comparison.difference:+.2%} ({low} to {high}); correct where {other} is wrong "
        f"{comparison.only_first:,}, wrong where it is correct {comparison.only_second:,}; "
        f"McNemar's exact p = {comparison.p_value:.2g}"
    )


def ood_text(aurocs: dict[str, float]) -> str:
    """Describes how well ``ood_score`` separates OOD images from the test images."""
    lines = ["OOD images against test images, AUROC of ood_score:"]
    return "\n".join([*lines, *(f"{kind:12} {auroc:.3f}" for kind, auroc in aurocs.items())])


def label_issues_text(issues: list[LabelIssue]) -> str:
    """Lists the test images that are most likely mislabelled."""
    lines = [f"most likely mislabelled:\n{'test image':>12}  {'label':12} {'':>7}  {'predicted':12}"]
    lines += [
        f"{issue.index:12}  {CLASSES[issue.label]:12} {issue.label_probability:7.2%}  "
        f"{CLASSES[issue.predicted]:12} {issue.predicted_probability:7.2%}"
        for issue in issues
    ]
    return "\n".join(lines)


def table(evaluation: EvaluatedModel) -> str:
    """Returns the report as text."""
    card, figures = evaluation.card, evaluation.report
    title = f"{card.name} {card.version}, {evaluation.engine.name}, {evaluation.seconds:.1f} s"
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
    parser = command_parser("evaluate", __doc__)
    add = parser.add_argument
    add("--model", dest="default_model", metavar="NAME", help="name of the model (FASHIONNET_DEFAULT_MODEL)")
    add_settings(parser, "model_dir", "data_dir", "engine")
    compare_with = add("--compare-with", metavar="NAME", help="compare with another model (McNemar's test)")
    ood = add("--ood", action="store_true", help="measure the detection of out-of-distribution images (extra train)")
    issues = add("--label-issues", type=int, default=0, metavar="N", help="list the N most likely mislabelled images")
    add("--photos", type=user_path, metavar="DIR", help="measure labelled photos instead: labels.csv, or class folders")
    add("--plots", type=user_path, metavar="FOLDER", help="draw confusion matrix and calibration (extra train)")
    add("--json", action="store_true", help="print everything as JSON, with the confusion matrix")
    for old, new in {"--against": compare_with, "--outliers": ood, "--suspects": issues}.items():
        add_renamed(parser, old, new)
    arguments = parser.parse_args(argv)
    if arguments.label_issues < 0:
        parser.error("--label-issues is a number of images, 0 or more")
    if arguments.photos and (arguments.ood or arguments.label_issues or arguments.compare_with):
        parser.error("--photos measures photos alone: leave out --ood, --label-issues and --compare-with")
    return arguments
