"""The input that a model declares in its card."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class ModelInput(BaseModel):
    """The images that a model takes; by default those of Fashion-MNIST."""

    model_config = ConfigDict(frozen=True)

    height: int = Field(default=28, ge=1, le=1024)
    width: int = Field(default=28, ge=1, le=1024)
    channels: Literal[1, 3] = Field(default=1, description="1: grey; 3: red, green, blue")
    convention: Literal["fashion-mnist", "photo"] = Field(
        default="fashion-mnist",
        description="fashion-mnist: a light article on black; photo: a picture as it is",
    )
    fit: Literal["trim", "squeeze"] = Field(
        default="trim",
        description="trim: the article without a plain border, its longest edge scaled, centred; "
        "squeeze: the whole picture, both axes scaled by their own factor",
    )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: (28, 28), or (S, S, 3) in colour."""
        return (self.height, self.width) if self.channels == 1 else (self.height, self.width, self.channels)

    def blank(self) -> NDArray[np.uint8]:
        """Returns a black image, uint8 of ``shape``."""
        return np.zeros(self.shape, np.uint8)
