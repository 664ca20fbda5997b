"""Make the graphs and the figures of an artefact anew from its weights, without training.

fashionnet export fashionnet              write into the folder of the model
fashionnet export fashionnet --out /tmp   write into another folder, to check the result first
fashionnet export fashionnet --figures    the figures alone, of the graphs that are there

The figures of a photo model need the files held-out.npz of runs of its recipe, which calibrate its confidence too:
fashionnet export fashionnet-photo --figures --held-out runs/photo-cv/seed-1-*/held-out.npz
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

from app.command_line import add_settings, command_parser, run, settings_of
from model import FashionMnist, load_artifact
from model.artifact import Artifact, ModelCard, require_artifact, save_artifact, save_card
from model.cpu import keep_freed_memory
from model.errors import TrainingError
from model.files import user_path
from model.installation import requires_extra


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, exports, measures, writes; returns the exit status."""
    return run(partial(export_again, parse_arguments(argv)))


def export_again(arguments: argparse.Namespace) -> int:
    """Exports the weights again and prints the accuracies."""
    settings = settings_of(arguments)
    require_artifact(settings.model_dir, arguments.name)
    artifact = load_artifact(settings.model_dir, arguments.name)
    of_photos = require_held_out(arguments, artifact.card)
    keep_freed_memory()
    with requires_extra("train"):
        from model.export.build import export, with_figures
        from model.export.photo import calibrated, read_held_out, with_photo_figures
        from model.network import load_network
        from model.training.run import recipe_and_seed, training_splits

    card = artifact.card
    data_set = data_set_of(card, settings.data_dir)
    train, validation = training_splits(data_set, *recipe_and_seed(card))
    splits = {"validation": validation, "test": data_set.load("test")}
    print("Exporting and measuring, which takes a minute or two ...", file=sys.stderr)
    folder = arguments.out or settings.model_dir
    if of_photos:
        held_out = read_held_out(arguments.held_out)
        artifact = Artifact(calibrated(card, held_out), artifact.content)
        written = save_card(folder, with_photo_figures(artifact, held_out, splits, None).card)
    elif arguments.figures:
        written = save_card(folder, with_figures(artifact, splits).card)
    else:
        training = card.training | {"onnxruntime": version("onnxruntime")}
        fresh = export(load_network(artifact), card.model_copy(update={"training": training}), train, splits)
        written = save_artifact(folder, fresh.card, fresh.content)
    for precision, figures in (("full precision", written.metrics), ("8 bits", written.int8_metrics)):
        shown = ", ".join(f"{split} {metrics.accuracy:.2%}" for split, metrics in figures.items())
        print(f"{precision}: {shown or 'none, it lost too much accuracy'}")
    return 0


def require_held_out(arguments: argparse.Namespace, card: ModelCard) -> bool:
    """Returns whether it is a photo model; raises TrainingError if the command line lacks what its figures need."""
    of_photos = card.input.convention == "photo"
    if arguments.held_out and not of_photos:
        raise TrainingError(f"{card.name} is no photo model, so no held-out photo calibrates it: leave out --held-out.")
    if of_photos and not (arguments.figures and arguments.held_out):
        raise TrainingError(
            f"{arguments.name} is calibrated on photos: export it from its run by fashionnet train --resume RUN, or "
            "measure it by --figures with the file held-out.npz of a run by --held-out."
        )
    return of_photos


def data_set_of(card: ModelCard, folder: Path) -> FashionMnist:
    """Returns the data set in ``folder``; raises TrainingError if it is not the one that trained the model."""
    data_set = FashionMnist(folder)
    if dict(data_set.checksums()) != card.data:
        raise TrainingError(f"{folder} holds another data set than the one that {card.name} was trained on.")
    return data_set


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the command line."""
    parser = command_parser("export", __doc__)
    parser.add_argument("name", help="name of the model, such as fashionnet")
    parser.add_argument("--out", type=user_path, help="folder to write (default: the folder of the model)")
    parser.add_argument("--figures", action="store_true", help="measure the graphs that are there; write only the card")
    parser.add_argument(
        "--held-out",
        type=user_path,
        nargs="+",
        metavar="FILE",
        help="files held-out.npz of training runs; required with --figures for a photo model",
    )
    add_settings(parser, "model_dir", "data_dir")
    return parser.parse_args(argv)
