"""What to train and how: everything that decides the weights, apart from the data and the machine."""

from pydantic import BaseModel, ConfigDict, Field


class Recipe(BaseModel):
    """One way to train one architecture: Adam on ``F.nll_loss``, StepLR, no augmentation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    architecture: str
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    step_size: int = Field(default=1, ge=1, description="epochs between two steps of StepLR")
    gamma: float = Field(gt=0, le=1, description="factor of the learning rate at each step")
    validation_size: int = Field(default=5000, ge=1, description="training images held out, stratified by class")


RECIPES: dict[str, Recipe] = {
    "seed": Recipe(name="seed", architecture="fashionnet", epochs=12, batch_size=128, learning_rate=1e-3, gamma=0.8),
}
