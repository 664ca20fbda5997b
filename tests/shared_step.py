"""A few steps of training in as many processes as torchrun starts; the first one saves what came of them."""

import sys

import numpy as np
import torch

from model import Split
from model.network import create_network
from model.training import distributed
from model.training.loop import Batch, RunConfig, Trainer
from model.training.recipes import RECIPES


def main(recipe: str, path: str) -> None:
    """Train and save."""
    with distributed.joined():
        state = train(recipe)
        if distributed.rank() == 0:
            torch.save(state, path)


def train(recipe: str) -> dict[str, object]:
    """What came of two steps: weights, validation, a teacher's answers."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (64, 28, 28), dtype=torch.uint8)
    labels = torch.randint(0, 10, (64,))
    split = Split(images.numpy(), labels.numpy().astype(np.uint8))
    config = RunConfig(
        recipe=RECIPES[recipe].model_copy(update={"epochs": 100, "restarts": ()}), seed=1, precision="fp32",
        threads=1, device="cpu", data={}, name="x", processes=distributed.size(),
    )  # fmt: skip
    teacher = create_network("fashionnet-deep").eval()
    trainer = Trainer(config, split, split, dict.fromkeys(config.recipe.parents, teacher))
    trainer.network.train()
    answers = trainer.teacher.lesson(0).answers if trainer.teacher else None
    targets = torch.rand(64, 10).softmax(1) if config.recipe.mixing else None
    for rows in (64, 13):  # the second batch is shared unevenly
        rest = (None if values is None else values[:rows] for values in (answers, targets))
        trainer.step(Batch(images[:rows], labels[:rows], *rest))
    return {"network": trainer.network.state_dict(), "validated": trainer.validate(), "answers": answers}


if __name__ == "__main__":
    main(*sys.argv[1:])
