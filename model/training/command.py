"""A training run on the command line: the part of ``scripts/train.py`` that needs PyTorch."""

import errno
import signal
import sys
from argparse import Namespace
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, TextIO

import torch

from model.artifact import ModelCard, read_card
from model.cpu import keep_freed_memory, usable_cores
from model.data import FashionMnist
from model.errors import ArtifactMissing, TrainingError
from model.export.photo import read_held_out
from model.installation import serve_command
from model.network import create_network
from model.photos import read_training_photos
from model.training import distributed
from model.training.loop import EpochMetrics, RunConfig, choose_precision, describe_machine
from model.training.photo_examples import checksum
from model.training.recipes import RECIPES, Recipe
from model.training.run import Run, resume_command
from model.training.run_folder import RunFolder
from model.training.trackers import figures_of_card, figures_of_epoch, tracking

DRY_RUN_IMAGES = 1280
NOTHING_KEPT = "Everything works; nothing was kept."
STOPPED = 130  # the exit status that shells report after Ctrl-C
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, from a person or from torchrun after another process of the run has ended."""


class Signals:
    """Makes SIGTERM, and SIGHUP when a terminal closes, end the run like Ctrl-C."""

    def __init__(self) -> None:
        self._received: type[KeyboardInterrupt] | None = None
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            if number and signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                signal.signal(number, self._end)

    def _end(self, number: int, _frame: object) -> None:
        self._received = KeyboardInterrupt if number == signal.SIGINT else Terminated
        raise self._received

    def check(self) -> None:
        """Raises again what a signal has raised where Python drops exceptions: in finalisers and in some callbacks."""
        if self._received:
            raise self._received


def run_training(arguments: Namespace, data_set: FashionMnist, path: Path) -> int:
    """Trains and exports as the command line says, in the run folder ``path``; returns the exit status."""
    signals = Signals()
    keep_freed_memory()
    device = RunFolder(path).read_config().device if arguments.resume else find_device(arguments.device)
    with distributed.process_group(device):
        try:
            return train(arguments, data_set, path, device, signals)
        except KeyboardInterrupt as stop:
            if distributed.rank() == 0 or isinstance(stop, Terminated):  # process 0 may have ended
                with suppress(OSError):  # the terminal may have closed
                    print(stopped(arguments, path), file=sys.stderr)
            return STOPPED
        except RuntimeError as error:
            if not distributed.peer_failed(error):
                raise
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it too
            command = resume_command(path, distributed.world_size(), flags_again(arguments))
            saved = "Another process of this run has ended. Every completed epoch is saved; resume by"
            print(f"error: {saved}:\n  {command}", file=sys.stderr)
            return 2


def train(arguments: Namespace, data_set: FashionMnist, path: Path, device: str, signals: Signals) -> int:
    """Trains a new or resumed run and exports it; returns the exit status."""
    config = None if arguments.resume else new_config(arguments, data_set, device)
    try:
        with hold(path, new=config is not None):
            run = (
                Run.start(path, config, data_set)
                if config
                else Run.resume(path, data_set, arguments.epochs, folders_of(arguments))
            )
            if not arguments.no_export:
                run.require_held_out()
            say(opening(run))
            return finish(arguments, run, path, signals)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise TrainingError(no_room(arguments, path, error)) from error


def flags_again(arguments: Namespace) -> list[str]:
    """Returns the flags of this command line that a run does not keep, for the command that resumes it."""
    flags = ["--no-export"] if arguments.no_export else []
    for name in ("data_dir", "publish_to", "target_accuracy"):
        value = getattr(arguments, name)
        flags += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    return [*flags, *(word for name in arguments.tracker for word in ("--tracker", name))]


def folders_of(arguments: Namespace) -> dict[str, Any]:
    """Returns those fields of a run's configuration that the command line changes when it resumes."""
    folders = {name: getattr(arguments, name) for name in ("teacher_dir", "photos_dir")}
    found: dict[str, Any] = {name: str(folder.resolve()) for name, folder in folders.items() if folder}
    held_out = [str(file.resolve()) for file in arguments.held_out]
    return found | ({"held_out": held_out} if held_out else {})


