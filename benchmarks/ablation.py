"""What does each ingredient of the recipe `best` give?

Trains FashionNet's layers with one ingredient more in every row, each with the same seeds and the same held-out images,
over fewer epochs than `best` has. Only validation images are looked at.

    python benchmarks/ablation.py TEACHER_DIR --epochs 6 --seeds 2 --write benchmarks/results/ablation
"""

import argparse
import statistics
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from torch import nn

from app.settings import read_settings
from benchmarks.report import add_write, machine, table, write
from model import FashionMnist, cpu
from model.artifact import load_artifact
from model.network import ARCHITECTURES, Network, NormalisedFashionNet, load_network
from model.training.augment import Augmentation
from model.training.loop import EpochMetrics, RunConfig, Trainer, choose_precision
from model.training.recipes import RECIPES, Recipe
from model.training.run import training_splits

BEST = RECIPES["best"]


class FullRankFashionNet(NormalisedFashionNet):
    """The same with a second convolution of full rank."""

    architecture = "fashionnet-full-rank"

    def __init__(self) -> None:
        super().__init__()
        self.bottleneck = nn.Identity()
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, bias=False)


ARCHITECTURES[FullRankFashionNet.architecture] = FullRankFashionNet


def variants(epochs: int) -> dict[str, Recipe]:
    """By what is new in them, each on top of the one before."""
    baseline = RECIPES["baseline"].model_copy(update={"validation_seed": BEST.validation_seed})
    cycle = BEST.model_copy(
        update={"architecture": "fashionnet", "augmentation": Augmentation(), "distillation": None, "optimizer": "adam",
                "learning_rate": 3e-3, "weight_decay": 0.0}
    )  # fmt: skip
    low_rank = BEST.model_copy(update={"augmentation": Augmentation(), "distillation": None})
    normalised = low_rank.model_copy(update={"architecture": FullRankFashionNet.architecture})
    flipped = BEST.model_copy(update={"distillation": None})
    found = {
        "`baseline`: Adam, StepLR": baseline,
        "one-cycle": cycle,
        "batch normalisation, SGD, weight decay, less dropout": normalised,
        "second convolution of rank 16 over its inputs": low_rank,
        "flip": flipped,
        "teacher: `best`": BEST,
    }
    return {name: recipe.model_copy(update={"epochs": epochs}) for name, recipe in found.items()}


def train(data_set: FashionMnist, recipe: Recipe, seed: int, teachers: Mapping[str, Network]) -> EpochMetrics:
    """The last epoch's metrics."""
    config = RunConfig(
        recipe=recipe, seed=seed, precision=choose_precision("auto", "cpu"), threads=cpu.usable_cores(),
        device="cpu", data=dict(data_set.checksums()), name="fashionnet",
    )  # fmt: skip
    *_, last = Trainer(config, *training_splits(data_set, recipe, seed), teachers).epochs()
    return last


def row(name: str, runs: list[EpochMetrics]) -> tuple[str, ...]:
    """Returns a row of the table."""
    accuracies = [100 * run.validation_accuracy for run in runs]
    spread = f" ± {statistics.stdev(accuracies):.2f}" if len(runs) > 1 else ""
    each = ", ".join(f"{accuracy:.2f}" for accuracy in accuracies)
    loss = statistics.mean(run.validation_loss for run in runs)
    trained = statistics.mean(100 * run.train_accuracy for run in runs)
    return name, f"{statistics.mean(accuracies):.2f} %{spread} ({each})", f"{loss:.4f}", f"{trained:.2f} %"


def remarks(epochs: int, seeds: int) -> list[str]:
    """What stands below the table."""
    return [
        f"{epochs} epochs, {seeds} seeds, 55,000 images, validated on 5,000 others; mean ± standard deviation.",
        f"{machine()}; {datetime.now(UTC).date()}.",
        f"Made by `python benchmarks/ablation.py TEACHER_DIR --epochs {epochs} --seeds {seeds}`.",
    ]


def train_all(teacher_dir: Path, epochs: int, seeds: int) -> dict[str, list[EpochMetrics]]:
    """Every variant with every seed, printed as they come; raises ArtifactMissing without a trained teacher."""
    data_set, teacher = FashionMnist(read_settings().data_dir), BEST.teachers[0]
    teachers = {teacher: load_network(load_artifact(teacher_dir, teacher, ("safetensors",)))}
    found = {}
    for name, recipe in variants(epochs).items():
        found[name] = [train(data_set, recipe, seed, teachers) for seed in range(1, seeds + 1)]
        print(" | ".join(row(name, found[name])), flush=True)
    return found


def main() -> None:
    """Train all of them and report."""
    parser = argparse.ArgumentParser(description="What each ingredient of `best` gives.")
    parser.add_argument("teacher_dir", type=Path, help="run of `scripts/train.py --recipe residual`, which teaches")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2)
    add_write(parser)
    arguments = parser.parse_args()
    cpu.keep_freed_memory()
    found = train_all(arguments.teacher_dir, arguments.epochs, arguments.seeds)
    head = ("", "validation accuracy (by seed)", "loss", "training accuracy")
    lines = [
        table(head, [row(name, runs) for name, runs in found.items()]),
        "",
        *remarks(arguments.epochs, arguments.seeds),
    ]
    rounded = {name: [run.rounded() for run in runs] for name, runs in found.items()}
    write(arguments.write, "\n".join(lines) + "\n", rounded)


if __name__ == "__main__":
    main()
