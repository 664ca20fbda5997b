"""Train a network on Fashion-MNIST and export it as a model that the service loads.

fashionnet train                             the recipe baseline, into runs/baseline-1
fashionnet train --dry-run                   one short epoch, to see that everything works
fashionnet train --resume runs/baseline-1    continue after Ctrl-C, a crash or a power cut
torchrun --nproc-per-node=4 scripts/train.py
    trains on four GPUs, or in four processes where there is none
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from app.command_line import add_renamed, add_settings, command_parser, run, settings_of
from model import FashionMnist
from model.files import user_path
from model.installation import requires_extra


def main(argv: Sequence[str] | None = None) -> int:
    """Parses, trains, exports; returns the exit status."""
    return run(partial(train, parse_arguments(argv)))


def train(arguments: argparse.Namespace) -> int:
    """Trains in the run folder that the command line names, or in a temporary one."""
    settings = settings_of(arguments)
    with requires_extra("train"):
        from model.training.command import run_training

    arguments.model_dir = settings.model_dir
    data_set = FashionMnist(settings.data_dir)
    data_set.download(settings.data_url)
    if not arguments.dry_run:
        return run_training(arguments, data_set, arguments.resume or arguments.out)
    with tempfile.TemporaryDirectory() as folder:
        return run_training(arguments, data_set, Path(folder))


DEFAULTS = {"recipe": "baseline", "seed": 1, "fold": "0", "precision": "auto"}
"""Values of flags that are not given. The parser knows none, so that a flag with its default is noticed too."""
MODEL_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
SETTINGS_OF_A_RUN = (
    "dry_run", "recipe", "seed", "out", "fold", "name", "precision", "device", "threads",
)  # fmt: skip


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the command line; needs no PyTorch."""
    parser = create_parser()
    arguments = parser.parse_args(argv)
    check_values(parser, arguments)
    refuse_ignored(parser, arguments)
    for name, value in DEFAULTS.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    if arguments.recipe == "seed":
        print("warning: the recipe seed is deprecated: use baseline.", file=sys.stderr)
        arguments.recipe = "baseline"
    arguments.out = arguments.out or Path("runs", f"{arguments.recipe}-{arguments.seed}")
    return arguments


def check_values(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Exits with a sentence if a number is out of its range."""
    if arguments.target_accuracy is not None and not 0 <= arguments.target_accuracy <= 1:
        parser.error("--target-accuracy is a fraction between 0 and 1, such as 0.925")
    if arguments.seed is not None and not 0 <= arguments.seed < 2**63:
        parser.error("--seed is at least 0 and less than 2**63")
    if min(value for value in (arguments.epochs, arguments.threads, 1) if value is not None) < 1:
        parser.error("--epochs and --threads are at least 1")
    # The export writes NAME.json into the run folder, which has a config.json.
    if arguments.name and (not MODEL_NAME.fullmatch(arguments.name) or arguments.name == "config"):
        parser.error(
            "--name has at most 64 letters, digits and the characters . _ -, begins with a letter or digit, "
            "and is not config"
        )


def refuse_ignored(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Exits with a sentence if a flag would be ignored because of another one."""
    if arguments.resume:
        refuse(parser, arguments, SETTINGS_OF_A_RUN, "is a setting of the run that --resume continues")
    elif arguments.recipe != "photo":
        refuse(parser, arguments, ("photos_dir", "fold", "held_out"), "belongs to --recipe photo")
    elif arguments.fold != "none":
        refuse(parser, arguments, ("held_out",), "calibrates a run with --fold none")
    if arguments.dry_run:
        refuse(parser, arguments, ("out", "publish_to", "tracker"), "does nothing with --dry-run, which keeps nothing")
    if arguments.no_export:
        refuse(parser, arguments, ("publish_to", "target_accuracy"), "needs the export, which --no-export omits")


def refuse(parser: argparse.ArgumentParser, arguments: argparse.Namespace, names: Sequence[str], reason: str) -> None:
    """Exits with a sentence if one of these flags is given, which would be ignored."""
    for name in names:
        value = getattr(arguments, name)
        if value not in (None, []) and value is not False:
            parser.error(f"--{name.replace('_', '-')} {reason}: leave it out")


def create_parser() -> argparse.ArgumentParser:
    """Returns the parser, with the flags' names of version 0.1 too."""
    parser = command_parser("train", __doc__)
    add = parser.add_argument
    add(
        "--recipe",
        help="baseline (default), fast, best, photo, deep, teacher or residual; docs/model.md describes them",
    )
    add("--epochs", type=int, help="number of epochs (default: the recipe's)")
    add("--seed", type=int, help="decides initial weights, order, dropout and validation set (default: 1)")
    add("--out", type=user_path, help="run folder (default: runs/RECIPE-SEED)")
    add("--resume", type=user_path, metavar="RUN", help="continue the run in this folder exactly where it stopped")
    add("--dry-run", action="store_true", help="one epoch of 1,280 images in a temporary folder")
    add_settings(parser, "data_dir")
    add("--photos-dir", type=user_path, metavar="DIR", help="labelled photos, for the recipe photo (docs/photos.md)")
    add(
        "--fold",
        choices=["0", "1", "2", "3", "4", "none"],
        help="fifth of the photos, by sender, that validates and calibrates; none: all photos train (default: 0)",
    )
    add(
        "--held-out",
        type=user_path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="with --fold none: the files held-out.npz of the runs of all folds, which calibrate the model",
    )
    teacher_dir = add(
        "--teacher-dir", type=user_path, help="folder of the models that teach (default: the served models)"
    )
    add("--name", help="name of the model (default: the architecture's)")
    add("--no-export", action="store_true", help="train only; --resume RUN exports the model later")
    publish_to = add(
        "--publish-to", type=user_path, metavar="FOLDER", help="write the model here too, e.g. model/weights"
    )
    add("--target-accuracy", type=float, metavar="A", help="exit status 1 if the test accuracy (0..1) is below")
    tracker = add(
        "--tracker", choices=["mlflow", "tensorboard"], action="append", default=[], help="log there too; repeatable"
    )
    add("--precision", choices=["auto", "fp32", "bf16"], help="auto (default): bf16 if the device supports it")
    add("--device", choices=["cpu", "cuda"], help="default: cuda if there is a GPU")
    add("--threads", type=int, help="PyTorch threads of each process (default: the usable cores)")
    for old, new in (("--parents-dir", teacher_dir), ("--release", publish_to), ("--log", tracker)):
        add_renamed(parser, old, new)
    return parser
