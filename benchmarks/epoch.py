"""How long does an epoch take, beside the tutorial's loop?

Both train the same network on the same 55,000 images with the same batch size and optimiser: the tutorial's way
(torchvision's FashionMNIST, ToTensor and Normalize, DataLoader, the layers of PyTorch's MNIST example) and ours. Each
round is a fresh process a contender, one after the other; 20 batches warm up, then one whole epoch is timed.

    pip install -e '.[benchmark]'
    python benchmarks/epoch.py --rounds 3 --write benchmarks/results/epoch
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from app.settings import read_settings
from benchmarks.contenders.tutorial import TutorialNet
from model import FashionMnist, cpu
from model.training.loop import Batch, RunConfig, Trainer, choose_precision
from model.training.recipes import RECIPES
from model.training.run import training_splits

CONTENDERS = ("tutorial", "fashionnet")
WARM_UP = 20
BATCH = RECIPES["seed"].batch_size
Step = Callable[[Tensor, Tensor], object]


def tutorial() -> float:
    """Seconds of one epoch of the tutorial's loop."""
    from torch.utils.data import DataLoader, Subset
    from torchvision import datasets, transforms

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.2860,), (0.3530,))])
    whole = datasets.FashionMNIST(str(read_settings().data_dir), train=True, transform=transform)
    loader = DataLoader(Subset(whole, range(55_000)), batch_size=BATCH, shuffle=True)
    network = TutorialNet().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def step(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        loss = F.nll_loss(network(images), labels)
        loss.backward()
        optimizer.step()

    return timed(step, lambda: loader)


def fashionnet() -> float:
    """Seconds of one epoch of ours, with the precision that this CPU is given."""
    cpu.keep_freed_memory()
    data_set = FashionMnist(read_settings().data_dir)
    config = RunConfig(
        recipe=RECIPES["seed"], seed=1, precision=choose_precision("auto", "cpu"), threads=cpu.usable_cores(),
        device="cpu", data=dict(data_set.checksums()), name="fashionnet",
    )  # fmt: skip
    trainer = Trainer(config, *training_splits(data_set, config.recipe, config.seed))
    trainer.network.train()
    images, labels = trainer.train_images, trainer.train_labels

    def batches() -> Iterable[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(labels))
        return ((images[batch], labels[batch]) for batch in torch.split(order, BATCH))

    return timed(lambda *batch: trainer.step(Batch(*batch)), batches)


def timed(step: Step, batches: Callable[[], Iterable[tuple[Tensor, Tensor]]]) -> float:
    """Seconds of one epoch of ``step``, after a warm-up."""
    for _, batch in zip(range(WARM_UP), batches(), strict=False):
        step(*batch)
    start = time.perf_counter()
    for batch in batches():
        step(*batch)
    return time.perf_counter() - start


def run_round() -> dict[str, float]:
    """One epoch of each contender, each in a process of its own."""
    seconds = {}
    for contender in CONTENDERS:
        command = [sys.executable, __file__, "--contender", contender]
        seconds[contender] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{contender:12} {seconds[contender]:6.1f} s", flush=True)
    return seconds


def summary(rounds: list[dict[str, float]]) -> str:
    """The results as Markdown."""
    ratios = [seconds["tutorial"] / seconds["fashionnet"] for seconds in rounds]
    lines = ["| contender | epoch, s: median | least | most |", "|---|---|---|---|"]
    for contender in CONTENDERS:
        values = [seconds[contender] for seconds in rounds]
        lines.append(f"| {contender} | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} |")
    machine = f"{cpu.usable_cores()} cores of {cpu.cpu_name()}, bf16 {'yes' if cpu.has_bf16() else 'no'}"
    return "\n".join([
        *lines, "",
        f"Faster by {statistics.median(ratios):.2f} (median of {len(ratios)}; {min(ratios):.2f} to {max(ratios):.2f}).",
        "", f"{machine}; Python {platform.python_version()}, torch {torch.__version__}; {datetime.now(UTC).date()}.",
        f"Batch {BATCH}, 55,000 images. Made by `python benchmarks/epoch.py --rounds {len(rounds)}`.",
    ])  # fmt: skip


def main() -> None:
    """Run the rounds and report."""
    parser = argparse.ArgumentParser(description="The time of an epoch beside the tutorial's loop.")
    parser.add_argument("--contender", choices=CONTENDERS, help="time one epoch of this one alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", type=Path, help="write NAME.md and NAME.json")
    arguments = parser.parse_args()
    if arguments.contender:
        print({"tutorial": tutorial, "fashionnet": fashionnet}[arguments.contender]())
        return
    rounds = [run_round() for _ in range(arguments.rounds)]
    print(summary(rounds))
    if arguments.write:
        arguments.write.with_suffix(".md").write_text(summary(rounds) + "\n")
        arguments.write.with_suffix(".json").write_text(json.dumps(rounds, indent=1) + "\n")


if __name__ == "__main__":
    main()
