"""Grouped cross-validation of the photo model: how it does on photos of people whose photos did not train it.

The senders are split into five folds. For each fold a network is trained on the photos of the other four. Four folds
also leave one kind of photo out of training (hats, shorts, skirts, bodysuits), which shows how a kind that was never
seen is recognised. Each network is exported, so that its graph in 8 bits is measured on the same photos. Finished
folds are kept in RUNS, and a fold that was interrupted resumes.

python benchmarks/photo_cross_validation.py DIR [--seeds 1 2 3] [--write benchmarks/results/photo-cross-validation]
"""

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from app.settings import read_settings
from benchmarks.report import add_write, machine, table, write
from model import CLASSES, FashionMnist, usable_cores
from model.artifact import ModelCard, read_card
from model.cpu import keep_freed_memory
from model.engines import softmax
from model.errors import TrainingError
from model.evaluation.photos import PhotoPredictions, PhotoReport, as_text, photo_report
from model.evaluation.ranking import auroc
from model.export.photo import HeldOut, read_held_out
from model.export.temperature import fit_set_temperature
from model.ood.distance_score import add_distances
from model.ood.fit import fit_scale
from model.ood.photo_score import PHOTO_DISTANCE_WEIGHTS
from model.photos import Photos, assign_folds, read_training_photos
from model.training.command import epoch_line
from model.training.loop import Precision, RunConfig, choose_precision, describe_machine
from model.training.photo_examples import checksum, training_rows
from model.training.recipes import RECIPES
from model.training.run import HELD_OUT_FILE, Run
from model.training.run_folder import RunFolder

LEFT_OUT = ("Hat", "Skirt", "", "Shorts", "Body")
"""The kind that each fold leaves out of training: one of which the fold has many photos."""


def make_config(folder: Path, seed: int, fold: int, data_set: FashionMnist, precision: Precision) -> RunConfig:
    """Returns the configuration of the run that holds ``fold`` out."""
    return RunConfig(
        recipe=RECIPES["photo"],
        seed=seed,
        precision=precision,
        threads=usable_cores(),
        device="cpu",
        machine=describe_machine("cpu"),
        data=dict(data_set.checksums()),
        name="fashionnet-photo",
        photos_dir=str(folder.resolve()),
        photos=checksum(read_training_photos(folder)),
        fold=fold,
        folds=len(LEFT_OUT),
        left_out=LEFT_OUT[fold],
    )


def train_fold(config: RunConfig, path: Path, data_set: FashionMnist) -> None:
    """Trains the run, or what is left of it, and exports it; keeps the outputs for the photos that did not train it.

    Raises:
        TrainingError: the folder holds a run of another recipe, precision or list of photos.
    """
    folder = RunFolder(path)
    started = folder.config_file.exists()
    if started and not folder.read_config().trains_like(config):
        raise TrainingError(f"{path} holds another run: name another folder by --runs.")
    if (path / f"{config.name}.json").exists():
        return
    run = Run.resume(path, data_set) if started else Run.start(path, config, data_set)
    for metrics in run.epochs():
        print(f"{path.name}: {epoch_line(metrics, config.recipe.epochs)}", flush=True)
    run.export(path)


class UnknownKind(NamedTuple):
    """How photos of a kind that was left out of training are recognised; they and the others are of unseen people."""

    photos: int
    auroc: float
    """Of the OOD score, against the photos of the ten classes of the fold."""


class Figures(NamedTuple):
    """The figures of one seed."""

    report: PhotoReport
    """Each photo predicted by the network whose training had no photo of its sender."""
    unknown_kinds: dict[str, UnknownKind]
    accuracies: dict[str, float]
    """Of the graphs in full precision and in 8 bits, on the photos of the folds that were exported with both; and the
    number of these photos."""


