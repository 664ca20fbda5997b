"""Images that are not of the distribution, made to measure how well they are told apart. None is trained on."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_digits

from model.engines import Engine
from model.evaluation.ranking import auroc
from model.evaluation.report import run_data_set
from model.inputs import ModelInput
from model.progress import progress_bar

Images = NDArray[np.uint8]
COUNT = 1000
_LETTERS = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"))


def digits(_: Images) -> Images:
    """Scikit-learn's 1,797 handwritten digits, 8x8, enlarged; light on dark as Fashion-MNIST."""
    return np.stack([_resized(digit * (255 / 16)) for digit in load_digits().images])


def inverted(images: Images) -> Images:
    """Dark articles on white, as most people photograph them."""
    return 255 - images


def noise(images: Images) -> Images:
    """Uniform, normal and sparse noise, and the pixels of real images in random order, in equal parts."""
    rng, part = np.random.default_rng(0), (COUNT // 4, 28, 28)
    shuffled = rng.permuted(images[: COUNT // 4].reshape(-1, 784), axis=1).reshape(-1, 28, 28)
    uniform = rng.integers(0, 256, part)
    normal = np.clip(rng.normal(128, 64, part), 0, 255)
    sparse = (rng.random(part) < 0.1) * 255
    return np.concatenate([uniform, normal, sparse, shuffled]).astype(np.uint8)


def smooth(_: Images) -> Images:
    """Clouds: random grey in 3x3 to 7x7 fields, enlarged."""
    rng = np.random.default_rng(1)
    return np.stack([_resized(rng.integers(0, 256, [rng.integers(3, 8)] * 2)) for _ in range(COUNT)])


def blank(_: Images) -> Images:
    """One image of every grey."""
    return np.repeat(np.arange(256, dtype=np.uint8), 784).reshape(-1, 28, 28)


def text(_: Images) -> Images:
    """Three letters, light on black, in several sizes."""
    return np.stack([_word(np.random.default_rng(seed)) for seed in range(COUNT)])


def upside_down(images: Images) -> Images:
    """Real articles on their heads: a hard case, because many look the same."""
    return images[:, ::-1]


OOD_SETS: dict[str, Callable[[Images], Images]] = {
    "digits": digits,
    "inverted": inverted,
    "noise": noise,
    "smooth": smooth,
    "blank": blank,
    "text": text,
    "upside-down": upside_down,
}


def measure_ood_auroc(engine: Engine, images: Images, model_input: ModelInput) -> dict[str, float]:
    """Returns the AUROC of every out-of-distribution set against ``images`` uint8 ``[N, 28, 28]``, by name.

    At most N images of a set are scored. All are enlarged if the model takes larger images.
    """

    def scores(of: Images) -> NDArray[np.float32]:
        return run_data_set(engine, of, model_input).ood_scores

    inside = scores(images)
    sets = progress_bar("out-of-distribution sets", len(OOD_SETS), "sets", OOD_SETS.items())
    return {kind: auroc(inside, scores(_every(make(images), len(images)))) for kind, make in sets}


def _every(images: Images, count: int) -> Images:
    """Returns at most ``count`` of the images, at equal distances."""
    return images[:: -(-len(images) // count)]


def _resized(values: NDArray[np.floating] | NDArray[np.int64]) -> Images:
    return np.asarray(Image.fromarray(values.astype(np.uint8)).resize((28, 28), Image.Resampling.BICUBIC))


def _word(rng: np.random.Generator) -> Images:
    canvas = Image.new("L", (28, 28))
    font = ImageFont.load_default(float(rng.choice([8, 10, 12, 16, 20, 24])))
    place = float(rng.integers(-2, 6)), float(rng.integers(-2, 12))
    ImageDraw.Draw(canvas).text(place, "".join(rng.choice(_LETTERS, 3)), int(rng.integers(120, 256)), font)
    return np.asarray(canvas)
