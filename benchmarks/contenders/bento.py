"""BentoML: 2 workers, no access log."""

import bentoml
import numpy as np
import torch
from PIL.Image import Image as Picture

from benchmarks.contenders.tutorial import MEAN, STD, answer, load


@bentoml.service(workers=2, traffic={"timeout": 10}, logging={"access": {"enabled": False}})
class FashionNet:
    """One service."""

    def __init__(self) -> None:
        self.network = load()

    @bentoml.api(route="/predict")
    def predict(self, file: Picture) -> dict:
        """The answer of one picture."""
        pixels = torch.from_numpy((np.asarray(file.convert("L"), np.float32) / 255 - MEAN) / STD)
        with torch.inference_mode():
            return answer(self.network(pixels[None, None])[0])
