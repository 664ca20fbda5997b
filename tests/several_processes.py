"""Short runs of three recipes in as many processes as torchrun starts.

Arguments: the data set's folder, that of the model ``fashionnet`` that teaches, and an empty one for the runs.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from model import FashionMnist
from model.artifact import read_card
from model.training import distributed
from model.training.loop import RunConfig
from model.training.recipes import RECIPES
from model.training.run import Run
from tests.training_runs import changed, finished, make_config, state_of

EPOCHS = 3


def configurations(data_set: FashionMnist, teacher: Path) -> Iterator[RunConfig]:
    """Dropout alone; batch normalisation and a teacher; in addition augmented and mixed images, and a restart."""
    settings = {
        "processes": distributed.world_size(),
        "teacher_dir": str(teacher),
        "teachers": {"fashionnet": read_card(teacher, "fashionnet").version},
    }
    yield make_config(data_set, EPOCHS, processes=distributed.world_size())
    common = {"batch_size": 64, "validation_seed": 3}
    taught = RECIPES["best"].distillation.model_copy(update={"teacher": "fashionnet"})
    yield make_config(data_set, EPOCHS, changed("best", distillation=taught, **common), **settings)
    mixed = {"architecture": "fashionnet-normalised", "learning_rate": 0.1, "restarts": (2,)}
    yield make_config(data_set, EPOCHS, changed("deep", distillation=taught, **common, **mixed), **settings)


def train(data_set: FashionMnist, teacher: Path, folder: Path) -> dict[str, Run]:
    """The finished runs, by the name of the recipe."""
    return {
        config.recipe.name: finished(Run.start(folder / config.recipe.name, config, data_set))
        for config in configurations(data_set, teacher)
    }


def resume(whole: Run) -> Run:
    """The same run, continued after its last epoch but one."""
    folder = whole.folder.path.with_name(f"{whole.folder.path.name} resumed")
    if distributed.rank() == 0:
        shutil.copytree(whole.folder.path, folder)
        sorted(folder.glob("checkpoints/*"))[-1].unlink()
    distributed.barrier()
    return finished(Run.resume(folder, whole.data_set))


def main(data: str, teacher: str, folder: str) -> None:
    """Train, save each process's weights, and compare with resumed runs."""
    with distributed.process_group("cpu"):
        for name, run in train(FashionMnist(Path(data)), Path(teacher), Path(folder)).items():
            torch.save(run.trainer.network.state_dict(), Path(folder, f"{name}-{distributed.rank()}.pt"))
            assert state_of(resume(run).trainer) == state_of(run.trainer), f"{name}: a resumed run differs"


if __name__ == "__main__":
    main(*sys.argv[1:])
