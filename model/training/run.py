"""A training run from its configuration to its artefact."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from model.artifact import ModelCard, load_artifact, save_artifact
from model.data import FashionMnist, Split, split_validation
from model.errors import TrainingError
from model.export.build import describe, export
from model.network import Network, load_network
from model.training import distributed
from model.training.loop import EpochMetrics, RunConfig, Trainer
from model.training.recipes import Recipe
from model.training.run_folder import RunFolder


class Run:
    """A run in its folder, at the end of its last completed epoch.

    Raises (from the constructor, ``start`` and ``resume``):
        DataError: the data set is not there, damaged, or not the one that the run began with.
        TrainingError: the folder holds another run, or none to resume, or a parent network does not fit.
        ArtifactError: a network that the recipe asks for cannot be read.
    """

    def __init__(self, folder: RunFolder, config: RunConfig, data_set: FashionMnist) -> None:
        if dict(data_set.checksums()) != config.data:
            raise TrainingError(f"{data_set.root} holds another data set than the one that {folder.path} began with.")
        self.folder = folder
        self.config = config
        self.data_set = data_set
        self.train, self.validation = training_splits(data_set, config.recipe, config.seed, config.limit)
        self.trainer = Trainer(config, self.train, self.validation, load_parents(config))

    @classmethod
    def start(cls, path: Path, config: RunConfig, data_set: FashionMnist) -> "Run":
        """Begin a run in the folder ``path``, which must not hold one yet."""
        folder = RunFolder(path)
        if distributed.rank() == 0:
            folder.require_empty()
        run = cls(folder, config, data_set)
        if distributed.rank() == 0:
            folder.write_config(config)
        return run

    @classmethod
    def resume(cls, path: Path, data_set: FashionMnist, epochs: int | None = None) -> "Run":
        """Go on with the run in ``path`` from its last completed epoch, to ``epochs`` where that is given."""
        folder = RunFolder(path)
        config = folder.read_config()
        if config.processes != distributed.size():
            raise TrainingError(
                f"{config.processes} process(es) began the run in {path}, and this is {distributed.size()}: go on by "
                f"{resume_command(path, config.processes)}"
            )
        if epochs:
            if config.recipe.schedule == "one-cycle" and epochs != config.recipe.epochs:
                raise TrainingError(
                    f"The learning rate of the run in {path} ends at 0 after {config.recipe.epochs} epochs, so their "
                    "number stays: leave --epochs out, or start a new run with it."
                )
            recipe = config.recipe.model_copy(update={"epochs": epochs})
            config = config.model_copy(update={"recipe": recipe})
            if distributed.rank() == 0:
                folder.write_config(config)
        run = cls(folder, config, data_set)
        folder.restore(run.trainer)
        return run

    def epochs(self) -> Iterator[EpochMetrics]:
        """Train the epochs that are left; each is on the disk before its metrics are handed out."""
        for metrics in self.trainer.epochs():
            if distributed.rank() == 0:
                self.folder.save(self.trainer)
            distributed.wait_for_first()
            yield metrics

    def release(self, *folders: Path) -> ModelCard:
        """Export the network, measure it once on the test set, and write the artefact to every folder."""
        splits = {
            "validation": self.validation,
            "test": limited(self.data_set.load("test"), self.config.limit),
        }
        network = self.trainer.released_network()
        artifact = export(network, describe(network, self.trainer), self.train, splits)
        cards = [save_artifact(folder, artifact.card, artifact.content) for folder in folders]
        return cards[0]


def resume_command(path: Path, count: int = 1) -> str:
    """What to type to go on with the run in ``path``, which ``count`` processes began."""
    launcher = "python" if count == 1 else f"torchrun --nproc-per-node={count}"
    return f"{launcher} scripts/train.py --resume {shlex.quote(str(path))}"


def training_splits(data_set: FashionMnist, recipe: Recipe, seed: int, limit: int | None = None) -> tuple[Split, Split]:
    """The training and validation images that ``recipe`` asks for; of a small set a tenth, at most, validates."""
    whole = data_set.load("train")
    size = min(recipe.validation_size, len(whole.labels) // 10)
    train, validation = split_validation(whole.labels, size, recipe.split_seed(seed))
    return limited(whole.take(train), limit), limited(whole.take(validation), limit)


def load_parents(config: RunConfig) -> dict[str, Network]:
    """The networks that the recipe begins with or learns from, by name.

    Raises:
        ArtifactError: one is not in the folder, or damaged.
        TrainingError: one is another than the run began with, or was trained on images that this run is validated on.
    """
    return {name: _load_parent(config, name, version) for name, version in config.parents.items()}


def _load_parent(config: RunConfig, name: str, version: str) -> Network:
    artifact = load_artifact(Path(config.parents_folder), name, ("safetensors",))
    card, described = artifact.card, f"The network {name} in {config.parents_folder}"
    if card.version != version:
        raise TrainingError(
            f"{described} is version {card.version}, but this run began with {version}: start a new run, or bring the "
            "old network back."
        )
    theirs, ours = Recipe(**card.recipe), config.recipe
    if (theirs.split_seed(card.training["seed"]), theirs.validation_size, card.data) != (
        ours.split_seed(config.seed), ours.validation_size, config.data,
    ):  # fmt: skip
        raise TrainingError(
            f"{described} was trained on images that this run is validated on: take one with the same data and "
            "validation split, or set the recipe's validation_seed to its own."
        )
    return load_network(artifact)


def limited(split: Split, limit: int | None) -> Split:
    """The first ``limit`` examples, or all."""
    return split.take(np.arange(min(limit or len(split.labels), len(split.labels))))
