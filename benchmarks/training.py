"""Measures the training time to 92 % validation accuracy, compared with PyTorch's tutorial.

Both train FashionNet's layers on the same 55,000 images and validate on the same 5,000. Each seed has a process of its
own, one after the other; all time after the imports counts. The tutorial is PyTorch's MNIST example (batches of 64,
StepLR of 0.7, at most 14 epochs) with torchvision's FashionMNIST, ToTensor and Normalize, DataLoader and Adam. The
project uses the recipe `fast`. The limit of each is the time of its floating-point operations at the speed of a plain
matrix product in the same precision.

    pip install -e '.[benchmark]'
    python benchmarks/training.py --seeds 3 --write benchmarks/results/training
"""

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional as F  # noqa: N812
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, Subset

from app.settings import read_settings
from benchmarks.contenders.tutorial import MEAN, STD, TutorialNet
from benchmarks.report import add_write, machine, table, write
from model import FashionMnist, cpu
from model.data import split_validation
from model.network import BOTTLENECK_CHANNELS
from model.training.loop import Precision, RunConfig, Trainer, choose_precision
from model.training.recipes import RECIPES
from model.training.run import training_splits

TARGET = 0.92
TUTORIAL_BATCH, TUTORIAL_EPOCHS = 64, 14
IMAGES = 55_000
CONTENDERS = ("tutorial", "fashionnet")
FIRST_FLOP = 2 * 26**2 * 9 * 32
SECOND_FLOP = {
    "tutorial": 2 * 24**2 * 9 * 32 * 64,
    "fashionnet": 2 * (26**2 * 32 * BOTTLENECK_CHANNELS + 24**2 * 9 * BOTTLENECK_CHANNELS * 64),
}
LINEAR_FLOP = 2 * (9216 * 128 + 128 * 10)
"""Floating-point operations per image in the forward pass: first convolution, second convolution, linear layers."""


class Epoch(NamedTuple):
    """After an epoch: validation accuracy 0..1, seconds since the imports, seconds of training in this epoch."""

    accuracy: float
    elapsed: float
    training: float


def tutorial(seed: int) -> Iterator[Epoch]:
    """Trains as the tutorial does."""
    from torchvision import datasets, transforms

    folder = unpacked(read_settings().data_dir)
    start = time.perf_counter()
    torch.manual_seed(seed)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
    whole = datasets.FashionMNIST(folder.name, train=True, transform=transform)
    train, validation = split_validation(whole.targets.numpy(), 5000, seed)
    loader = DataLoader(Subset(whole, train.tolist()), batch_size=TUTORIAL_BATCH, shuffle=True)
    held_out = DataLoader(Subset(whole, validation.tolist()), batch_size=1000)
    network = TutorialNet()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    scheduler = StepLR(optimizer, step_size=1, gamma=0.7)
    for _ in range(TUTORIAL_EPOCHS):
        begun = time.perf_counter()
        network.train()
        for images, labels in loader:
            optimizer.zero_grad()
            F.nll_loss(network(images), labels).backward()
            optimizer.step()
        scheduler.step()
        training = time.perf_counter() - begun
        network.eval()
        with torch.no_grad():
            hits = sum(int((network(images).argmax(1) == labels).sum()) for images, labels in held_out)
        yield Epoch(hits / len(validation), time.perf_counter() - start, training)


