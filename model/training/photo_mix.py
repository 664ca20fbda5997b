"""The mixture of pictures that trains the photo model."""

from pydantic import BaseModel, ConfigDict, Field


class PhotoMix(BaseModel):
    """What the batches of the photo model consist of."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stored_size: int = Field(ge=32, description="edge of the photos in memory, which random crops are taken from")
    crop_size: int = Field(
        default=192,
        ge=32,
        description="edge of the pictures that train; the model takes larger ones, because random crops enlarge what "
        "they show (Touvron et al., arXiv:1906.06423)",
    )
    drawn: int = Field(ge=1, description="images of Fashion-MNIST in a batch")
    outliers: int = Field(ge=1, description="drawn pictures of none of the classes in a batch")
    class_weights: dict[int, float] = Field(
        default={}, description="how often images of a class of Fashion-MNIST are drawn; 1 for the others"
    )
    enlarged: float = Field(
        default=0.15, ge=0, le=1, description="share of the images of Fashion-MNIST that stay light grey on black"
    )
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
