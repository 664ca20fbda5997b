"""Short training runs for the tests."""

from model import FashionMnist
from model.training.loop import RunConfig, Trainer
from model.training.recipes import RECIPES, Recipe
from model.training.run import Run


def make_config(data_set: FashionMnist, epochs: int, recipe: Recipe | None = None, **changes) -> RunConfig:
    """A run of the recipe ``baseline`` in batches of 64, or of another recipe."""
    recipe = recipe or RECIPES["baseline"].model_copy(update={"batch_size": 64})
    recipe = recipe.model_copy(update={"epochs": epochs})
    settings = {"seed": 3, "precision": "fp32", "threads": 1, "device": "cpu", "name": "fashionnet"}
    return RunConfig(recipe=recipe, data=dict(data_set.checksums()), **settings | changes)


def changed(name: str, **changes) -> Recipe:
    """The recipe of this name with changes."""
    return RECIPES[name].model_copy(update=changes)


def finished(run: Run) -> Run:
    """The run after its remaining epochs."""
    list(run.epochs())
    return run


def state_of(trainer: Trainer) -> bytes:
    """Weights, optimiser and schedule, bit for bit; not the seconds, which no two runs share."""
    state = trainer.state_dict()
    tensors = {name: tensor.numpy().tobytes() for name, tensor in state["network"].items()}
    moments = {
        (index, name): value.numpy().tobytes()
        for index, values in state["optimizer"]["state"].items()
        for name, value in values.items()
    }
    return repr((tensors, moments, state["optimizer"]["param_groups"], state["scheduler"])).encode()