def hold(path: Path, *, new: bool) -> AbstractContextManager[None]:
    """Returns the lock on the run folder, which process 0 holds for all; makes the folder of a new run."""
    if distributed.rank() or not (new or path.is_dir()):
        return nullcontext()
    path.mkdir(parents=True, exist_ok=True)
    return RunFolder(path).locked()


def finish(arguments: Namespace, run: Run, path: Path, signals: Signals) -> int:
    """Trains the remaining epochs and exports; returns the exit status."""
    kept = not arguments.dry_run
    card = train_and_export(arguments, run, path, signals)
    if card is None:
        if arguments.no_export:
            arguments.no_export = False
            command = resume_command(path, distributed.world_size(), flags_again(arguments))
            say(trained(command, kept=kept))
        return 0
    print(closing(card, path, kept=kept))
    return below_target(card, arguments.target_accuracy)


def train_and_export(arguments: Namespace, run: Run, path: Path, signals: Signals) -> ModelCard | None:
    """Trains, exports and logs; returns the card, or None without an export and in processes other than 0."""
    first = distributed.rank() == 0
    with tracking(run, arguments.tracker if first else []) as log:
        for metrics in run.epochs():
            say(epoch_line(metrics, run.config.recipe.epochs))
            log(metrics.epoch, figures_of_epoch(metrics))
            signals.check()
        if not first or arguments.no_export:
            return None
        duration = "some minutes" if run.photos else "a minute or two"
        say(f"Exporting, calibrating and measuring, which takes {duration} ...", sys.stderr)
        card = run.export(path, *([arguments.publish_to] if arguments.publish_to else []))
        log(run.trainer.epoch, figures_of_card(card))
        return card


def say(text: str, file: TextIO | None = None) -> None:
    """Prints in process 0."""
    if distributed.rank() == 0:
        print(text, file=file, flush=True)


