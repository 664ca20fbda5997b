"""A training run from its configuration to its artefact."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from model.artifact import Artifact, ModelCard, load_artifact, save_artifact
from model.data import FashionMnist, Split, split_validation
from model.errors import ArtifactCorrupt, ArtifactMissing, TrainingError
from model.export.build import describe, export
from model.export.half_precision import round_weights
from model.export.photo import HeldOut, export_photo_model, read_held_out, run_held_out, unscaled_score
from model.files import write_atomically
from model.installation import python_command, script
from model.network import Network, PhotoFashionNet, load_network
from model.ood.photo_score import PhotoOodScore
from model.training import distributed
from model.training.loop import EpochMetrics, Examples, RunConfig, Trainer
from model.training.photo_batches import PhotoTensors
from model.training.photo_examples import DRAWN_VALIDATION, load_examples
from model.training.recipes import Recipe
from model.training.run_folder import RunFolder

HELD_OUT_FILE = "held-out.npz"
"""Outputs for the photos of the fold that validated, in the run folder."""


class Run:
    """A run and its folder.

    Raises (from the constructor, ``start`` and ``resume``):
        DataError: the data set is not there, damaged, or not the one that the run began with.
        TrainingError: the folder holds another run, or none to resume, or a teacher does not fit.
        ArtifactError: a network that the recipe asks for cannot be read.
    """

    def __init__(self, folder: RunFolder, config: RunConfig, data_set: FashionMnist) -> None:
        if dict(data_set.checksums()) != config.data:
            raise TrainingError(
                f"{data_set.root} holds another data set than the run in {folder.path} started with: name the original "
                "folder by --data-dir, or start a new run."
            )
        self.folder = folder
        self.config = config
        self.data_set = data_set
        self.train, self.validation = training_splits(data_set, config.recipe, config.seed, config.limit)
        self.photos = self._load_photos()
        """What trains and what validates, if the recipe trains on photos."""
        train, validation = self.photos or (self.train, self.validation)
        self.trainer = Trainer(config, train, validation, load_teachers(config))

    def _load_photos(self) -> tuple[PhotoTensors, Examples] | None:
        if self.config.recipe.photos is None:
            return None
        return load_examples(self.config, self.train, self.validation)

    @classmethod
    def start(cls, path: Path, config: RunConfig, data_set: FashionMnist) -> "Run":
        """Start a run in the folder ``path``, which must not contain one."""
        folder = RunFolder(path)
        if distributed.rank() == 0:
            folder.require_empty()
        run = cls(folder, config, data_set)
        if distributed.rank() == 0:
            folder.write_config(config)
        return run

    @classmethod
    def resume(
        cls, path: Path, data_set: FashionMnist, epochs: int | None = None, folders: Mapping[str, Any] | None = None
    ) -> "Run":
        """Resume the run in ``path`` after its last completed epoch.

        Args:
            path: of the run folder.
            data_set: Fashion-MNIST.
            epochs: another number of epochs.
            folders: fields of the configuration that say where something is now: ``teacher_dir``, ``photos_dir``, and
                ``held_out``, the files that calibrate a run on all photos.
        """
        folder = RunFolder(path)
        config = stored = folder.read_config()
        if config.processes != distributed.world_size():
            raise TrainingError(
                f"The run in {path} has {config.processes} process(es), not {distributed.world_size()}. Resume it by "
                f"{resume_command(path, config.processes)}"
            )
        if config.device == "cuda" and not torch.cuda.is_available():
            raise TrainingError(f"The run in {path} trains on a GPU, and PyTorch finds none: resume it where one is.")
        if epochs:
            config = _with_epochs(config, epochs, folder)
        _require_use(config, folders or {}, path)
        config = config.model_copy(update=folders)
        if config.held_out:
            read_held_out([Path(file) for file in config.held_out])
        run = cls(folder, config, data_set)
        folder.restore(run.trainer)
        if distributed.rank() == 0 and config != stored:
            folder.write_config(config)
        if distributed.rank() == 0 and run.trainer.epoch:
            folder.write_history(run.trainer)
        return run

    def epochs(self) -> Iterator[EpochMetrics]:
        """Train the remaining epochs; saves each, then yields its metrics."""
        for metrics in self.trainer.epochs():
            if distributed.rank() == 0:
                self.folder.save(self.trainer)
            distributed.barrier()
            yield metrics

    def export(self, *folders: Path) -> ModelCard:
        """Export the network, measure it on the test set, and write the artefact to every folder.

        Raises:
            OSError: there is no room for it.
            ArtifactError: the exported graph and the network disagree.
        """
        splits = {
            "validation": self.validation,
            "test": self.data_set.load("test").first(self.config.limit),
        }
        network = self.trainer.network_to_export()
        card = describe(network, self.trainer)
        if isinstance(network, PhotoFashionNet) and self.photos:
            artifact = self._export_photo_model(network, card, splits, *self.photos)
        else:
            artifact = export(network, card, self.train, splits)
        cards = [save_artifact(folder, artifact.card, artifact.content) for folder in folders]
        return cards[0]

    def _export_photo_model(
        self,
        network: PhotoFashionNet,
        card: ModelCard,
        splits: dict[str, Split],
        tensors: PhotoTensors,
        validation: Examples,
    ) -> Artifact:
        round_weights(network)
        score = unscaled_score(network, tensors)
        held_out = self._held_out(network, score, validation)
        images = None if self.config.fold is None else validation.images[: len(held_out.sets)].numpy()
        return export_photo_model(network, card, tensors, score, held_out, splits=splits, images=images)

    def require_held_out(self) -> None:
        """Raises TrainingError if all photos train and the files are missing that calibrate the model."""
        if self.photos and self.config.fold is None:
            read_held_out([Path(path) for path in self.config.held_out])

    def _held_out(self, network: PhotoFashionNet, score: PhotoOodScore, validation: Examples) -> HeldOut:
        """Returns the outputs for photos that did not train: of this run, or of the runs that the config names."""
        if self.config.fold is None:
            return read_held_out([Path(path) for path in self.config.held_out])
        count = len(validation.images) - min(DRAWN_VALIDATION, len(self.validation.labels))
        images, sets = (rows[:count] for rows in validation)  # the drawn images come last
        held_out = run_held_out(network, score, images, sets)
        write_atomically(self.folder.path / HELD_OUT_FILE, held_out.to_bytes())
        return held_out


def _with_epochs(config: RunConfig, epochs: int, folder: RunFolder) -> RunConfig:
    """Returns the configuration with another number of epochs; raises TrainingError if the run cannot have it."""
    if config.recipe.schedule == "one-cycle" and epochs != config.recipe.epochs:
        raise TrainingError(
            f"The learning rate of the run in {folder.path} ends at 0 after {config.recipe.epochs} epochs, so their "
            "number stays: leave --epochs out, or start a new run with it."
        )
    if epochs < folder.saved_epochs():
        raise TrainingError(
            f"The run in {folder.path} has completed {folder.saved_epochs()} epochs already: leave --epochs out to "
            "export it, or name more."
        )
    return config.model_copy(update={"recipe": config.recipe.model_copy(update={"epochs": epochs})})


def _require_use(config: RunConfig, folders: Mapping[str, Any], path: Path) -> None:
    """Raises TrainingError if the run makes no use of one of these folders and files."""
    recipe = config.recipe
    if "teacher_dir" in folders and not recipe.teachers:
        raise TrainingError(f"The run in {path} learns from no other model: leave --teacher-dir out.")
    if recipe.photos is None and folders.keys() & {"photos_dir", "held_out"}:
        raise TrainingError(f"The run in {path} trains on no photos: leave --photos-dir and --held-out out.")
    if "held_out" in folders and config.fold is not None:
        raise TrainingError(
            f"The run in {path} is calibrated on the photos of its own fold: leave --held-out out, or start a run "
            "on all photos with --fold none."
        )


def resume_command(path: Path, count: int = 1, flags: Sequence[str] = ()) -> str:
    """Returns the command that resumes the run in ``path``, which ``count`` processes train, with these flags."""
    launcher = python_command() if count == 1 else f"{python_command('torchrun')} --nproc-per-node={count}"
    return f"{launcher} {script('train')} {shlex.join(['--resume', str(path), *flags])}"


def training_splits(data_set: FashionMnist, recipe: Recipe, seed: int, limit: int | None = None) -> tuple[Split, Split]:
    """Returns the training and validation images of ``recipe``; at most a tenth of the images validates."""
    whole = data_set.load("train")
    size = min(recipe.validation_size, len(whole.labels) // 10)
    train, validation = split_validation(whole.labels, size, recipe.split_seed(seed))
    return whole.take(train).first(limit), whole.take(validation).first(limit)


def load_teachers(config: RunConfig) -> dict[str, Network]:
    """Returns the networks that the recipe learns from, by name.

    Raises:
        ArtifactError: one is missing or damaged.
        TrainingError: one has another version than at the start of the run, or was trained on images that validate
            this run.
    """
    return {name: _load_teacher(config, name, version) for name, version in config.teachers.items()}


def _load_teacher(config: RunConfig, name: str, version: str) -> Network:
    try:
        artifact = load_artifact(Path(config.teacher_dir), name, ("safetensors",))
    except ArtifactMissing:
        raise TrainingError(
            f"The run learns from {name}, which is missing in {config.teacher_dir}: name its folder by --teacher-dir."
        ) from None
    card, described = artifact.card, f"The network {name} in {config.teacher_dir}"
    if card.version != version:
        raise TrainingError(
            f"{described} has version {card.version}, but this run started with {version}: start a new run, or restore "
            "the old network."
        )
    (theirs, seed), ours = recipe_and_seed(card), config.recipe
    if (theirs.split_seed(seed), theirs.validation_size, card.data) != (
        ours.split_seed(config.seed), ours.validation_size, config.data,
    ):  # fmt: skip
        raise TrainingError(
            f"{described} was trained on images that validate this run: choose one with the same data and validation "
            "split."
        )
    return load_network(artifact)


def recipe_and_seed(card: ModelCard) -> tuple[Recipe, int]:
    """Returns what selects the validation images of a model; raises ArtifactCorrupt if its card does not say it."""
    try:
        return Recipe(**card.recipe), int(card.training["seed"])
    except (KeyError, TypeError, ValueError):
        raise ArtifactCorrupt(
            f"{card.name}.json names no recipe and seed that this version knows: use a model that it has trained."
        ) from None