def unpacked(data_dir: Path) -> "tempfile.TemporaryDirectory[str]":
    """Returns a copy of the data set in the form in which torchvision unpacks it."""
    folder = tempfile.TemporaryDirectory()
    raw = Path(folder.name) / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (data_dir / "FashionMNIST" / "raw").glob("*.gz"):
        (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    return folder


def fashionnet(seed: int) -> Iterator[Epoch]:
    """Trains by the recipe ``fast``."""
    start = time.perf_counter()
    cpu.keep_freed_memory()
    data_set, recipe = FashionMnist(read_settings().data_dir), RECIPES["fast"]
    config = RunConfig(
        recipe=recipe, seed=seed, precision=precision("fashionnet"), threads=cpu.usable_cores(),
        device="cpu", data=dict(data_set.checksums()), name="fashionnet",
    )  # fmt: skip
    for metrics in Trainer(config, *training_splits(data_set, recipe, seed)).epochs():
        yield Epoch(metrics.validation_accuracy, time.perf_counter() - start, metrics.seconds)


def train_to_target(contender: str, seed: int) -> list[Epoch]:
    """Returns the epochs up to the first that reaches the target."""
    epochs = []
    for epoch in {"tutorial": tutorial, "fashionnet": fashionnet}[contender](seed):
        epochs.append(epoch)
        if epoch.accuracy >= TARGET:
            break
    return epochs


def training_flop(contender: str) -> int:
    """Operations per image: forward, and twice as many backward, without a gradient for the image."""
    return 3 * (FIRST_FLOP + SECOND_FLOP[contender] + LINEAR_FLOP) - FIRST_FLOP


def precision(contender: str) -> Precision:
    """Returns the precision that the contender trains in."""
    return choose_precision("auto", "cpu") if contender == "fashionnet" else "fp32"


def matrix_product(contender: str) -> float:
    """Returns the operations per second of a product of two square matrices in its precision, the best of twenty."""
    size, seconds = 2048, []
    dtype = torch.bfloat16 if precision(contender) == "bf16" else torch.float32
    left, right = torch.rand(2, size, size).to(dtype)
    for _ in range(20):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def run_round(seed: int) -> dict[str, list[Epoch]]:
    """Trains both contenders with one seed, each in a process of its own."""
    found = {}
    for contender in CONTENDERS:
        command = [sys.executable, __file__, "--contender", contender, "--seed", str(seed)]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found[contender] = [Epoch(*values) for values in json.loads(printed)]
        last = found[contender][-1]
        print(f"seed {seed} {contender:12} {len(found[contender])} epochs, {last.elapsed:.0f} s, {last.accuracy:.2%}")
    return found


def summary(rounds: list[dict[str, list[Epoch]]], products: dict[str, float]) -> str:
    """Returns the results as Markdown."""
    head = (
        "",
        f"seconds to {TARGET:.0%}: median, by seed",
        "epochs",
        "reached",
        "epoch, s",
        "images/s",
        "limit",
        "of it",
    )
    rows = []
    for contender in CONTENDERS:
        runs = [found[contender] for found in rounds]
        seconds = [epochs[-1].elapsed for epochs in runs]
        training = statistics.median(epoch.training for epochs in runs for epoch in epochs)
        rows.append(
            (
                contender,
                f"{statistics.median(seconds):.0f}: {listed(f'{s:.0f}' for s in seconds)}",
                listed(str(len(epochs)) for epochs in runs),
                listed(f"{epochs[-1].accuracy:.2%}" for epochs in runs),
                f"{training:.1f}",
                f"{IMAGES / training:,.0f}",
                f"{products[contender] / training_flop(contender):,.0f}",
                f"{IMAGES / training * training_flop(contender) / products[contender]:.0%}",
            )
        )
    return "\n".join([table(head, rows), "", *remarks(rounds, products)])


def remarks(rounds: list[dict[str, list[Epoch]]], products: dict[str, float]) -> list[str]:
    """Returns the lines below the table."""
    ratios = [found["tutorial"][-1].elapsed / found["fashionnet"][-1].elapsed for found in rounds]
    median, each = statistics.median(ratios), listed(f"{ratio:.1f}" for ratio in ratios)
    return [
        f"Faster by {median:.1f} (median of {len(ratios)} seeds; {each}).",
        "The limit is the images per second of a plain matrix product, by the operations per image:",
        "; ".join(
            f"{contender} {training_flop(contender) / 1e6:.1f} MFLOP in {precision(contender)} "
            f"at {product / 1e9:.0f} GFLOP/s"
            for contender, product in products.items()
        )
        + ".",
        "",
        f"{machine()}; {datetime.now(UTC).date()}.",
        f"Made by `python benchmarks/training.py --seeds {len(rounds)}`.",
    ]


def listed(values: Iterator[str]) -> str:
    """Joins the values of one cell."""
    return ", ".join(values)


def main() -> None:
    """Runs the rounds and reports."""
    parser = argparse.ArgumentParser(description="The time to 92 %, compared with the tutorial.")
    parser.add_argument("--contender", choices=CONTENDERS, help="train this one alone and print its epochs")
    parser.add_argument("--seed", type=int, default=1, help="of that one")
    parser.add_argument("--seeds", type=int, default=3)
    add_write(parser)
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(train_to_target(arguments.contender, arguments.seed)))
        return
    products = {contender: matrix_product(contender) for contender in CONTENDERS}
    rounds = [run_round(seed) for seed in range(1, arguments.seeds + 1)]
    print(summary(rounds, products))
    write(arguments.write, summary(rounds, products) + "\n", rounds)


if __name__ == "__main__":
    main()