def new_config(arguments: Namespace, data_set: FashionMnist, device: str) -> RunConfig:
    """Returns the configuration of a new run."""
    recipe = find_recipe(arguments.recipe)
    epochs = arguments.epochs or (1 if arguments.dry_run else recipe.epochs)
    if arguments.teacher_dir and not recipe.teachers:
        raise TrainingError(f"The recipe {recipe.name} learns from no other model: leave --teacher-dir out.")
    teacher_dir = arguments.teacher_dir or arguments.model_dir
    return RunConfig(
        recipe=recipe.model_copy(update={"epochs": epochs}),
        seed=arguments.seed,
        precision=choose_precision(arguments.precision, device),
        threads=arguments.threads or max(1, usable_cores() // distributed.world_size()),
        processes=distributed.world_size(),
        device=device,
        machine=describe_machine(device),
        data=dict(data_set.checksums()),
        name=arguments.name or create_network(recipe.architecture).eval().fused().architecture,
        limit=DRY_RUN_IMAGES if arguments.dry_run else None,
        **photos_of(arguments, recipe),
        teacher_dir=str(teacher_dir.resolve()) if recipe.teachers else "",
        teachers=teacher_versions(recipe, teacher_dir),
    )


def find_recipe(name: str) -> Recipe:
    """Returns the recipe of this name; raises TrainingError."""
    if name not in RECIPES:
        raise TrainingError(f"There is no recipe {name}; choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]


def photos_of(arguments: Namespace, recipe: Recipe) -> dict[str, Any]:
    """Returns the part of the configuration that names the photos; raises TrainingError, DataError."""
    if recipe.photos is None:
        return {}
    if distributed.world_size() > 1:
        raise TrainingError(f"The recipe {recipe.name} trains in one process: start it without torchrun.")
    if arguments.photos_dir is None:
        raise TrainingError(
            f"The recipe {recipe.name} needs photos: name their folder by --photos-dir (docs/photos.md says where they "
            "come from)."
        )
    folder = arguments.photos_dir.resolve()
    fold = None if arguments.fold == "none" else int(arguments.fold)
    if fold is None and not arguments.held_out and not arguments.no_export:
        raise TrainingError(
            "With --fold none no photo is left to calibrate the model: name the files held-out.npz of other runs by "
            "--held-out, or train only by --no-export."
        )
    if arguments.held_out:
        read_held_out(arguments.held_out)  # before hours of training
    held_out = [str(path.resolve()) for path in arguments.held_out]
    photos = checksum(read_training_photos(folder))
    return {"photos_dir": str(folder), "photos": photos, "fold": fold, "held_out": held_out}


def find_device(name: str | None) -> str:
    """Returns the device to train on: ``name``, else the GPU if there is one; raises TrainingError."""
    if name == "cuda" and not torch.cuda.is_available():
        raise TrainingError("PyTorch finds no GPU here; leave --device out to train on the CPU.")
    return name or ("cuda" if torch.cuda.is_available() else "cpu")


def teacher_versions(recipe: Recipe, folder: Path) -> dict[str, str]:
    """Returns the versions of the networks in ``folder`` that the recipe needs, by name."""
    try:
        return {name: read_card(folder, name).version for name in recipe.teachers}
    except ArtifactMissing:
        raise TrainingError(
            f"The recipe {recipe.name} needs {' and '.join(recipe.teachers)}, missing in {folder}: name its "
            "folder by --teacher-dir, or train it first (docs/model.md names the recipe)."
        ) from None


def opening(run: Run) -> str:
    """Describes the run in one line."""
    config, images = run.config, run.trainer.batches.images_per_epoch
    processes = f"{config.processes} processes with " if config.processes > 1 else ""
    done = f" ({run.trainer.epoch} done)" if run.trainer.epoch else ""
    return (
        f"recipe {config.recipe.name}, seed {config.seed}: {config.recipe.epochs} epochs{done} of {images:,} images "
        f"on {config.device} ({processes}{config.threads} threads, {config.precision}), into {run.folder.path}"
    )


def stopped(arguments: Namespace, path: Path) -> str:
    """Says what an interrupted run has saved, and how to resume it."""
    if arguments.dry_run:
        return "\nStopped; nothing was kept."
    if not RunFolder(path).config_file.exists():
        return "\nStopped before the first epoch; nothing was kept: start again by the same command."
    epochs = RunFolder(path).saved_epochs()
    command = resume_command(path, distributed.world_size(), flags_again(arguments))
    return f"\nStopped after {epochs} completed epochs, which are saved; resume by:\n  {command}"


def no_room(arguments: Namespace, path: Path, error: OSError) -> str:
    """Says that the disk is full, and how to go on."""
    command = "the same command"
    if not arguments.dry_run and RunFolder(path).config_file.exists():
        command = resume_command(path, distributed.world_size(), flags_again(arguments))
    return f"There is no room in {error.filename or path} ({error.strerror}): make room, then go on by {command}"


def epoch_line(metrics: EpochMetrics, epochs: int) -> str:
    """Describes an epoch in one line."""
    return (
        f"epoch {metrics.epoch:{len(str(epochs))}}/{epochs}  "
        f"train loss {metrics.train_loss:.4f} accuracy {metrics.train_accuracy:7.2%}  "
        f"validation loss {metrics.validation_loss:.4f} accuracy {metrics.validation_accuracy:7.2%}  "
        f"lr {metrics.learning_rate:.2g}  {metrics.seconds:.1f} s, {metrics.images_per_second:,.0f} images/s"
    )


def trained(command: str, *, kept: bool) -> str:
    """Says what a run without an export has saved, and how to export it."""
    return f"Every epoch is saved. Export the model by:\n  {command}" if kept else NOTHING_KEPT


def closing(card: ModelCard, path: Path, *, kept: bool) -> str:
    """Describes the exported model, and says how to serve it."""
    test = card.metrics["test"]
    figures = f"test accuracy {test.accuracy:.2%}, loss {test.loss:.4f} ({test.count:,} images)\n"
    if not kept:
        return figures + NOTHING_KEPT
    return figures + f"Wrote the model {card.name} into {path}. Serve it:  {serve_command(path)}"


def below_target(card: ModelCard, target: float | None) -> int:
    """Returns exit status 1, after a sentence, if the test accuracy is below ``target``, else 0."""
    accuracy = card.metrics["test"].accuracy
    if target is None or accuracy >= target:
        return 0
    print(f"The test accuracy {accuracy:.2%} is below the target {target:.2%}.", file=sys.stderr)
    return 1