def measure(photos: Photos, configs: Sequence[RunConfig], paths: Sequence[Path]) -> Figures:
    """Returns the figures of the finished folds. Temperature and scale of a fold are fitted on the other folds."""
    rows = [np.flatnonzero(~training_rows(photos, config)) for config in configs]
    held_out = [read_held_out([path / HELD_OUT_FILE]) for path in paths]
    folds = assign_folds(photos.senders, len(LEFT_OUT))
    probabilities, scores = np.zeros((len(folds), len(CLASSES))), np.zeros(len(folds))
    measured, unknown = np.zeros(len(folds), np.bool_), {}
    for config, some, own in zip(configs, rows, held_out, strict=True):
        others = [other for other in held_out if other is not own] or [own]
        logits, sets, distances = (np.concatenate(parts) for parts in zip(*map(known_rows, others), strict=True))
        temperature = fit_set_temperature(logits, sets[:, : len(CLASSES)])
        own_scores = add_distances(own.distances, *fit_scale(distances, PHOTO_DISTANCE_WEIGHTS))
        left_out = (photos.kinds[some] == config.left_out) & (folds[some] == config.fold)
        if left_out.any():  # other photos may not have this kind
            unknown[config.left_out] = UnknownKind(
                int(left_out.sum()), auroc(own_scores[own.known], own_scores[left_out])
            )
        of_fold = (folds[some] == config.fold) & (photos.kinds[some] != config.left_out)
        probabilities[some[of_fold]] = softmax(own.logits / np.float32(temperature))[of_fold]
        scores[some[of_fold]], measured[some[of_fold]] = own_scores[of_fold], True
    chosen = np.flatnonzero(measured)
    predictions = PhotoPredictions(probabilities[chosen], scores[chosen])
    report = photo_report(photos.take(chosen), predictions)
    return Figures(report, unknown, graph_accuracies([read_card(path, "fashionnet-photo") for path in paths]))


def graph_accuracies(cards: Sequence[ModelCard]) -> dict[str, float]:
    """Returns the accuracies on the held-out photos of the cards with both graphs, each photo counted once."""
    both = [card for card in cards if card.int8_metrics]
    count = sum(card.metrics["photos"].count for card in both)
    shares = {
        name: sum(card.metrics["photos"].count * getattr(card, name)["photos"].accuracy for card in both)
        for name in ("metrics", "int8_metrics")
    }
    return {name: share / max(count, 1) for name, share in shares.items()} | {"photos": count}


def known_rows(held_out: HeldOut) -> HeldOut:
    """Returns the photos of the ten classes."""
    return HeldOut(*(rows[held_out.known] for rows in held_out))


def as_json(found: dict[int, Figures], folds: Sequence[int], precision: Precision) -> dict[str, Any]:
    """Returns the figures by seed, and the folds that were measured."""
    return {
        "date": str(datetime.now(UTC).date()),
        "machine": describe_machine("cpu") | {"cores": str(usable_cores()), "precision": precision},
        "seeds": {
            seed: {
                "folds": folds,
                "report": figures.report.model_dump(),
                "unknown_kinds": {kind: one._asdict() for kind, one in figures.unknown_kinds.items()},
                "accuracies": figures.accuracies,
            }
            for seed, figures in found.items()
        },
    }


def as_markdown(found: dict[int, Figures], precision: Precision) -> str:
    """Returns the report of every seed."""
    parts = ["# Grouped cross-validation of the photo model"]
    for seed, (report, unknown, accuracies) in found.items():
        full, int8 = accuracies["metrics"], accuracies["int8_metrics"]
        kinds = ", ".join(f"{kind} {one.auroc:.3f} ({one.photos} photos)" for kind, one in unknown.items())
        parts += [
            f"## Seed {seed}",
            f"```text\n{as_text(report)}\n```",
            *([f"AUROC of kinds that were left out of training, of unseen people: {kinds}."] if kinds else []),
            f"Right of {accuracies['photos']:,} photos: {full:.2%}, in 8 bits {int8:.2%}.",
            confusion(report),
        ]
    made = f"Trained in {precision} on {machine()}; {datetime.now(UTC).date()}. Made by"
    return "\n\n".join([*parts, f"{made} `python benchmarks/photo_cross_validation.py DIR`."])


def confusion(report: PhotoReport) -> str:
    """Returns the table of predicted classes."""
    return table(("", *CLASSES), [(name, *map(str, one.predicted)) for name, one in report.classes.items()])


def main() -> None:
    """Trains the folds of every seed, prints the report and writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="labelled photos, see docs/photos.md")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(len(LEFT_OUT))))
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="as of scripts/train.py")
    parser.add_argument("--runs", type=Path, default=Path("runs/photo-cv"), help="folder of the runs")
    add_write(parser)
    arguments = parser.parse_args()
    keep_freed_memory()
    data_set, photos = FashionMnist(read_settings().data_dir), read_training_photos(arguments.folder)
    found, precision = {}, choose_precision(arguments.precision, "cpu")
    for seed in arguments.seeds:
        configs = [make_config(arguments.folder, seed, fold, data_set, precision) for fold in arguments.folds]
        paths = [arguments.runs / f"seed-{seed}-fold-{fold}" for fold in arguments.folds]
        for config, path in zip(configs, paths, strict=True):
            train_fold(config, path, data_set)
        found[seed] = measure(photos, configs, paths)
    text = as_markdown(found, precision)
    print(text)
    write(arguments.write, text + "\n", as_json(found, arguments.folds, precision))


if __name__ == "__main__":
    main()
