"""Train a network on Fashion-MNIST and release it as an artefact that the service loads.

python scripts/train.py                          the seed recipe, into runs/seed-1
python scripts/train.py --dry-run                one short epoch, to see that everything works
python scripts/train.py --resume runs/seed-1     go on after Ctrl-C, a crash or a power cut
torchrun --nproc-per-node=4 scripts/train.py     on four GPUs, or in four processes: the same network, sooner
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from typing import TextIO

import torch

from app.settings import Settings, SettingsError, read_settings
from model.artifact import ModelCard, read_card
from model.cpu import keep_freed_memory, usable_cores
from model.data import FashionMnist
from model.errors import ArtifactMissing, FashionNetError, TrainingError
from model.network import create_network
from model.training import processes
from model.training.loop import EpochMetrics, RunConfig, choose_precision, describe_machine
from model.training.recipes import RECIPES, Recipe
from model.training.run import Run, resume_command
from model.training.trackers import TRACKERS, figures_of_card, figures_of_epoch, followed

DRY_RUN_IMAGES = 1280
STOPPED = 130  # what a shell reports of a program ended by Ctrl-C


class Terminated(KeyboardInterrupt):
    """Told to end: by whoever sends SIGTERM, or by torchrun because another process is gone, perhaps the first."""


def terminate(*_: object) -> None:
    """Handle SIGTERM as Ctrl-C is handled."""
    raise Terminated


def main() -> int:
    """Parse, train, release; returns the exit status."""
    signal.signal(signal.SIGTERM, terminate)
    keep_freed_memory()
    try:
        with processes.joined():
            return run_command()
    except (FashionNetError, SettingsError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run_command() -> int:
    """What the command line asks for."""
    settings = read_settings()
    arguments = parse_arguments(settings)
    path = arguments.resume or arguments.out
    try:
        if not arguments.dry_run:
            return train(arguments, settings, path)
        with tempfile.TemporaryDirectory() as folder:
            return train(arguments, settings, Path(folder))
    except RuntimeError as error:
        if not processes.lost_a_peer(error):
            raise
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, which has noticed it too
        print(
            "error: Another process of this run has ended. Every completed epoch is saved; go on with:", file=sys.stderr
        )
        print(f"  {resume_command(path, processes.size())}", file=sys.stderr)
        return 2


def train(arguments: argparse.Namespace, settings: Settings, path: Path) -> int:
    """One run, new or resumed, to its artefact."""
    data_set = FashionMnist(arguments.data_dir)
    data_set.download(settings.data_url)
    run = open_run(arguments, path, data_set)
    say(opening(run))
    try:
        card = follow(arguments, run, path)
    except KeyboardInterrupt as stop:
        if processes.rank() == 0 or isinstance(stop, Terminated):  # the first may not live to say it
            print(stopped(run.trainer.epoch, resume_command(path, processes.size())), file=sys.stderr)
        return STOPPED
    if card is None:
        return 0
    print(closing(card, path, kept=not arguments.dry_run))
    return below_target(card, arguments.target_accuracy)


def follow(arguments: argparse.Namespace, run: Run, path: Path) -> ModelCard | None:
    """Train and release, telling of it as asked; the card, or None in any process but the first."""
    first = processes.rank() == 0
    with followed(run, arguments.log if first else []) as log:
        for metrics in run.epochs():
            say(epoch_line(metrics, run.config.recipe.epochs))
            log(metrics.epoch, figures_of_epoch(metrics))
        if not first:
            return None
        say("Exporting, calibrating and measuring, which takes a minute or two ...", sys.stderr)
        card = run.release(path, *([arguments.release] if arguments.release else []))
        log(run.trainer.epoch, figures_of_card(card))
        return card


def say(text: str, file: TextIO = sys.stdout) -> None:
    """Print, if this is the first of the processes."""
    if processes.rank() == 0:
        print(text, file=file, flush=True)


def open_run(arguments: argparse.Namespace, path: Path, data_set: FashionMnist) -> Run:
    """Resume the run in ``path``, or start one there."""
    if arguments.resume:
        return Run.resume(path, data_set, arguments.epochs)
    recipe = RECIPES[arguments.recipe]
    epochs = arguments.epochs or (1 if arguments.dry_run else recipe.epochs)
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    config = RunConfig(
        recipe=recipe.model_copy(update={"epochs": epochs}),
        seed=arguments.seed,
        precision=choose_precision(arguments.precision, device),
        threads=arguments.threads,
        processes=processes.size(),
        device=device,
        machine=describe_machine(device),
        data=dict(data_set.checksums()),
        name=arguments.name or create_network(recipe.architecture).folded().architecture,
        limit=DRY_RUN_IMAGES if arguments.dry_run else None,
        parents_folder=str(arguments.parents_dir.resolve()) if recipe.parents else "",
        parents=parents(recipe, arguments.parents_dir),
    )
    return Run.start(path, config, data_set)


def parents(recipe: Recipe, folder: Path) -> dict[str, str]:
    """The versions of the networks in ``folder`` that the recipe needs, by name."""
    try:
        return {name: read_card(folder, name).version for name in recipe.parents}
    except ArtifactMissing:
        raise TrainingError(
            f"The recipe {recipe.name} needs {' and '.join(recipe.parents)}, not to be found in {folder}: name the "
            "folder by --parents-dir, or train it first (docs/model.md says by which recipe)."
        ) from None


def opening(run: Run) -> str:
    """What is about to be trained, in one line."""
    config, images = run.config, len(run.trainer.train_labels)
    together = f"{config.processes} processes with " if config.processes > 1 else ""
    begun = f", {run.trainer.epoch} of them done" if run.trainer.epoch else ""
    return (
        f"recipe {config.recipe.name}, seed {config.seed}: {config.recipe.epochs} epochs{begun} of {images:,} images "
        f"on {config.device} ({together}{config.threads} threads, {config.precision}), into {run.folder.path}"
    )


def stopped(epochs: int, command: str) -> str:
    """What an interrupted run leaves, and how to go on."""
    return f"\nStopped after {epochs} completed epochs, which are saved. Go on with:\n  {command}"


def epoch_line(metrics: EpochMetrics, epochs: int) -> str:
    """One epoch in one line."""
    return (
        f"epoch {metrics.epoch:{len(str(epochs))}}/{epochs}  "
        f"train loss {metrics.train_loss:.4f} accuracy {metrics.train_accuracy:7.2%}  "
        f"validation loss {metrics.validation_loss:.4f} accuracy {metrics.validation_accuracy:7.2%}  "
        f"lr {metrics.learning_rate:.2g}  {metrics.seconds:.1f} s, {metrics.images_per_second:,.0f} images/s"
    )


def closing(card: ModelCard, path: Path, *, kept: bool) -> str:
    """What came out, and what to do with it."""
    test = card.metrics["test"]
    figures = f"test accuracy {test.accuracy:.2%}, loss {test.loss:.4f} ({test.count:,} images)\n"
    if not kept:
        return figures + "Everything works; nothing was kept."
    return figures + (
        f"Wrote {path / card.name}.safetensors, .onnx and .json. Serve it:  FASHIONNET_MODEL_DIR={path} make serve"
    )


def below_target(card: ModelCard, target: float | None) -> int:
    """Exit status 1, with a sentence, where the test accuracy is below ``target``."""
    accuracy = card.metrics["test"].accuracy
    if target is None or accuracy >= target:
        return 0
    print(f"The test accuracy {accuracy:.2%} is below the target {target:.2%}.", file=sys.stderr)
    return 1


def parse_arguments(settings: Settings) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--recipe", choices=sorted(RECIPES), default="seed", help="what to train and how (default: seed)")
    add("--epochs", type=int, help="epochs in all (default: the recipe's)")
    add("--seed", type=int, default=1, help="decides initial weights, order, dropout and validation set (default: 1)")
    add("--out", type=Path, help="the run folder (default: runs/RECIPE-SEED)")
    add("--resume", type=Path, metavar="RUN", help="go on with the run in this folder, exactly where it stopped")
    add("--dry-run", action="store_true", help=f"one epoch of {DRY_RUN_IMAGES} images in a folder that is thrown away")
    add("--data-dir", type=Path, default=settings.data_dir, help="holds FashionMNIST/raw (default: %(default)s)")
    add("--parents-dir", type=Path, default=settings.model_dir, help="where teachers lie (default: %(default)s)")
    add("--name", help="name of the artefact (default: the architecture's)")
    add("--release", type=Path, metavar="FOLDER", help="write the artefact here too, e.g. model/weights")
    add("--target-accuracy", type=float, metavar="A", help="exit status 1 where the test accuracy (0..1) is below")
    add("--log", choices=sorted(TRACKERS), action="append", default=[], help="follow the run there too; repeatable")
    add("--precision", choices=["auto", "fp32", "bf16"], default="auto", help="auto: bf16 where the device has it")
    add("--device", choices=["cpu", "cuda"], help="default: cuda where there is one")
    threads = max(1, usable_cores() // processes.size())
    add("--threads", type=int, default=threads, help="torch threads a process (default: its usable cores, %(default)s)")
    arguments = parser.parse_args()
    if arguments.target_accuracy is not None and not 0 <= arguments.target_accuracy <= 1:
        parser.error("--target-accuracy is a fraction between 0 and 1, such as 0.925")
    epochs = 1 if arguments.epochs is None else arguments.epochs
    if min(epochs, arguments.threads) < 1:
        parser.error("--epochs and --threads are at least 1")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no GPU here; leave the option out to train on the CPU")
    arguments.out = arguments.out or Path("runs", f"{arguments.recipe}-{arguments.seed}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
